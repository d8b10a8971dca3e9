//! Lines through the I/O APIC.

use x86::apic::{DeliveryMode, reg};
use x86::ioapic::{EOI, REG_TABLE};

use crate::rig::{Rig, edge, level};

const VECTOR: u8 = 0x41;
const OTHER: u8 = 0x52;

/// Red without: the edge arm of `Pin::evaluate`; `with_ioapic` in `Interrupts::set_level`; the edge words in
/// `Mailbox::take`.
#[test]
fn an_edge_is_one_interrupt_and_its_eoi_stays_in_the_local_apic() {
    let (rig, mut cpus) = Rig::new(2);
    rig.route(5, edge(VECTOR, 1));
    let mut line = rig.line(5);
    line.set(true);
    assert_eq!(cpus[0].interrupt(), None);
    assert_eq!(cpus[1].interrupt(), Some(VECTOR));
    assert!(!cpus[1].apic.tmr().contains(VECTOR));
    line.set(false);
    line.set(true);
    assert_eq!(cpus[1].interrupt(), None, "the same vector is in service");
    cpus[1].eoi();
    assert_eq!(cpus[1].handle_all(), [VECTOR], "the second edge waited in IRR");
    assert!(!rig.entry(5).remote_irr());
}

/// Red without: the count in `Wire::change`; `Pin::refire` in `IoApic::eoi`; `Interrupts::eoi`; the TMR in
/// `LocalApic::collect`.
#[test]
fn a_shared_level_line_interrupts_until_its_last_holder_is_quiet() {
    let (rig, mut cpus) = Rig::new(1);
    rig.route(10, level(VECTOR, 0));
    let (mut a, mut b) = (rig.line(10), rig.line(10));
    a.set(true);
    b.set(true);
    assert_eq!(cpus[0].interrupt(), Some(VECTOR));
    assert!(cpus[0].apic.tmr().contains(VECTOR));
    a.set(false);
    cpus[0].eoi();
    assert_eq!(cpus[0].interrupt(), Some(VECTOR), "b still asks");
    b.set(false);
    cpus[0].eoi();
    assert_eq!(cpus[0].interrupt(), None);
    a.set(true);
    assert_eq!(cpus[0].handle(), Some(VECTOR));
    drop(a);
    assert_eq!(cpus[0].handle_all(), [VECTOR], "asserted at the EOI, gone with its holder");
    assert_eq!(cpus[0].interrupt(), None);
}

/// Red without: `set_remote_irr(true)` in `Pin::evaluate`, or its check in `Pin::waiting`.
#[test]
fn remote_irr_holds_a_level_back_until_the_eoi() {
    let (rig, mut cpus) = Rig::new(1);
    rig.route(10, level(VECTOR, 0));
    let mut line = rig.line(10);
    line.set(true);
    assert!(rig.entry(10).remote_irr(), "accepted is enough");
    assert_eq!(cpus[0].interrupt(), Some(VECTOR));
    for _ in 0..3 {
        line.set(false);
        line.set(true);
    }
    cpus[0].collect();
    assert!(cpus[0].apic.irr().is_empty(), "no second request while it is in service");
    line.set(false);
    cpus[0].eoi();
    assert!(!rig.entry(10).remote_irr());
    assert_eq!(cpus[0].interrupt(), None);
}

/// Red without: the mask in `Pin::waiting`, the `evaluate` in `Pin::write_low`, or keeping remote IRR there.
#[test]
fn a_masked_level_fires_at_unmask_and_masking_in_service_does_not_double_it() {
    let (rig, mut cpus) = Rig::new(1);
    let mut line = rig.line(10);
    rig.route(10, level(VECTOR, 0).with_masked(true));
    line.set(true);
    assert_eq!(cpus[0].interrupt(), None);
    rig.route(10, level(VECTOR, 0));
    assert_eq!(cpus[0].interrupt(), Some(VECTOR));
    rig.route(10, level(VECTOR, 0).with_masked(true));
    rig.route(10, level(VECTOR, 0));
    cpus[0].collect();
    assert!(cpus[0].apic.irr().is_empty());
    rig.route(10, level(VECTOR, 0).with_masked(true));
    cpus[0].eoi();
    assert_eq!(cpus[0].interrupt(), None, "masked at the EOI");
    rig.route(10, level(VECTOR, 0));
    assert_eq!(cpus[0].interrupt(), Some(VECTOR), "and still asserted");
}

/// Red without: the mask in the edge arm of `Pin::evaluate`.
#[test]
fn an_edge_on_a_masked_pin_is_lost() {
    let (rig, mut cpus) = Rig::new(1);
    let mut line = rig.line(5);
    rig.route(5, edge(VECTOR, 0).with_masked(true));
    line.set(true);
    rig.route(5, edge(VECTOR, 0));
    assert_eq!(cpus[0].interrupt(), None);
    line.pulse();
    line.pulse();
    assert_eq!(cpus[0].handle_all(), [VECTOR], "the next one is not");
}

