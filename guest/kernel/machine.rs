//! What the machine has: CPUs and devices, as the tables and the processor say.

use spin::Once;
use x86::agent::words;
use x86::ioapic::VERSION as DIRECTED_EOI_VERSION;
use x86::test_record::{Modes, Needs};

use crate::acpi::{self, Tables};
use crate::arch::percpu;
use crate::boot::info::boot_info;
use crate::chips::{apic, ioapic};
use crate::{agent, testing, time};

static TABLES: Once<Tables> = Once::new();

/// Reads the tables. Called once, on the bootstrap processor.
pub(crate) fn init() {
    TABLES.call_once(|| acpi::read(boot_info().rsdp));
}

/// What the tables say.
pub fn tables() -> &'static Tables {
    TABLES.call_once(Tables::default)
}

/// How many CPUs are up.
pub fn cpus() -> usize {
    percpu::cpus().count()
}

/// Local APICs run in x2APIC mode: where there is one, unless the command line says `apic=xapic`.
pub fn use_x2apic() -> bool {
    apic::has_x2apic() && boot_info().word("apic") != Some("xapic")
}

/// The I/O APIC pin of an ISA interrupt.
pub fn isa_pin(irq: u8) -> u8 {
    let moved = tables().overrides.iter().find(|(isa, ..)| *isa == irq);
    moved.map_or(irq, |&(_, gsi, _)| gsi as u8)
}

/// The machine has what the test needs.
pub fn has(need: Needs) -> bool {
    match need {
        Needs::AGENT => agent::is_present(),
        Needs::PROCESSOR => !boot_info().software_host(),
        Needs::X2APIC => apic::has_x2apic(),
        Needs::TSC_DEADLINE => apic::has_tsc_deadline(),
        Needs::HPET => time::hpet::is_present(),
        Needs::PM_TIMER => tables().pm_timer != 0,
        Needs::DIRECTED_EOI => ioapic::version() >= DIRECTED_EOI_VERSION && apic::can_suppress_broadcast(),
        Needs::ALONE => true,
        Needs::STI_SHADOW => boot_info().keeps_sti_shadow(),
        Needs::IN_SERVICE => testing::mode() == Modes::USER || !boot_info().software_host(),
        _ => false,
    }
}

/// Interrupt controllers' mode, as the host calls it; `None` if it does not say.
pub fn irqchip() -> Option<&'static str> {
    boot_info().word(words::IRQCHIP)
}

/// The machine is QEMU with its own APIC model and no KVM, which lacks some of what the manuals say.
pub fn is_qemu_tcg() -> bool {
    let leaf = core::arch::x86_64::__cpuid(0x4000_0000);
    [leaf.ebx, leaf.ecx, leaf.edx] == [0x5447_4354, 0x4354_4743, 0x4743_5447]
}
