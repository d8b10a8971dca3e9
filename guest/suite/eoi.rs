//! C10 and C11: paravirtual EOI. A byte in memory that the guest may clear in place of writing the EOI register, as long as the machine
//! monitor has set it: for an edge that is alone, nobody has to know at once.

use core::sync::atomic::{AtomicU32, Ordering};

use kernel::arch::frame::Frame;
use kernel::chips::{apic, ioapic};
use kernel::testing::{Failure, TestResult};
use kernel::{check, check_eq, console, probe, test, wait};
use x86::ioapic::RedirectionEntry;
use x86::platform::IRQ_COM1;
use x86::test_record::Modes;

use crate::apic::with_vectors;

test!("apic.paravirtual_eoi_ends_its_interrupt", [11], ends; .modes(Modes::USER));
test!("ioapic.paravirtual_eoi_is_not_offered_for_levels", [10, 11], not_for_levels; .modes(Modes::USER));

const VECTOR: u8 = 0x57;

/// The byte, in the field of four that the machine monitor is told of.
static FIELD: AtomicU32 = AtomicU32::new(0);
static COUNT: AtomicU32 = AtomicU32::new(0);
/// How many handlers were offered it.
static OFFERED: AtomicU32 = AtomicU32::new(0);

/// What a system with paravirtual EOI does at the end of its handlers.
fn handler(_: &mut Frame) {
    console::set_serial_interrupt(false);
    if FIELD.swap(0, Ordering::SeqCst) & 1 == 0 {
        apic::eoi();
    } else {
        OFFERED.fetch_add(1, Ordering::SeqCst);
    }
    COUNT.fetch_add(1, Ordering::SeqCst);
}

fn with_paravirtual_eoi(body: impl FnOnce() -> TestResult) -> TestResult {
    if !probe::has_paravirtual_eoi() {
        return Err(Failure::skip(format_args!("no paravirtual EOI")));
    }
    [&FIELD, &COUNT, &OFFERED].into_iter().for_each(|count| count.store(0, Ordering::SeqCst));
    with_vectors(&[VECTOR], handler, || {
        check!(probe::set_paravirtual_eoi(Some(&FIELD)).is_none(), "its register can't be written");
        let result = body();
        check!(probe::set_paravirtual_eoi(None).is_none(), "it can't be switched off");
        result
    })
}

fn count() -> u32 {
    COUNT.load(Ordering::SeqCst)
}

/// The next interrupt can come only if the one before has ended.
fn ends() -> TestResult {
    with_paravirtual_eoi(|| {
        for n in 1..=20 {
            apic::send_to(apic::id(), VECTOR);
            wait::for_condition(|| count() == n)?;
        }
        check!(OFFERED.load(Ordering::SeqCst) > 0, "it was never offered");
        check!(!apic::anything_in_service(), "something is in service still");
        Ok(())
    })
}

/// The I/O APIC has to hear of a level interrupt's EOI.
fn not_for_levels() -> TestResult {
    with_paravirtual_eoi(|| {
        let (pin, old) = (IRQ_COM1, ioapic::entry(IRQ_COM1));
        let entry = RedirectionEntry::new().with_vector(VECTOR).with_level(true).with_destination(apic::id() as u8);
        ioapic::set_entry(pin, entry);
        let result = (1..=5).try_for_each(|n| {
            console::set_serial_interrupt(true);
            wait::for_condition(|| count() == n)?;
            wait::for_condition(|| !ioapic::entry(pin).remote_irr())
        });
        console::set_serial_interrupt(false);
        ioapic::set_entry(pin, old);
        result?;
        check_eq!(OFFERED.load(Ordering::SeqCst), 0, "level interrupts that were offered it");
        Ok(())
    })
}
