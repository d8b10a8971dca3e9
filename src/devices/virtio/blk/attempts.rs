//! Requests that are tried without waiting, from a softirq or a tasklet, before a lane has them: what is in the host's page cache
//! needs no worker. What may not be tried (a flush) or would have to wait goes to the lanes, as if it had never been here.

use std::sync::Arc;

use bottom_half::{Cpu, Softirq, System, Tasklet, Turn};
use parking_lot::Mutex;

use super::super::{Home, Memory};
use super::BUDGET;
use super::io::{AlignedBuffer, Io, Lanes, Tried};

/// Where requests are tried.
#[derive(Clone)]
pub enum Attempts {
    /// Where they are taken from the queue.
    Here(Arc<Trier>),
    /// In a tasklet on this CPU.
    Tasklet(Arc<Tasklet>, Arc<Cpu>),
}

impl Attempts {
    /// In `home`, if there they are tried at all; what can't be done so is for `lanes`.
    pub fn new(home: Home, (system, cpu): (&System, &Arc<Cpu>), trier: Trier) -> Option<Self> {
        match home {
            Home::WorkQueue => None,
            Home::Softirq => Some(Self::Here(Arc::new(trier))),
            Home::Tasklet => {
                let tasklet = Tasklet::new(system, cpu, move |_: &Softirq<'_>| trier.run());
                Some(Self::Tasklet(Arc::new(tasklet), Arc::clone(cpu)))
            }
        }
    }

    /// Tries what there is, or has it tried soon. From a softirq, with no lock held.
    pub fn start(&self) -> Turn {
        match self {
            Self::Here(trier) => trier.run(),
            Self::Tasklet(tasklet, cpu) => {
                let _ = tasklet.schedule_on(cpu);
                Turn::Done
            }
        }
    }
}

/// What tries them.
pub struct Trier {
    io: Arc<Io>,
    memory: Memory,
    lanes: Arc<Lanes>,
    complete: Arc<Tasklet>,
    buffer: Mutex<AlignedBuffer>,
}

impl Trier {
    /// For requests of `io`, in a guest with `memory`; schedules `complete` when it has done something.
    pub fn new(io: &Arc<Io>, memory: Memory, lanes: &Arc<Lanes>, complete: &Arc<Tasklet>) -> Self {
        let (io, lanes, complete) = (Arc::clone(io), Arc::clone(lanes), Arc::clone(complete));
        Self { io, memory, lanes, complete, buffer: Mutex::default() }
    }

    fn run(&self) -> Turn {
        // A tasklet never runs twice at once: nobody waits here.
        let mut buffer = self.buffer.lock();
        let (mut done, mut left) = (0, 0);
        let mut turn = Turn::Again;
        for _ in 0..BUDGET {
            match self.io.try_next(&self.memory, buffer.get()) {
                Tried::Done => done += 1,
                Tried::WouldWait => left += 1,
                Tried::None => {
                    turn = Turn::Done;
                    break;
                }
            }
        }
        self.lanes.queue(left);
        if done > 0 {
            let _ = self.complete.schedule();
        }
        turn
    }
}
