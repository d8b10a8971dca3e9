//! The local APIC: each CPU's own interrupt controller.
//!
//! It takes interrupts from the I/O APIC, from messages, from other CPUs (IPIs) and from its own timer and pins; keeps what is requested in
//! IRR and what is being handled in ISR; and gives the CPU the highest, if its priority is above TPR's and above what is in
//! service. The end of a handler is said by an EOI. In **xAPIC** mode its registers are a page of memory, in **x2APIC** mode they are MSRs, and
//! APIC IDs have 32 bits.
//!
//! To read more: Intel SDM vol. 3A, chapter "Advanced Programmable Interrupt Controller (APIC)".

use core::sync::atomic::Ordering;

use x86::apic::{DeliveryMode, Icr, Lvt, Shorthand, Svr, reg};
use x86::msr::{self, ApicBase};
use x86::platform::LAPIC_BASE;
use x86_64::registers::model_specific::Msr;

use crate::arch::percpu::this_cpu;
use crate::arch::vectors;

/// CPUID leaf 1, ECX: x2APIC.
const X2APIC: u32 = x86::cpuid::LEAF1_ECX_X2APIC;

/// The processor has x2APIC.
pub fn has_x2apic() -> bool {
    core::arch::x86_64::__cpuid(1).ecx & X2APIC != 0
}

/// The processor has the TSC-deadline timer mode.
pub fn has_tsc_deadline() -> bool {
    core::arch::x86_64::__cpuid(1).ecx & x86::cpuid::LEAF1_ECX_TSC_DEADLINE != 0
}

fn msr(register: u32) -> Msr {
    Msr::new(msr::X2APIC_FIRST + (register >> 4))
}

/// This CPU's APIC is in x2APIC mode.
pub fn in_x2apic() -> bool {
    this_cpu().x2apic.load(Ordering::Relaxed) != 0
}

/// Reads a register by its offset in the xAPIC page.
pub fn read(register: u32) -> u32 {
    if in_x2apic() {
        // SAFETY: reading an APIC register changes nothing that the kernel relies on.
        unsafe { msr(register).read() as u32 }
    } else {
        // SAFETY: the page is mapped one to one, uncached; offsets are those of x86::apic::reg.
        unsafe { core::ptr::read_volatile((LAPIC_BASE + u64::from(register)) as *const u32) }
    }
}

/// Writes a register by its offset in the xAPIC page.
pub fn write(register: u32, value: u32) {
    if in_x2apic() {
        // SAFETY: an APIC register can change which interrupts come, nothing in memory.
        unsafe { msr(register).write(value.into()) };
    } else {
        // SAFETY: as for reading.
        unsafe { core::ptr::write_volatile((LAPIC_BASE + u64::from(register)) as *mut u32, value) };
    }
}

/// Ends the interrupt in service with the highest priority.
pub fn eoi() {
    write(reg::EOI, 0);
}

/// This CPU's APIC ID.
pub fn id() -> u32 {
    let id = read(reg::ID);
    if in_x2apic() { id } else { id >> 24 }
}

/// Brings up this CPU's APIC: mode, logical ID, spurious vector, everything in the table masked but what firmware would leave.
pub(crate) fn init(x2apic: bool) {
    let cpu = this_cpu();
    // SAFETY: the transitions from disabled or xAPIC mode to these are legal ones.
    unsafe {
        let mut base = Msr::new(msr::IA32_APIC_BASE);
        let mut bits = ApicBase::from_bits_retain(base.read());
        bits |= ApicBase::ENABLE;
        base.write(bits.bits());
        if x2apic {
            base.write((bits | ApicBase::X2APIC).bits());
        }
        cpu.x2apic.store(x2apic.into(), Ordering::Relaxed);
    }
    configure();
}

/// Sets the registers that a reset of the APIC loses, and the table's entries that disabling it masks.
pub fn configure() {
    if !in_x2apic() {
        // Flat model: CPU n is bit n of a logical destination, for the first eight.
        write(reg::DFR, u32::MAX);
        write(reg::LDR, logical_id() << 24);
    }
    write(reg::TPR, 0);
    // Before the table: while the APIC is disabled its entries can't be unmasked.
    write(reg::SVR, Svr::new().with_vector(vectors::SPURIOUS).with_enabled(true).into_bits());
    write(reg::LVT_TIMER, Lvt::new().with_vector(vectors::LOCAL_TIMER).with_masked(true).into_bits());
    write(reg::LVT_ERROR, Lvt::new().with_vector(vectors::APIC_ERROR).into_bits());
    let nmi = Lvt::new().with_delivery_mode(DeliveryMode::Nmi as u8);
    write(reg::LVT_LINT1, nmi.with_masked(this_cpu().number() != 0).into_bits());
    write(reg::LVT_LINT0, Lvt::new().with_delivery_mode(DeliveryMode::ExtInt as u8).with_masked(true).into_bits());
}

