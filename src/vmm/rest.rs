//! Whether anything can still happen to a machine whose vCPUs all rest.
//!
//! A vCPU *rests for good* when it has executed HLT with interrupts disabled, or waits for a start-up message: of what can
//! wake it (NMI, INIT, start-up), nothing comes by itself. When all do, only somebody outside can bring the guest back:
//! the user at the monitor, or a device whose interrupt the guest has turned into an NMI or an INIT. The latter is looked for
//! before the end is declared: at LINT0, in each pin of the I/O APIC, in each message of a PCI function (not masked is
//! enough: whether the device has anything to say is not asked), in the HPET's timers that will match, and in the test devices.
//!
//! The lock makes the look at the mailboxes sound: a vCPU takes nothing out of its mailbox while it counts as resting, so
//! what another one sent it before going to rest itself is still there when the last one looks. Devices are looked at under
//! it, too, and first: while all rest nobody can set one up, and what one of them has sent before it had nothing left to
//! send is in a mailbox by then.

#[cfg(test)]
mod tests;

use parking_lot::Mutex;

/// Who rests for good.
pub struct Rest {
    /// Taken before all others: devices are looked at under it.
    resting: Mutex<Vec<bool>>,
}

impl Rest {
    /// `cpus` vCPUs, none of which rests yet.
    pub fn new(cpus: usize) -> Self {
        Self { resting: Mutex::new(vec![false; cpus]) }
    }

    /// vCPU `index` rests from now on. True: all do, no device `can_wake` one, and none `has_post`, which is called with their
    /// indexes.
    #[must_use]
    pub fn begin(&self, index: usize, can_wake: impl FnOnce() -> bool, has_post: impl Fn(usize) -> bool) -> bool {
        let mut resting = self.resting.lock();
        resting[index] = true;
        resting.iter().all(|&rests| rests) && !can_wake() && !(0..resting.len()).any(has_post)
    }

    /// vCPU `index` is about to look into its mailbox.
    pub fn end(&self, index: usize) {
        self.resting.lock()[index] = false;
    }
}
