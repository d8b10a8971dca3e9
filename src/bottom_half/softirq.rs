//! The ten softirq vectors and their handlers.

use std::sync::OnceLock;

use crate::context::Softirq;

/// A softirq, in order of priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Vector {
    /// Tasklets of high priority.
    Hi,
    /// The timer wheel.
    Timer,
    /// Sending packets.
    NetTx,
    /// Receiving packets.
    NetRx,
    /// Submitting to block devices.
    Block,
    /// Completions that are polled for.
    IrqPoll,
    /// Tasklets of normal priority.
    Tasklet,
    /// Spreading load.
    Sched,
    /// High-resolution timers.
    HrTimer,
    /// Freeing what nobody reads any more.
    Rcu,
}

/// How many vectors there are.
pub const VECTORS: usize = 10;

impl Vector {
    /// All of them, highest priority first.
    pub const ALL: [Self; VECTORS] = [
        Self::Hi,
        Self::Timer,
        Self::NetTx,
        Self::NetRx,
        Self::Block,
        Self::IrqPoll,
        Self::Tasklet,
        Self::Sched,
        Self::HrTimer,
        Self::Rcu,
    ];

    /// As in `/proc/softirqs`.
    pub fn name(self) -> &'static str {
        ["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"][self.index()]
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    pub(crate) fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// What runs when a vector was raised, after the tasklets on that vector.
pub(crate) type Handler = Box<dyn Fn(&Softirq<'_>) + Send + Sync>;

/// One handler a vector, set once.
#[derive(Default)]
pub(crate) struct Handlers([OnceLock<Handler>; VECTORS]);

impl Handlers {
    /// False: it had one.
    pub(crate) fn set(&self, vector: Vector, handler: Handler) -> bool {
        self.0[vector.index()].set(handler).is_ok()
    }

    pub(crate) fn run(&self, softirq: &Softirq<'_>) {
        if let Some(handler) = self.0[softirq.vector().index()].get() {
            handler(softirq);
        }
    }
}
