//! How many system calls a thread makes, by kind: counted by the wrappers that make them, in counters of the thread's own.
//!
//! A thread that wants to be counted says so once ([`count_in`]); all others pay one look at a thread-local. Counters have
//! one writer, so an increment is a plain load and store, and anybody may read them at any time.
//!
//! Not counted: what goes by without a wrapper (memory management, reading files at the start, what the C library does by
//! itself), and reading clocks, which is no system call where the kernel offers its page for it.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::kick;

#[cfg(test)]
mod tests;

/// A kind of system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// KVM_RUN.
    Run,
    /// KVM_INTERRUPT.
    Inject,
    /// Another ioctl of a vCPU.
    VcpuIoctl,
    /// An ioctl of a machine, while it runs.
    VmIoctl,
    /// The return from a kick's handler (rt_sigreturn).
    SignalReturn,
    /// Signalling another thread (tgkill).
    Signal,
    /// Waking a thread that waits on a futex.
    FutexWake,
    /// Waiting on a futex.
    FutexWait,
    /// Setting a timer (timer_settime, timerfd_settime).
    Timer,
    /// Writing an eventfd.
    Event,
}

impl Call {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 10] = [
        Self::Run,
        Self::Inject,
        Self::VcpuIoctl,
        Self::VmIoctl,
        Self::SignalReturn,
        Self::Signal,
        Self::FutexWake,
        Self::FutexWait,
        Self::Timer,
        Self::Event,
    ];

    /// A name for tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Run => "KVM_RUN",
            Self::Inject => "KVM_INTERRUPT",
            Self::VcpuIoctl => "vcpu-ioctl",
            Self::VmIoctl => "vm-ioctl",
            Self::SignalReturn => "rt_sigreturn",
            Self::Signal => "tgkill",
            Self::FutexWake => "futex-wake",
            Self::FutexWait => "futex-wait",
            Self::Timer => "settime",
            Self::Event => "eventfd-write",
        }
    }
}

/// The calls of one thread, which alone counts in it. On cache lines that nobody else writes.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Calls([AtomicU64; Call::ALL.len()]);

impl Calls {
    /// How many of this kind so far.
    pub fn get(&self, call: Call) -> u64 {
        self.0[call as usize].load(Ordering::Relaxed)
    }

    fn add(&self, call: Call) {
        let count = &self.0[call as usize];
        count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

thread_local! {
    static MINE: OnceCell<Arc<Calls>> = const { OnceCell::new() };
}

/// Counts the calling thread's calls in `calls` from here on, which no other thread counts in. The first one stays.
pub fn count_in(calls: Arc<Calls>) {
    MINE.with(|mine| {
        let _ = mine.set(calls);
    });
}

/// The calling thread makes, or has made, such a call. Not for signal handlers.
pub fn made(call: Call) {
    with_mine(|calls| calls.add(call));
}

/// Brings [`Call::SignalReturn`] up to date, whose handler can't count here; to be called where a signal has been noticed.
pub fn count_signals() {
    let handled = kick::handled();
    with_mine(|calls| calls.0[Call::SignalReturn as usize].store(handled, Ordering::Relaxed));
}

fn with_mine(count: impl FnOnce(&Calls)) {
    // A thread at its very end has no thread-locals any more.
    let _ = MINE.try_with(|mine| mine.get().map(|calls| count(calls)));
}
