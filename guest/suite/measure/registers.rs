//! What single instructions cost that a machine monitor may have to see.

use core::sync::atomic::{AtomicU64, Ordering};

use kernel::arch::frame::Frame;
use kernel::chips::apic;
use kernel::measure::{between, closed_loop, spin_until, write_port};
use kernel::measurement;
use kernel::testing::TestResult;
use kernel::time::{hpet, tsc};
use x86::apic::reg;
use x86::test_record::Needs;

use super::{DONE, VECTOR, done, with_stamps};

measurement!("clock", clock);
measurement!("eoi", eoi);
measurement!("tpr_write", tpr);
measurement!("exit_pio", port);
measurement!("exit_mmio", mmio; .needs(Needs::HPET));
measurement!("exit_msr", msr; .needs(Needs::X2APIC));
measurement!("exit_cpuid", cpuid);

/// Around one execution of `instruction`.
fn timed(instruction: impl Fn()) -> TestResult {
    closed_loop(|| {
        let from = tsc::read();
        instruction();
        Ok(between(from, tsc::read()))
    })
}

/// Nothing: what reading the clock twice adds to every sample.
fn clock() -> TestResult {
    timed(|| ())
}

/// Of an edge-triggered interrupt, in its handler.
fn eoi() -> TestResult {
    static TOOK: AtomicU64 = AtomicU64::new(0);
    fn handler(_: &mut Frame) {
        let from = tsc::read();
        apic::eoi();
        TOOK.store(tsc::read().wrapping_sub(from), Ordering::SeqCst);
        DONE.fetch_add(1, Ordering::SeqCst);
    }
    let id = apic::id();
    with_stamps(VECTOR, handler, || {
        closed_loop(|| {
            let before = done();
            apic::send_to(id, VECTOR);
            spin_until(|| done() > before)?;
            Ok(between(0, TOOK.load(Ordering::SeqCst)))
        })
    })
}

/// To what it is already: no interrupt is let in or kept out.
fn tpr() -> TestResult {
    timed(|| apic::write(reg::TPR, 0))
}

/// The diagnostic port.
fn port() -> TestResult {
    timed(write_port)
}

/// The HPET's, which is in the machine monitor in every mode.
fn mmio() -> TestResult {
    timed(|| _ = hpet::read(hpet::CONFIGURATION))
}

/// The local APIC's version: KVM answers where it has the local APIC.
fn msr() -> TestResult {
    timed(|| _ = apic::read(reg::VERSION))
}

/// KVM answers in every mode.
fn cpuid() -> TestResult {
    timed(|| _ = core::hint::black_box(core::arch::x86_64::__cpuid(0)))
}
