//! Deferred work, as an operating system's kernel knows it: softirqs, tasklets, work queues, timers, for the threads of a
//! program.
//!
//! A program has *top halves* (a vCPU's exit, an event that a loop has read): code that does the least that is needed and
//! must not block. What can be done later is handed to a bottom half:
//!
//! - a **softirq** ([`Vector`]): ten of them in order of priority, raised per [`Cpu`], run on leaving the top half, at most
//!   so many rounds and so long, then by that CPU's softirq thread;
//! - a [`Tasklet`]: made at run time, scheduled at most once until it runs, never on two CPUs at once;
//! - a [`Work`] item of a [`WorkQueue`], or a [`DelayedWork`]: may block;
//! - a [`Timer`]: a timeout or a precise one.
//!
//! What code may do is what its token lets it do: see [`context`]. A [`System`] has all of it; a [`CpuOwner`] is the half
//! of a CPU that belongs to its thread.
//!
//! ```
//! use std::sync::Arc;
//! use bottom_half::{Config, System, Tasklet, ThreadPort, Vector};
//!
//! let (system, owners) = System::new(Config::default(), vec![Arc::new(ThreadPort::default())])?;
//! let drain = Tasklet::new(&system, owners[0].cpu(), |_softirq| println!("drained"));
//! let _handler_set = system.set_handler(Vector::Block, |_softirq| println!("requests submitted"));
//! let write = system.shared_queue().work(|_process| println!("written, perhaps slowly"));
//! owners[0].top_half(|top| {
//!     top.raise(Vector::Block);
//!     drain.schedule();
//!     let _ = write.queue();
//! });
//! system.shutdown(None)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Not modelled: CPU hotplug, threaded softirqs, power-efficient and freezable queues; the read-copy-update that RCU's
//! vector is named after.

pub mod protocol;
mod sync;

#[cfg(not(loom))]
mod clock;
#[cfg(not(loom))]
pub mod context;
#[cfg(not(loom))]
mod cpu;
#[cfg(not(loom))]
mod observe;
#[cfg(not(loom))]
mod softirq;
#[cfg(not(loom))]
mod stats;
#[cfg(not(loom))]
mod system;
#[cfg(not(loom))]
mod table;
#[cfg(not(loom))]
mod tasklet;
#[cfg(all(test, not(any(loom, shuttle))))]
mod testing;
#[cfg(all(test, shuttle))]
mod tests_shuttle;
#[cfg(not(loom))]
mod threads;
#[cfg(not(loom))]
mod timer;
#[cfg(not(loom))]
mod work;

#[cfg(not(loom))]
pub use {
    clock::{Clock, Monotonic, Stepped},
    context::{Process, Softirq, TopHalf},
    cpu::{AtomicStop, Cpu, CpuOwner, Masked, Port, ThreadPort},
    observe::{Happened, ItemKind, Observed, Observer},
    softirq::{VECTORS, Vector},
    stats::{CpuStats, QueueStats},
    system::{Config, Stuck, System},
    tasklet::{Scheduled, Tasklet, Turn},
    timer::Timer,
    work::{DelayedWork, Hog, QueueKind, Queued, Work, WorkQueue},
};
