//! Atomics, locks and threads: the real ones, or those of a model checker (`--cfg loom`, `--cfg shuttle`).

pub(crate) use imp::*;

#[cfg(not(any(loom, shuttle)))]
mod imp {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
    pub(crate) use std::thread_local;

    pub(crate) use parking_lot::{Mutex, MutexGuard};

    pub(crate) mod thread {
        pub(crate) use std::thread::{Builder, JoinHandle, ThreadId, current, yield_now};
    }
}

#[cfg(loom)]
mod imp {
    pub(crate) use loom::sync::Condvar;
    pub(crate) use loom::sync::Mutex as PlainMutex;
    pub(crate) use loom::sync::atomic::{AtomicU32, Ordering, fence};
}

#[cfg(shuttle)]
mod imp {
    pub(crate) use shuttle::sync::Mutex as PlainMutex;
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
    pub(crate) use shuttle::sync::{Condvar, MutexGuard};
    pub(crate) use shuttle::thread_local;

    pub(crate) mod thread {
        pub(crate) use shuttle::thread::{Builder, JoinHandle, ThreadId, current, yield_now};
    }

    /// A lock without poisoning: a panic ends the run anyway.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
        }
    }
}
