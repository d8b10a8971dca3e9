//! How the CPUs' owners are reached: a vCPU by its mailbox, the main loop by its doorbell.

use std::sync::Arc;

use bottom_half::Port;

use super::Deadlines;
use crate::interrupts::Processors;
use crate::main_loop::{Doorbell, Request};

/// A vCPU's thread.
pub(super) struct VcpuPort {
    pub index: usize,
    pub processors: Arc<Processors>,
    pub deadlines: Arc<Deadlines>,
}

impl Port for VcpuPort {
    fn kick(&self) {
        self.processors.deferred(self.index);
    }

    /// The main loop waits for it, and tells the vCPU.
    fn deadline(&self, at: Option<u64>) {
        self.deadlines.set(self.index, at);
    }
}

/// The main loop's thread.
pub(super) struct MainLoopPort {
    pub index: usize,
    pub doorbell: Arc<Doorbell>,
    pub deadlines: Arc<Deadlines>,
}

impl Port for MainLoopPort {
    fn kick(&self) {
        self.doorbell.ring(Request::Softirqs);
    }

    fn deadline(&self, at: Option<u64>) {
        self.deadlines.set(self.index, at);
    }
}