/// Switches this CPU's APIC to the other mode. On the way from x2APIC to xAPIC it must be disabled once, which resets it. Interrupts
/// must be off, and nothing may be pending or in service. Nothing happens without x2APIC.
pub fn set_x2apic(x2apic: bool) {
    if x2apic == in_x2apic() || !has_x2apic() {
        return;
    }
    // SAFETY: legal transitions only (Intel SDM vol. 3A, figure "Local x2APIC State Transitions").
    unsafe {
        let mut base = Msr::new(msr::IA32_APIC_BASE);
        let bits = ApicBase::from_bits_retain(base.read());
        if x2apic {
            base.write((bits | ApicBase::X2APIC).bits());
        } else {
            base.write((bits - ApicBase::X2APIC - ApicBase::ENABLE).bits());
            base.write(((bits - ApicBase::X2APIC) | ApicBase::ENABLE).bits());
        }
    }
    this_cpu().x2apic.store(x2apic.into(), Ordering::Relaxed);
    configure();
}

/// This CPU's bit in a flat logical destination; 0 for CPUs beyond the eighth.
pub fn logical_id() -> u32 {
    1u32.checked_shl(this_cpu().number() as u32).unwrap_or(0) & 0xff
}

/// Sends an IPI. Waits until the last one is on its way (xAPIC mode only, where the register has to be written in two halves; interrupts
/// are off meanwhile).
pub fn send(icr: Icr) {
    if in_x2apic() {
        // SAFETY: an IPI is what the caller asks for.
        unsafe { msr(reg::ICR_LOW).write(icr.with_delivery_status(false).into_bits()) };
        return;
    }
    crate::sync::without_interrupts(|| {
        while read(reg::ICR_LOW) & Icr::new().with_delivery_status(true).into_bits() as u32 != 0 {
            core::hint::spin_loop();
        }
        write(reg::ICR_HIGH, icr.destination() << 24);
        write(reg::ICR_LOW, icr.into_bits() as u32);
    });
}

/// An ICR for an edge-triggered message to one APIC ID.
pub fn message(mode: DeliveryMode, vector: u8, destination: u32) -> Icr {
    Icr::new().with_vector(vector).with_delivery_mode(mode as u8).with_assert(true).with_destination(destination)
}

/// Sends a fixed IPI to one APIC ID.
pub fn send_to(apic_id: u32, vector: u8) {
    send(message(DeliveryMode::Fixed, vector, apic_id));
}

/// Sends a fixed IPI by a shorthand.
pub fn send_shorthand(shorthand: Shorthand, vector: u8) {
    let bits = match shorthand {
        Shorthand::None => 0,
        Shorthand::Myself => 1,
        Shorthand::All => 2,
        Shorthand::AllButSelf => 3,
    };
    send(message(DeliveryMode::Fixed, vector, 0).with_shorthand_bits(bits));
}

/// Sends an NMI to one APIC ID.
pub fn send_nmi(apic_id: u32) {
    send(message(DeliveryMode::Nmi, 0, apic_id));
}

fn bit(register: u32, vector: u8) -> bool {
    read(register + u32::from(vector / 32) * 0x10) & 1 << (vector % 32) != 0
}

/// The vector is requested.
pub fn requested(vector: u8) -> bool {
    bit(reg::IRR, vector)
}

/// The vector is in service.
pub fn in_service(vector: u8) -> bool {
    bit(reg::ISR, vector)
}

/// The vector was accepted as level-triggered.
pub fn level_triggered(vector: u8) -> bool {
    bit(reg::TMR, vector)
}

/// Any vector is in service.
pub fn anything_in_service() -> bool {
    (0..8).any(|word| read(reg::ISR + word * 0x10) != 0)
}

/// Latches and reads the error status register.
pub fn errors() -> x86::apic::Esr {
    write(reg::ESR, 0);
    x86::apic::Esr::from_bits_truncate(read(reg::ESR))
}

/// The EOI broadcast of level interrupts can be suppressed (version register bit 24).
pub fn can_suppress_broadcast() -> bool {
    read(reg::VERSION) & 1 << 24 != 0
}

/// Arms the TSC-deadline timer, if the timer's entry is in that mode; 0 disarms it.
pub fn set_tsc_deadline(deadline: u64) {
    // SAFETY: what can happen is a timer interrupt. The processor has the mode, as callers have asked.
    unsafe { Msr::new(msr::IA32_TSC_DEADLINE).write(deadline) };
}

/// The armed deadline, 0 for none.
pub fn tsc_deadline() -> u64 {
    // SAFETY: as above.
    unsafe { Msr::new(msr::IA32_TSC_DEADLINE).read() }
}

/// Connects the 8259A pair to this CPU (LINT0 as ExtINT, "virtual wire"), or disconnects it.
pub fn connect_pic(connected: bool) {
    let lvt = Lvt::new().with_delivery_mode(DeliveryMode::ExtInt as u8).with_masked(!connected);
    write(reg::LVT_LINT0, lvt.into_bits());
}