/// Red without: `accepted` in `Pin::end`.
#[test]
fn a_level_entry_can_be_rerouted_while_in_service() {
    let (rig, mut cpus) = Rig::new(2);
    rig.route(10, level(VECTOR, 0));
    let mut line = rig.line(10);
    line.set(true);
    assert_eq!(cpus[0].interrupt(), Some(VECTOR));
    rig.route(10, level(OTHER, 1));
    assert_eq!(cpus[1].interrupt(), None, "it is in service elsewhere");
    cpus[0].eoi();
    assert_eq!(cpus[0].interrupt(), None);
    assert_eq!(cpus[1].interrupt(), Some(OTHER), "the old vector's EOI frees the pin, the new route fires");
    line.set(false);
    cpus[1].eoi();
    assert!(!rig.entry(10).remote_irr());
}

/// Red without: every pin being looked at in `IoApic::eoi`, not just the first that matches.
#[test]
fn two_pins_can_share_a_vector() {
    let (rig, mut cpus) = Rig::new(1);
    rig.route(10, level(VECTOR, 0));
    rig.route(11, level(VECTOR, 0));
    let (mut a, mut b) = (rig.line(10), rig.line(11));
    a.set(true);
    b.set(true);
    assert_eq!(cpus[0].interrupt(), Some(VECTOR), "both requests in one IRR bit");
    a.set(false);
    cpus[0].eoi();
    assert!(!rig.entry(10).remote_irr() && rig.entry(11).remote_irr());
    assert_eq!(cpus[0].interrupt(), Some(VECTOR), "b asks again");
    a.set(true);
    b.set(false);
    cpus[0].eoi();
    assert_eq!(cpus[0].interrupt(), Some(VECTOR), "a came while b was served");
    a.set(false);
    cpus[0].eoi();
    assert_eq!(cpus[0].interrupt(), None);
}

/// Red without: the software-enable check in `ApicBus::deliver`, `destinations_changed` in `Interrupts::readdress`, or
/// `Effect::Readdressed` of an SVR write.
#[test]
fn a_level_waits_for_its_target_to_be_enabled_and_an_edge_does_not() {
    let (rig, mut cpus) = Rig::new(2);
    cpus[1].write(reg::SVR, 0xff);
    rig.route(10, level(VECTOR, 1));
    rig.route(5, edge(OTHER, 1));
    let (mut held, mut short) = (rig.line(10), rig.line(5));
    held.set(true);
    short.set(true);
    assert!(rig.entry(10).delivery_status() && !rig.entry(10).remote_irr(), "pending at the I/O APIC");
    assert_eq!(cpus[1].interrupt(), None);
    cpus[1].write(reg::SVR, 0x1ff);
    assert!(!rig.entry(10).delivery_status() && rig.entry(10).remote_irr());
    assert_eq!(cpus[1].interrupt(), Some(VECTOR));
    held.set(false);
    cpus[1].eoi();
    assert_eq!(cpus[1].interrupt(), None, "the edge is gone");
}

/// Red without: the SVR bit in `LocalApic::eoi`, or the EOI register in `IoApic::write`.
#[test]
fn a_directed_eoi_replaces_the_broadcast() {
    let (rig, mut cpus) = Rig::new(1);
    cpus[0].write(reg::SVR, 0x11ff);
    rig.route(10, level(VECTOR, 0));
    let mut line = rig.line(10);
    line.set(true);
    assert_eq!(cpus[0].handle(), Some(VECTOR));
    assert!(rig.entry(10).remote_irr(), "the local EOI stays local");
    assert_eq!(cpus[0].interrupt(), None);
    rig.write_ioapic_window(EOI, VECTOR.into());
    assert_eq!(cpus[0].interrupt(), Some(VECTOR));
    line.set(false);
}

/// Red without: `set_remote_irr(false)` for entries without a level message in `Pin::write_low`.
#[test]
fn switching_to_edge_and_back_ends_an_interrupt() {
    let (rig, mut cpus) = Rig::new(1);
    rig.route(10, level(VECTOR, 0));
    let mut line = rig.line(10);
    line.set(true);
    assert_eq!(cpus[0].interrupt(), Some(VECTOR));
    rig.write_ioapic(REG_TABLE + 20, edge(VECTOR, 0).with_masked(true).into_bits() as u32);
    assert!(!rig.entry(10).remote_irr());
    rig.write_ioapic(REG_TABLE + 20, level(VECTOR, 0).into_bits() as u32);
    assert!(rig.entry(10).remote_irr(), "the line is still high: a new request");
}

/// Red without: `trigger_for` in `Message::from_redirection`.
#[test]
fn an_nmi_entry_is_an_edge_whatever_it_says() {
    let (rig, mut cpus) = Rig::new(2);
    rig.route(3, level(0, 1).with_delivery_mode(DeliveryMode::Nmi as u8));
    let mut line = rig.line(3);
    line.set(true);
    cpus[1].collect();
    assert_eq!(cpus[1].log.nmis, 1);
    assert!(!rig.entry(3).remote_irr());
    line.set(false);
    line.set(true);
    cpus[1].collect();
    assert_eq!(cpus[1].log.nmis, 2, "no EOI is needed");
    assert_eq!((cpus[0].log.nmis, cpus[1].interrupt()), (0, None));
}
