//! To several local APICs: lowest priority, broadcast, logical destinations; and message-signalled interrupts.

use irqchip::line::MsiTarget;
use x86::apic::{DeliveryMode, MSI_PREFIX, MsiAddress, MsiData, reg};
use x86::msr::{APIC_BASE_ADDR_MASK, ApicBase, IA32_APIC_BASE};

use crate::rig::{Cpu, Rig, edge, level};

const VECTOR: u8 = 0x61;

/// Who has an interrupt; takes and ends it.
fn takers(cpus: &mut [Cpu]) -> Vec<usize> {
    cpus.iter_mut().filter_map(|cpu| cpu.handle().map(|_| cpu.index)).collect()
}

fn lowest_priority(vector: u8, mask: u8) -> x86::ioapic::RedirectionEntry {
    edge(vector, mask).with_logical(true).with_delivery_mode(DeliveryMode::LowestPriority as u8)
}

/// Red without: the rotor in `ApicBus::lowest_priority`.
#[test]
fn equal_priorities_take_turns() {
    let (rig, mut cpus) = Rig::new(4);
    rig.route(5, lowest_priority(VECTOR, 0x0f));
    let mut line = rig.line(5);
    let mut order = Vec::new();
    for _ in 0..8 {
        line.pulse();
        let took = takers(&mut cpus);
        assert_eq!(took.len(), 1, "exactly one takes it");
        order.extend(took);
    }
    let mut first = order[..4].to_vec();
    first.sort_unstable();
    assert_eq!(first, [0, 1, 2, 3]);
    assert_eq!(order[..4], order[4..]);
}

/// Red without: the priority in `ApicBus::lowest_priority`, or `Mailbox::publish_priority`.
#[test]
fn who_serves_something_important_is_passed_over() {
    let (rig, mut cpus) = Rig::new(3);
    rig.route(5, lowest_priority(VECTOR, 0x07));
    cpus[0].write(reg::TPR, 0x80);
    cpus[2].write(reg::TPR, 0x40);
    for cpu in &mut cpus {
        assert_eq!(cpu.interrupt(), None);
    }
    let mut line = rig.line(5);
    for _ in 0..3 {
        line.pulse();
        assert_eq!(takers(&mut cpus), [1]);
    }
    cpus[1].write(reg::SVR, 0xff);
    line.pulse();
    assert_eq!(takers(&mut cpus), [2], "a disabled one is no candidate");
}

/// Red without: `Destination::Broadcast` in `DestinationTable::for_each`; the software-enable check in
/// `ApicBus::deliver`; remote IRR being one bit for all targets.
#[test]
fn a_broadcast_level_goes_to_all_who_are_enabled() {
    let (rig, mut cpus) = Rig::new(4);
    cpus[2].write(reg::SVR, 0xff);
    rig.route(10, level(VECTOR, 0xff));
    let mut line = rig.line(10);
    line.set(true);
    for cpu in [0, 1, 3] {
        assert_eq!(cpus[cpu].interrupt(), Some(VECTOR));
    }
    assert_eq!(cpus[2].interrupt(), None);
    line.set(false);
    cpus[0].eoi();
    assert!(!rig.entry(10).remote_irr(), "the first EOI ends it");
    cpus[1].eoi();
    cpus[3].eoi();
    assert!(takers(&mut cpus).is_empty());
}

/// Red without: the address in `Interrupts::readdress` reaching the table; `LogicalId::Cluster` in its lookup.
#[test]
fn a_message_goes_by_the_addresses_of_the_moment() {
    let (rig, mut cpus) = Rig::new(3);
    rig.route(5, edge(VECTOR, 0x06).with_logical(true));
    let mut line = rig.line(5);
    line.pulse();
    assert_eq!(takers(&mut cpus), [1, 2]);
    cpus[1].write(reg::LDR, 0x80 << 24);
    line.pulse();
    assert_eq!(takers(&mut cpus), [2]);
    for (cpu, ldr) in cpus.iter_mut().zip([0x11, 0x12, 0x21]) {
        cpu.write(reg::DFR, 0x0fff_ffff);
        cpu.write(reg::LDR, ldr << 24);
    }
    rig.route(5, edge(VECTOR, 0x13).with_logical(true));
    line.pulse();
    assert_eq!(takers(&mut cpus), [0, 1], "cluster 1, members 1 and 2");
    cpus[0].write(reg::DFR, 0x3fff_ffff);
    line.pulse();
    assert_eq!(takers(&mut cpus), [1], "a destination format that does not exist matches nothing");
}

/// Red without: `Interrupts::send`; the redirection hint and the destination mode in `Message::from_msi`.
#[test]
fn a_message_signalled_interrupt_needs_no_line() {
    let (rig, mut cpus) = Rig::new(3);
    let to = |destination, logical, hint| {
        let address = MsiAddress::new().with_prefix(MSI_PREFIX).with_destination(destination);
        u64::from(address.with_logical(logical).with_redirection_hint(hint).into_bits())
    };
    let data = MsiData::new().with_vector(VECTOR).into_bits();
    rig.interrupts.send(to(2, false, false), data);
    assert_eq!(takers(&mut cpus), [2]);
    rig.interrupts.send(to(0x05, true, false), data);
    assert_eq!(takers(&mut cpus), [0, 2]);
    rig.interrupts.send(to(0x05, true, true), data);
    assert_eq!(takers(&mut cpus).len(), 1);
    rig.interrupts.send(to(2, false, false) & 0xffff, data);
    rig.interrupts.send(to(9, false, false), data);
    assert!(takers(&mut cpus).is_empty(), "no message, and nobody there");
}

/// Red without: `LogicalId::X2Apic` in `LocalApic::address`, or `Effect::Readdressed` of `write_base`.
#[test]
fn an_x2apic_guest_gets_lines_by_its_new_logical_id() {
    let (rig, mut cpus) = Rig::new(2);
    for cpu in &mut cpus {
        let base = cpu.apic.base() & (APIC_BASE_ADDR_MASK | ApicBase::BSP.bits());
        cpu.write_msr(IA32_APIC_BASE, base | (ApicBase::ENABLE | ApicBase::X2APIC).bits());
    }
    rig.route(10, level(VECTOR, 0x02).with_logical(true));
    let mut line = rig.line(10);
    line.set(true);
    assert_eq!(cpus[0].interrupt(), None);
    assert_eq!(cpus[1].interrupt(), Some(VECTOR), "cluster 0, member 1");
    line.set(false);
    cpus[1].eoi();
    assert!(!rig.entry(10).remote_irr(), "the EOI MSR reaches the I/O APIC too");
}
