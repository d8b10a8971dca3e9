//! What a machine is made from.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use devices::virtio::console::MAX_PORTS;

use crate::exec::{self, Exec};
use crate::{BottomHalfPlaces, ConsoleConfig, DiskConfig, Error, NetConfig, SerialTarget, Transport, WatchdogAction};

#[cfg(test)]
mod tests;

/// The most vCPUs a machine can have.
pub const MAX_CPUS: u32 = 64;

/// A machine's configuration, as the command line gives it.
#[derive(Debug, Clone)]
pub struct Config {
    /// The kernel image.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Further modules, for kernels that take them.
    pub modules: Vec<PathBuf>,
    /// The kernel's command line; without one, each boot protocol has its default.
    pub cmdline: Option<String>,
    /// Number of vCPUs, 1 to [`MAX_CPUS`].
    pub cpus: u32,
    /// Their local APIC IDs, the bootstrap processor's first ([`parse_apic_ids`]); empty for 0, 1, 2 and so on.
    pub apic_ids: Vec<u32>,
    /// Memory in bytes.
    pub memory: u64,
    /// With the devices that hypervisor test images expect.
    pub testdev: bool,
    /// The guest is shown only those features of the processor that it has in all modes of [`Irqchip`].
    pub same_cpuid: bool,
    /// A reset ends the program instead of rebooting the guest.
    pub no_reboot: bool,
    /// What to do when all vCPUs have halted for good.
    pub on_halt: OnHalt,
    /// What the serial port is connected to.
    pub serial: SerialTarget,
    /// Tells the user something that is needed to use the machine, one line without its newline.
    pub announce: fn(&str),
    /// Who has the interrupt controllers.
    pub irqchip: Irqchip,
    /// Puts the test agent in the machine; its reports go here, as JSON lines (`-`: standard output).
    pub agent: Option<PathBuf>,
    /// Where the ledger and the counters are written, as JSON lines: at the end, and on SIGUSR1 (`-`: standard output).
    pub stats: Option<PathBuf>,
    /// They are written every so often, too.
    pub stats_interval: Option<Duration>,
    /// Records the life of each interrupt and deferred item in this file.
    pub trace: Option<PathBuf>,
    /// Disks, in the order in which the guest finds them.
    pub disks: Vec<DiskConfig>,
    /// Network devices, in the order in which the guest finds them.
    pub nets: Vec<NetConfig>,
    /// Ports of the virtio console, in the order in which the guest finds them; none: there is none.
    pub consoles: Vec<ConsoleConfig>,
    /// With a virtio entropy device.
    pub rng: bool,
    /// How virtio devices are connected.
    pub virtio: Transport,
    /// What the watchdog does when the guest does not feed it; without this there is no watchdog.
    pub watchdog: Option<WatchdogAction>,
    /// Where the slow parts of devices run.
    pub bottom_halves: BottomHalfPlaces,
    /// A command to run in the guest; a reset then ends the program, too.
    pub exec: Option<Exec>,
}

/// Who has the interrupt controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Irqchip {
    /// This program has all of them.
    #[default]
    User,
    /// KVM has the local APICs.
    Split,
    /// KVM has all of them.
    Kernel,
}

impl FromStr for Irqchip {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "user" => Ok(Self::User),
            "split" => Ok(Self::Split),
            "kernel" => Ok(Self::Kernel),
            _ => Err(Error::Usage(format!(
                "{text:?} is no interrupt-controller mode; give --irqchip user, split or kernel"
            ))),
        }
    }
}

/// What to do when all vCPUs have halted for good: each with interrupts disabled, or waiting for a start-up message. Found
/// out only where halting is ours, in the `user` mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnHalt {
    /// End the program.
    #[default]
    Exit,
    /// Wait for something from outside, such as the monitor.
    Wait,
}

impl FromStr for OnHalt {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "exit" => Ok(Self::Exit),
            "wait" => Ok(Self::Wait),
            _ => Err(Error::Usage(format!("{text:?} is nothing to do on a halt; give --on-halt exit or wait"))),
        }
    }
}

impl Config {
    /// The local APIC IDs, the bootstrap processor's first.
    pub fn apic_ids(&self) -> Vec<u32> {
        if self.apic_ids.is_empty() { (0..self.cpus).collect() } else { self.apic_ids.clone() }
    }

