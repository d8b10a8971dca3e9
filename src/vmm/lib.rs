//! The machine: memory and boot protocols, the wiring of chips and devices, vCPU threads and their run loop, the main
//! loop with clock and console.
//!
//! [`run`] is the way in. Everything below is assembled here, and only here do chips, devices and KVM meet.

mod acpi;
mod agent;
pub mod bare;
mod boot;
mod boot_registers;
mod bottom_halves;
pub mod clock;
mod config;
mod console;
pub mod doctor;
mod doorbells;
mod error;
mod exec;
mod host;
pub mod interrupts;
pub mod io_bus;
mod machine;
mod main_loop;
mod memory;
mod mode;
mod monitor;
mod mp_table;
mod pci;
mod power;
mod rest;
pub mod stats;
mod stop;
mod test_devices;
pub mod trace;
mod vcpu;
mod virtio;
mod wiring;

pub use boot::BootError;
pub use bottom_halves::Places as BottomHalfPlaces;
pub use config::{Config, Irqchip, MAX_CPUS, OnHalt, parse_apic_ids};
pub use console::SerialTarget;
pub use error::{Error, exit_code};
pub use exec::Exec;
#[cfg(feature = "faults")]
pub use fault;
pub use memory::parse_size;
pub use stop::{StopReason, WatchdogAction};
pub use virtio::{ConsoleConfig, DiskConfig, NetConfig, Transport};

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use agent::Reports;
use console::{Console, Port};
use exec::Command;
use host::Host;
use machine::{Machine, Watchers};
pub use sys::child::dies_with_its_parent;
pub use sys::signal::{Signal, SignalFd, die_of, send as send_signal};
pub use sys::thread::run_on_cpus;
pub use sys::{poll, terminal};
use trace::{Recorder, Trace};
use virtio::Backends;
pub use x86::{agent as protocol, test_record};

/// Makes a machine and runs it until it stops for good: a reset starts it anew, unless the configuration says otherwise.
///
/// Takes over the standard streams while it runs, and gives a terminal back as it was however it ends. Blocks SIGINT,
/// SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGPWR and SIGWINCH in this process.
pub fn run(config: &Config) -> Result<StopReason, Error> {
    config.check()?;
    sys::terminal::restore_on_panic();
    // Nothing that was being changed is looked at again.
    panic::catch_unwind(AssertUnwindSafe(|| run_machines(config))).unwrap_or(Ok(StopReason::Panic))
}

fn run_machines(config: &Config) -> Result<StopReason, Error> {
    let recorder = config.trace.as_deref().map(Recorder::create).transpose()?;
    let reason = run_traced(config, &recorder.clone().map(Trace::to).unwrap_or_default());
    // However it ended, the trace has its end.
    let finished = recorder.map_or(Ok(()), |recorder| recorder.finish());
    reason.and_then(|reason| finished.map(|()| reason))
}

fn run_traced(config: &Config, trace: &Trace) -> Result<StopReason, Error> {
    let mut command = Command::prepare(config)?;
    let mut host = Host::open()?;
    host.same_cpuid = config.same_cpuid;
    // Before signals are taken over: a FIFO is waited for.
    let reports = config.agent.as_deref().map(Reports::open).transpose()?;
    let output = config.stats.as_deref().map(stats::Output::open).transpose()?;
    let mut signals = SignalFd::new().map_err(|e| Error::host("signals can't be taken over", e))?;
    sys::signal::ignore_sigpipe();
    // Threads from before the signals were blocked would take them.
    if let Some(reports) = &reports {
        reports.start()?;
    }
    if let Some(command) = &mut command {
        command.start_writing()?;
    }
    // The standard input and output are the command's.
    let target = match &config.serial {
        SerialTarget::Stdio if command.is_some() => &SerialTarget::Stderr,
        target => target,
    };
    let reboots = !config.no_reboot && command.is_none();
    let backends = Backends::open(config)?;
    let mut server = match stats::Server::open(&stats::folder()) {
        Ok(server) => Some(server),
        Err(e) => {
            log::warn!("'tophalf top' won't find this machine: {e}");
            None
        }
    };
    let mut number = 0;
    let watchdog_timed_out = Arc::default();
    let mut consoles: Vec<Console> = Vec::new();
    let reason = loop {
        let (command, reports) = (command.as_ref(), reports.as_ref());
        let machine = Machine::new(config, command, &host, &backends, reports, &watchdog_timed_out, trace)?;
        let ports = machine.ports();
        if consoles.is_empty() {
            consoles = open_consoles(config, target, ports)?;
        } else {
            consoles.iter_mut().zip(ports).for_each(|(console, port)| console.attach(port));
        }
        number += 1;
        let watchers = Watchers { number, reports, output: output.as_ref(), server: server.as_mut() };
        let (given_back, reason) = machine.run(config, consoles, &mut signals, reboots, watchers)?;
        consoles = given_back;
        match reason {
            StopReason::Reset if reboots => log::info!("the guest resets"),
            reason => break reason,
        }
    };
    // A user who asks for the end does not wait for a reader of the output, nor does one who asks now.
    if !matches!(reason, StopReason::Signal(_) | StopReason::Quit) {
        signals.release();
        command.into_iter().for_each(Command::finish);
        reports.iter().for_each(|reports| reports.finish());
    }
    Ok(reason)
}

/// Opens what the ports are connected to: the serial port's `target` first, then those of `--console`.
fn open_consoles(config: &Config, target: &SerialTarget, ports: Vec<Port>) -> Result<Vec<Console>, Error> {
    let virtio = config.consoles.iter().enumerate();
    let named = virtio.map(|(index, port)| (format!("console port {index}"), &port.target));
    let targets = std::iter::once(("the serial port".to_owned(), target)).chain(named);
    targets.zip(ports).map(|((name, target), port)| Console::open(target, &name, port, config.announce)).collect()
}
