//! What `tophalf run` can be told, each option declared once: its flag, its key in a file, its help and its default.
//!
//! The key is the flag's long name (`--no-reboot` is `no-reboot = true`); the kernel, which has no flag, is `kernel`.
//! Defaults are clap's `default_value`. Flags win over the file, the file over defaults: [`RunArguments::options`].

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, Command, FromArgMatches};
use serde::{Deserialize, Deserializer, Serialize};

use super::config_file;
use super::log::LogFormat;

#[cfg(test)]
mod tests;

/// The options of a machine, as flags or keys give them.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct RunOptions {
    /// The kernel: a Linux bzImage (vmlinuz) or vmlinux, an ELF file with a PVH note, or a multiboot image
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk; the first module, where a kernel takes modules
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// A further module, where a kernel takes modules (may be given several times)
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub module: Vec<PathBuf>,
    /// Kernel command line [default: console=ttyS0, nothing for multiboot images]
    #[arg(long, value_name = "STRING")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    /// Number of vCPUs [default: 1, or as many as --apic-ids lists]
    #[arg(short, long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Local APIC IDs, the bootstrap processor's first: 0,2,256-259 (one for each vCPU)
    #[arg(long, value_name = "LIST")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apic_ids: Option<String>,
    /// Memory: a number with suffix K, M, G or T; without one, in MiB
    #[arg(short, long, value_name = "SIZE", default_value = "512M")]
    #[serde(deserialize_with = "text_or_number")]
    pub memory: String,
    /// Have the devices that hypervisor test images expect (scratch and flush ports, IRQ lines, fw_cfg)
    #[arg(long)]
    pub testdev: bool,
    /// Show the guest only those features of the processor that it has in all modes of --irqchip
    #[arg(long)]
    pub same_cpuid: bool,
    /// End with exit code 32 when the guest resets, instead of rebooting it
    #[arg(long)]
    pub no_reboot: bool,
    /// Serial port: stdio, file:PATH, pty, socket:PATH or null
    #[arg(long, value_name = "TARGET", default_value = "stdio")]
    pub serial: String,
    /// When all vCPUs have halted with interrupts disabled (mode user): exit (with code 38) or wait
    #[arg(long, value_name = "WHAT", default_value = "exit")]
    pub on_halt: String,
    /// Who has the interrupt controllers: user (this program), split (KVM the local APICs) or kernel (KVM all of them)
    #[arg(long, value_name = "MODE", default_value = "user")]
    pub irqchip: String,
    /// A disk: a raw image or a block device, read-only, or around the host's page cache (may be given several times)
    #[arg(long, value_name = "PATH[,ro][,direct]")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disk: Vec<String>,
    /// A network device at a tap interface, which must be there, with 1 to 16 pairs of queues (may be given several times)
    #[arg(long, value_name = "tap=NAME[,mac=MAC][,queues=N]")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub net: Vec<String>,
    /// A port of the virtio console, connected as the serial port can be: hvc0 and so on, or with a name a program's port (may be
    /// given several times)
    #[arg(long, value_name = "TARGET[,name=NAME]")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub console: Vec<String>,
    /// Have a virtio entropy device
    #[arg(long)]
    pub rng: bool,
    /// How virtio devices are connected: pci or mmio (found through ACPI)
    #[arg(long, value_name = "BUS", default_value = "pci")]
    pub virtio: String,
    /// Have a watchdog (i6300ESB); when the guest does not feed it: reset, poweroff, dump or none
    #[arg(long, value_name = "WHAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<String>,
    /// Where the slow part of a device runs: serial=workqueue (may be given several times); a bad one lists the good ones
    #[arg(long, value_name = "DEVICE=PLACE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bottom_half: Vec<String>,
    /// Put the test agent in the machine; its reports go to FILE as JSON lines ('-': stdout)
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<PathBuf>,
    /// Write the ledger of interrupts and all counters to FILE as JSON lines, at the end and on SIGUSR1 ('-': stdout)
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<PathBuf>,
    /// Write them every so many seconds, too (0.001 to 86400)
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats_interval: Option<f64>,
    /// Record the life of each interrupt and deferred item in FILE; .json is for Chrome's viewer, .pftrace for Perfetto
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<PathBuf>,
    /// Run this by the guest's shell, and exit with its status; its output is stdout and stderr, the console is on stderr
    #[arg(long, value_name = "COMMAND")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<String>,
    /// The static busybox to put into the guest for --exec without --initrd; searched for in $PATH if not given
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busybox: Option<PathBuf>,
    /// Say more on stderr (twice: still more); RUST_LOG overrides it
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
    /// Form of what is said on stderr: text, or one JSON object a line
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub log_format: LogFormat,
}

impl Default for RunOptions {
    /// What an empty command line gives.
    fn default() -> Self {
        let none = Self::augment_args(Command::new("defaults")).get_matches_from(["defaults"]);
        // clap asks only that what has no default is optional; a test calls this.
        Self::from_arg_matches(&none).unwrap_or_else(|e| panic!("an option of run has no default: {e}"))
    }
}

/// All that `tophalf run` takes: the options, and where more of them are.
#[derive(Debug, Clone)]
pub struct RunArguments {
    flags: ArgMatches,
    own: OwnArguments,
}

/// What makes no sense in a file.
#[derive(Debug, Clone, Args)]
struct OwnArguments {
    /// Take options from a TOML file, by their long names: cpus = 2; flags win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print all options, defaults included, as such a file, and end
    #[arg(long)]
    print_config: bool,
}

impl RunArguments {
    /// Whether the options are only to be printed.
    pub fn print_config(&self) -> bool {
        self.own.print_config
    }

    /// The options in effect: flags over the file over defaults. An error is one line with cause and remedy.
    pub fn options(&self) -> Result<RunOptions, String> {
        let mut options = match &self.own.config {
            Some(path) => config_file::read(path)?,
            None => RunOptions::default(),
        };
        options.update_from_arg_matches(&self.flags).map_err(|e| e.to_string())?;
        Ok(options)
    }
}

impl Args for RunArguments {
    fn augment_args(command: Command) -> Command {
        OwnArguments::augment_args(RunOptions::augment_args(command))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RunArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let own = OwnArguments::from_arg_matches(matches)?;
        // Only what was given: a default must not win over the file.
        let mut flags = matches.clone();
        let ids: Vec<_> = matches.ids().map(|id| id.as_str().to_owned()).collect();
        for id in ids.iter().filter(|id| matches.value_source(id) != Some(ValueSource::CommandLine)) {
            // Fails for names that clap does not have; these are its own.
            let _ = flags.try_clear_id(id);
        }
        Ok(Self { flags, own })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The names by which a file gives the options.
pub fn keys() -> Vec<String> {
    let command = RunOptions::augment_args(Command::new("keys"));
    command.get_arguments().map(|arg| arg.get_long().unwrap_or(arg.get_id().as_str()).to_owned()).collect()
}

/// A size is text (`"512M"`), but one in MiB may be written as the number it is.
fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Visitor;
    impl serde::de::Visitor<'_> for Visitor {
        type Value = String;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a size such as \"512M\"")
        }

        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_i64<E>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }
    }
    deserializer.deserialize_any(Visitor)
}
