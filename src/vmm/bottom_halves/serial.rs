//! The serial port's slow part, draining its output into the console, in each of its places.

use std::sync::Arc;

use bottom_half::{QueueKind, Tasklet, Vector, Work};
use devices::Later;

use super::{BottomHalves, Device, Drain, Inline, Place};
use crate::main_loop::{Doorbell, Request};

/// The work, where the user wants it.
pub struct SerialWork {
    place: Runs,
    doorbell: Arc<Doorbell>,
}

enum Runs {
    Inline(Arc<Inline>),
    /// On the CPU that the guest's access was on.
    Softirq(Tasklet),
    /// On the main loop's CPU.
    Tasklet(Tasklet),
    Workqueue(Work),
}

impl SerialWork {
    /// For the console in `drain`. What is to be run inline goes to `inline` as well.
    pub fn new(
        bottom_halves: &BottomHalves,
        drain: &Arc<Drain>,
        doorbell: &Arc<Doorbell>,
        inline: &mut Vec<Arc<Inline>>,
    ) -> Arc<Self> {
        let run = bottom_halves.drains(drain);
        let (system, cpu) = (bottom_halves.system(), bottom_halves.main_cpu());
        let place = match bottom_halves.places().of(Device::Serial) {
            Place::Inline => {
                let work = Arc::new(Inline::new(run));
                inline.push(Arc::clone(&work));
                Runs::Inline(work)
            }
            Place::Softirq => Runs::Softirq(Tasklet::on_vector(system, cpu, Vector::IrqPoll, super::in_softirq(run))),
            Place::Tasklet => Runs::Tasklet(Tasklet::new(system, cpu, super::in_softirq(run))),
            Place::Workqueue => {
                let console = Arc::clone(drain);
                let stopper = Arc::clone(&bottom_halves.stopper);
                let queue = system.queue(Device::Serial.name(), QueueKind::Ordered);
                Runs::Workqueue(queue.work(move |process| {
                    let _panic = super::StopOnPanic(&stopper);
                    // A stream may block, if it can't be made not to.
                    process.block(|| console.run_and_wait());
                }))
            }
        };
        Arc::new(Self { place, doorbell: Arc::clone(doorbell) })
    }

    /// Has it run: in a top half of the main loop.
    pub fn run_soon(&self) {
        match &self.place {
            Runs::Inline(work) => work.ask(),
            Runs::Softirq(tasklet) | Runs::Tasklet(tasklet) => _ = tasklet.schedule(),
            // Pending already is as good.
            Runs::Workqueue(work) => _ = work.queue(),
        }
    }
}

impl Later for SerialWork {
    fn schedule(&self) {
        match &self.place {
            // An event of the main loop, which schedules the tasklet: so a guest that sends byte after byte can't keep
            // the main loop's CPU in softirqs, its timers are looked at in between.
            Runs::Tasklet(_) => self.doorbell.ring(Request::Serial),
            Runs::Inline(_) | Runs::Softirq(_) | Runs::Workqueue(_) => self.run_soon(),
        }
    }
}
