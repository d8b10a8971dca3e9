//! `tophalf run`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::outcome;

/// What `tophalf run` takes.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// The kernel: a Linux bzImage (vmlinuz)
    kernel: PathBuf,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Kernel command line
    #[arg(long, value_name = "STRING", default_value = "console=ttyS0")]
    cmdline: String,
    /// Number of vCPUs
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    cpus: u32,
    /// Memory: a number with suffix K, M, G or T; without one, in MiB
    #[arg(short, long, value_name = "SIZE", default_value = "512M")]
    memory: String,
    /// End with exit code 32 when the guest resets, instead of rebooting it
    #[arg(long)]
    no_reboot: bool,
    /// Say more on stderr (twice: still more); RUST_LOG overrides it
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// Runs the machine; gives the program's exit code.
pub fn run(arguments: RunArguments) -> ExitCode {
    start_log(arguments.verbose);
    match config(arguments).and_then(|config| vmm::run(&config)) {
        Ok(reason) => outcome::of_stop(reason),
        Err(e) => outcome::of_error(&e),
    }
}

fn config(arguments: RunArguments) -> Result<vmm::Config, vmm::Error> {
    Ok(vmm::Config {
        kernel: arguments.kernel,
        initrd: arguments.initrd,
        cmdline: arguments.cmdline,
        cpus: arguments.cpus,
        memory: vmm::parse_size(&arguments.memory)?,
        no_reboot: arguments.no_reboot,
    })
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).init();
}
