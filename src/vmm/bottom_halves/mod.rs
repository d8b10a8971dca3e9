//! The machine's bottom halves: one system, with a CPU for each vCPU's thread and, behind those, one for the main loop.
//!
//! A vCPU's exit is a top half of its CPU, an event of the main loop one of the last CPU. Timers are the main loop's: the
//! CPU that has a descriptor to wait for them with. A vCPU's CPU may have some too (the watchdog of the work queues does):
//! the main loop tells it when one is due.

mod alarm;
mod deadlines;
mod drain;
mod inline;
mod place;
mod ports;
mod serial;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bottom_half::{Config, Cpu, CpuOwner, Port, Softirq, Stuck, System, Tasklet};

pub use deadlines::Deadlines;
pub use drain::Drain;
pub use inline::Inline;
pub use place::{Device, Place, Places};
pub use serial::SerialWork;

use crate::Error;
use crate::clock::Clock;
use crate::interrupts::Processors;
use crate::main_loop::Doorbell;
use crate::stop::{StopReason, Stopper};

/// How long the end of a machine waits for what its bottom halves are in.
const LAST_WAIT: Duration = Duration::from_secs(10);

/// A machine's bottom halves. Clones are of the same.
#[derive(Clone)]
pub struct BottomHalves {
    system: System,
    clock: Clock,
    processors: Arc<Processors>,
    stopper: Arc<Stopper>,
    places: Places,
}

/// The owners' halves of the CPUs, for their threads, and the deadlines that the main loop waits for.
pub struct Owners {
    /// One a vCPU.
    pub vcpus: Vec<CpuOwner>,
    /// The main loop's.
    pub main_loop: CpuOwner,
    /// Of all CPUs.
    pub deadlines: Arc<Deadlines>,
}

impl BottomHalves {
    /// A system with the vCPUs of `processors` and the main loop of `doorbell`.
    pub fn new(
        clock: Clock,
        processors: Arc<Processors>,
        doorbell: &Arc<Doorbell>,
        stopper: &Arc<Stopper>,
        places: Places,
    ) -> Result<(Self, Owners), Error> {
        let vcpus = processors.count();
        let deadlines = Deadlines::new(vcpus + 1).map_err(|e| Error::host("no timer descriptor for the devices", e))?;
        let vcpu = |index| -> Arc<dyn Port> {
            Arc::new(ports::VcpuPort { index, processors: Arc::clone(&processors), deadlines: Arc::clone(&deadlines) })
        };
        let mut ports: Vec<_> = (0..vcpus).map(vcpu).collect();
        ports.push(Arc::new(ports::MainLoopPort {
            index: vcpus,
            doorbell: Arc::clone(doorbell),
            deadlines: Arc::clone(&deadlines),
        }));
        let observer = processors.trace().recorder().map(|recorder| Arc::clone(recorder) as _);
        let config = Config { clock: Arc::new(HostTime(clock)), observer, ..Config::default() };
        let (system, mut owners) =
            System::new(config, ports).map_err(|e| Error::host("no threads for the bottom halves", e))?;
        let Some(main_loop) = owners.pop() else {
            return Err(Error::Host("the bottom halves have no CPU for the main loop".into()));
        };
        if let Some(recorder) = processors.trace().recorder() {
            recorder.attach(&system);
        }
        let stopper = Arc::clone(stopper);
        let owners = Owners { vcpus: owners, main_loop, deadlines };
        Ok((Self { system, clock, processors, stopper, places }, owners))
    }

    /// The system itself, for devices that make their own tasklets, work items and timers.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// The main loop's CPU: the home of devices' tasklets and timers.
    pub fn main_cpu(&self) -> &Arc<Cpu> {
        let cpus = self.system.cpus();
        &cpus[cpus.len() - 1]
    }

    /// The machine's clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Where the slow parts of devices run.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// A tasklet of the main loop's CPU that runs `body`, which takes its device's lock itself.
    pub fn tasklet(&self, body: impl Fn() + Send + Sync + 'static) -> Tasklet {
        Tasklet::new(&self.system, self.main_cpu(), in_softirq(self.guarded(body)))
    }

    /// Moves the bytes of the console in `drain`, from any bottom half. Not guarded: a console has a guard for each of its visits
    /// to its port, not for its reads and writes.
    pub fn drains(&self, drain: &Arc<Drain>) -> impl Fn() + Send + Sync + 'static {
        let (stopper, drain) = (Arc::clone(&self.stopper), Arc::clone(drain));
        move || {
            let _panic = StopOnPanic(&stopper);
            drain.run();
        }
    }

    /// Runs `body` as it must be in a bottom half: see [`BottomHalves::guarded`].
    pub fn guard<R>(&self, body: impl FnOnce() -> R) -> R {
        let _panic = StopOnPanic(&self.stopper);
        let _held = self.processors.hold_kicks();
        body()
    }

    /// `body` as it must be called from a bottom half: kicks are held back until it has dropped its locks, and if it
    /// panics the machine stops.
    fn guarded(&self, body: impl Fn() + Send + Sync + 'static) -> impl Fn() + Send + Sync + 'static {
        let this = self.clone();
        move || this.guard(&body)
    }

    /// Stops everything, and says in the log who would not stop; does not wait for long.
    pub fn shut_down(&self) {
        if let Err(stuck) = self.stop_within(LAST_WAIT) {
            log::error!("bottom halves {stuck}; they are left behind");
        }
    }

    /// Stops everything, and waits up to `limit` for what runs, such as a disk's I/O. What has not begun is cancelled.
    ///
    /// # Errors
    ///
    /// Who would not stop.
    pub fn stop_within(&self, limit: Duration) -> Result<(), Stuck> {
        if let Some(recorder) = self.processors.trace().recorder() {
            recorder.detach();
        }
        self.system.shutdown(Some(limit))
    }
}

/// The machine's clock as the host's time, which deadlines are in.
struct HostTime(Clock);

impl bottom_half::Clock for HostTime {
    fn now(&self) -> u64 {
        self.0.host(self.0.now())
    }

    fn ran(&self) -> Option<u64> {
        Some(sys::clock::thread_cpu_ns())
    }
}

/// A bottom half that panics must not leave the vCPUs, and the user, waiting.
struct StopOnPanic<'a>(&'a Stopper);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop(StopReason::Panic);
        }
    }
}

/// A function for a softirq, made from one that does not care where it runs.
fn in_softirq(body: impl Fn() + Send + Sync + 'static) -> impl Fn(&Softirq<'_>) + Send + Sync + 'static {
    move |_| body()
}
