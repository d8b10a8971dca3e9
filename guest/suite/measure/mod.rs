//! What `tophalf bench` runs: measurements of interrupts, from where they are caused to the handler's gate. See [`kernel::measure`].

mod host;
mod ipi;
mod registers;
mod round_trip;
mod timer;

use core::sync::atomic::{AtomicU32, Ordering};

use kernel::arch::frame::Frame;
use kernel::arch::percpu::{PerCpu, this_cpu};
use kernel::arch::stamp::Stamping;
use kernel::arch::vectors::Handler;
use kernel::chips::apic;
use kernel::measure::spin_until;
use kernel::testing::{Failure, TestResult};

use crate::apic::with_vectors;

/// The vector of most measurements.
const VECTOR: u8 = 0x61;

/// Handlers that have run to their end.
static DONE: AtomicU32 = AtomicU32::new(0);

fn done() -> u32 {
    DONE.load(Ordering::SeqCst)
}

/// The shortest handler there is.
fn handler(_: &mut Frame) {
    apic::eoi();
    DONE.fetch_add(1, Ordering::SeqCst);
}

/// With the vector stamped and handled.
fn with_stamps(vector: u8, handler: Handler, body: impl FnOnce() -> TestResult) -> TestResult {
    with_stamping(vector, || Stamping::new(vector), handler, body)
}

/// The same, stamped by `stamping` once the vector is handled.
fn with_stamping(
    vector: u8,
    stamping: impl FnOnce() -> Stamping,
    handler: Handler,
    body: impl FnOnce() -> TestResult,
) -> TestResult {
    DONE.store(0, Ordering::SeqCst);
    this_cpu().take_stamp();
    with_vectors(&[vector], handler, || {
        let _stamping = stamping();
        body()
    })
}

/// The time of the entry that this CPU waits for.
#[track_caller]
fn stamp(cpu: &PerCpu) -> Result<u64, Failure> {
    spin_until(|| cpu.is_stamped())?;
    Ok(cpu.take_stamp())
}