    /// Checks what does not need the host.
    pub fn check(&self) -> Result<(), Error> {
        let shared = self.serial == SerialTarget::Stdio && self.agent.as_deref() == Some(Path::new("-"));
        if shared {
            let why = "the agent's reports and the serial port can't both be on stdout";
            return Err(Error::Usage(format!("{why}; give --agent FILE, or --serial null")));
        }
        if self.stats.as_deref() == Some(Path::new("-")) {
            let taken = [
                (self.exec.is_some(), "the command's output", ""),
                (self.serial == SerialTarget::Stdio && self.exec.is_none(), "the serial port", ", or --serial null"),
                (self.agent.as_deref() == Some(Path::new("-")), "the agent's reports", ", or --agent FILE"),
            ];
            if let Some((_, what, other)) = taken.iter().find(|(taken, ..)| *taken) {
                let why = format!("the statistics and {what} can't both be on stdout");
                return Err(Error::Usage(format!("{why}; give --stats FILE{other}")));
            }
        }
        self.check_consoles()?;
        match self.cpus {
            0 => Err(Error::Usage("0 vCPUs can't run anything; give --cpus 1 or more".into())),
            n @ 1..=MAX_CPUS => self.check_apic_ids(n),
            n => Err(Error::Usage(format!("{n} vCPUs are too many; give --cpus {MAX_CPUS} or fewer"))),
        }?;
        self.exec.as_ref().map_or(Ok(()), |exec| exec::check(exec, self))
    }

    fn check_consoles(&self) -> Result<(), Error> {
        let wrong = |why: String| Err(Error::Usage(why));
        if self.consoles.len() > MAX_PORTS {
            return wrong(format!(
                "{} ports of the console are more than {MAX_PORTS}; leave some out",
                self.consoles.len()
            ));
        }
        let on_stdio = self.consoles.iter().filter(|port| port.target == SerialTarget::Stdio).count();
        if on_stdio > 0 && self.exec.is_some() {
            return wrong(
                "with --exec, standard input and output are the command's; give --console another target".into(),
            );
        }
        if on_stdio > 0 && self.agent.as_deref() == Some(Path::new("-")) {
            return wrong("the agent's reports and a console can't both be on stdout; give --agent FILE".into());
        }
        match on_stdio + usize::from(self.serial == SerialTarget::Stdio) {
            0 | 1 => Ok(()),
            _ => wrong(
                "two ports can't both be on standard input and output; give --serial null, or another target".into(),
            ),
        }
    }

    fn check_apic_ids(&self, cpus: u32) -> Result<(), Error> {
        match self.apic_ids.len() {
            0 => Ok(()),
            ids if ids == cpus as usize => Ok(()),
            ids => Err(Error::Usage(format!(
                "--cpus {cpus} contradicts --apic-ids, a list of {ids}; give one ID for each vCPU, or leave --cpus out"
            ))),
        }
    }
}

/// The largest APIC ID: destinations of messages have 15 bits.
const MAX_APIC_ID: u32 = 0x7fff;

/// Reads a list of APIC IDs as the command line gives it: numbers and ranges, such as `0,2,256-259`.
///
/// # Errors
///
/// One line for what is no number, too large, there twice, or one of more than [`MAX_CPUS`].
pub fn parse_apic_ids(text: &str) -> Result<Vec<u32>, Error> {
    let wrong =
        |why: &str| Error::Usage(format!("{text:?} is no list of APIC IDs: {why}; give --apic-ids such as 0,2,8-11"));
    let number = |digits: &str| match digits.trim().parse::<u32>() {
        Ok(id @ 0..=MAX_APIC_ID) => Ok(id),
        Ok(id) => Err(wrong(&format!("{id} is more than {MAX_APIC_ID}"))),
        Err(_) => Err(wrong(&format!("{digits:?} is no number up to {MAX_APIC_ID}"))),
    };
    let mut ids = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong(&format!("{first} is more than {last}")));
        }
        for id in first..=last {
            if ids.contains(&id) {
                return Err(wrong(&format!("{id} is there twice")));
            }
            ids.push(id);
            if ids.len() > MAX_CPUS as usize {
                return Err(wrong(&format!("it has more than {MAX_CPUS}")));
            }
        }
    }
    Ok(ids)
}
