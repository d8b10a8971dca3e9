//! A request to a device and its answer: the write leaves the guest (top half), the machine monitor does the work later (bottom
//! half), and what it has done comes back as a message-signalled interrupt.

use kernel::arch::percpu::this_cpu;
use kernel::irq::chip;
use kernel::measure::{between, closed_loop};
use kernel::measurement;
use kernel::storm::{Channel, Source};
use kernel::testing::{Failure, TestResult};
use kernel::time::tsc;
use x86::test_record::Needs;

use super::{VECTOR, handler, stamp, with_stamps};

measurement!("round_trip", round_trip; .needs(Needs::AGENT));

/// The storm device, with one event that is due at once: the write arms its timer, and the timer's bottom half sends the message.
fn round_trip() -> TestResult {
    let Some(channel) = Channel::claim() else { return Err(Failure::skip(format_args!("no storm device"))) };
    let cpu = this_cpu();
    channel.aim_message(chip::message(VECTOR, 1));
    channel.load(1, 0);
    with_stamps(VECTOR, handler, || {
        closed_loop(|| {
            channel.reload(1);
            let from = tsc::read();
            channel.start(Source::Msi);
            Ok(between(from, stamp(cpu)?))
        })
    })
}
