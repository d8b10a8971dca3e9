//! The machine: memory and boot protocols, the wiring of chips and devices, vCPU threads and their run loop, the main
//! loop with clock and console.
//!
//! [`run`] is the way in. Everything below is assembled here, and only here do chips, devices and KVM meet.

mod acpi;
mod boot;
mod boot_registers;
pub mod clock;
mod config;
mod console;
mod error;
mod host;
pub mod interrupts;
pub mod io_bus;
mod machine;
mod main_loop;
mod memory;
mod stop;
mod vcpu;
mod wiring;

pub use boot::BootError;
pub use config::{Config, MAX_CPUS};
pub use error::{Error, exit_code};
pub use memory::parse_size;
pub use stop::StopReason;

use console::Console;
use host::Host;
use machine::Machine;
use sys::signal::SignalFd;
pub use sys::signal::die_of;

/// Makes a machine and runs it until it stops for good: a reset starts it anew, unless the configuration says otherwise.
///
/// Takes over the standard streams while it runs; blocks SIGINT, SIGTERM, SIGHUP and SIGUSR1 in this process.
pub fn run(config: &Config) -> Result<StopReason, Error> {
    config.check()?;
    let host = Host::open()?;
    let mut signals = SignalFd::new().map_err(|e| Error::host("signals can't be taken over", e))?;
    sys::signal::ignore_sigpipe();
    let mut console: Option<Console> = None;
    loop {
        let machine = Machine::new(config, &host)?;
        let serial = machine.serial();
        let streams = match console.take() {
            Some(mut console) => {
                console.attach(serial);
                console
            }
            None => Console::stdio(serial).map_err(|e| Error::host("the console can't be set up", e))?,
        };
        let (streams, reason) = machine.run(streams, &mut signals)?;
        match reason {
            StopReason::Reset if !config.no_reboot => log::info!("the guest resets"),
            reason => return Ok(reason),
        }
        console = Some(streams);
    }
}
