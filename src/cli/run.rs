//! `tophalf run`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use vmm::StopReason;

use super::options::{RunArguments, RunOptions};
use super::{config_file, log, outcome};

/// Runs the machine, or prints its configuration; gives the program's exit code.
pub fn run(arguments: &RunArguments) -> ExitCode {
    let started = arguments.options().and_then(|options| {
        log::start(options.verbose, options.log_format)?;
        outcome::set_format(options.log_format);
        Ok(options)
    });
    match started {
        Ok(options) if arguments.print_config() => print(&options),
        Ok(options) => match config(options).and_then(|config| Ok((vmm::run(&config)?, config.exec.is_some()))) {
            Ok((reason, exec)) => {
                if exec && !matches!(reason, StopReason::CommandEnded(_) | StopReason::Signal(_)) {
                    outcome::complain("the guest has ended without a status of the command");
                }
                outcome::of_stop(reason)
            }
            Err(e) => outcome::of_error(&e),
        },
        Err(message) => outcome::of_error(&vmm::Error::Usage(message)),
    }
}

/// Prints the options once they have been found good; the kernel may still be missing. Where a list of APIC IDs decides the number
/// of vCPUs, the file leaves that to the list, too.
fn print(options: &RunOptions) -> ExitCode {
    let placeholder = || Some(PathBuf::from("kernel"));
    let kernel = options.kernel.clone().or_else(placeholder);
    let good = config(RunOptions { kernel, ..options.clone() }).and_then(|config| config.check().map(|()| config.cpus));
    let text = good.and_then(|cpus| {
        let cpus = options.cpus.or(options.apic_ids.is_none().then_some(cpus));
        config_file::print(&RunOptions { cpus, ..options.clone() }).map_err(vmm::Error::Usage)
    });
    match text {
        Ok(text) => {
            // A closed stdout is no reason to fail.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(e) => outcome::of_error(&e),
    }
}

fn stats_interval(file: &Option<PathBuf>, seconds: Option<f64>) -> Result<Option<Duration>, vmm::Error> {
    let Some(seconds) = seconds else { return Ok(None) };
    if file.is_none() {
        return Err(vmm::Error::Usage(
            "--stats-interval is for --stats only; leave it out, or give --stats FILE".into(),
        ));
    }
    if !(0.001..=86400.0).contains(&seconds) {
        return Err(vmm::Error::Usage(format!(
            "--stats-interval {seconds} is not from 0.001 to 86400 seconds; give one that is"
        )));
    }
    Ok(Some(Duration::from_secs_f64(seconds)))
}

/// What the machine is to be, from what the user said.
fn config(options: RunOptions) -> Result<vmm::Config, vmm::Error> {
    let no_kernel = || vmm::Error::Usage("no kernel is given: name one, <KERNEL>; see 'tophalf run --help'".into());
    if options.busybox.is_some() && options.exec.is_none() {
        return Err(vmm::Error::Usage("--busybox is for --exec only; leave it out, or give a command".into()));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let exec = options.exec.map(|command| vmm::Exec { command, busybox: options.busybox, path });
    let apic_ids = options.apic_ids.as_deref().map(vmm::parse_apic_ids).transpose()?.unwrap_or_default();
    Ok(vmm::Config {
        kernel: options.kernel.ok_or_else(no_kernel)?,
        initrd: options.initrd,
        modules: options.module,
        cmdline: options.cmdline,
        cpus: options.cpus.unwrap_or(apic_ids.len().max(1) as u32),
        apic_ids,
        memory: vmm::parse_size(&options.memory)?,
        testdev: options.testdev,
        same_cpuid: options.same_cpuid,
        no_reboot: options.no_reboot,
        on_halt: options.on_halt.parse()?,
        serial: options.serial.parse()?,
        announce: |line| outcome::complain(line),
        trace: options.trace,
        irqchip: options.irqchip.parse()?,
        disks: options.disk.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
        nets: options.net.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
        consoles: options.console.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
        rng: options.rng,
        virtio: options.virtio.parse()?,
        agent: options.agent,
        stats_interval: stats_interval(&options.stats, options.stats_interval)?,
        stats: options.stats,
        watchdog: options.watchdog.as_deref().map(str::parse).transpose()?,
        bottom_halves: vmm::BottomHalfPlaces::parse(&options.bottom_half)?,
        exec,
    })
}
