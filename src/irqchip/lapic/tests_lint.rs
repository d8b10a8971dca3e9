//! The pins LINT0 and LINT1: virtual wire, NMI, fixed edge and level.

use x86::apic::reg;

use super::tests::*;
use super::*;

const EXTINT: u32 = 7 << 8;
const NMI: u32 = 4 << 8;
const LEVEL_BIT: u32 = 1 << 15;
const REMOTE_IRR: u32 = 1 << 14;

fn with_lint0(lvt: u32) -> LocalApic {
    let mut apic = xapic();
    let _ = write(&mut apic, reg::LVT_LINT0, lvt);
    apic
}

fn pulse(apic: &mut LocalApic, pin: usize) {
    apic.set_lint(pin, true);
    apic.set_lint(pin, false);
}

#[test]
fn extint_gets_through_only_while_the_pin_is_high_and_the_entry_lets_it() {
    let mut apic = with_lint0(EXTINT);
    assert!(!apic.extint_pending());
    apic.set_lint(0, true);
    assert!(apic.extint_pending());
    apic.extint_acknowledged();
    assert!(apic.extint_pending(), "a level: the pin is still high");
    let _ = write(&mut apic, reg::LVT_LINT0, MASKED | EXTINT);
    assert!(!apic.extint_pending(), "masked: the 8259A pair is not heard");
    let _ = write(&mut apic, reg::LVT_LINT0, EXTINT);
    assert!(apic.extint_pending(), "unmasked: it is");
    let _ = write(&mut apic, reg::LVT_LINT0, NMI);
    assert!(!apic.extint_pending());
    let _ = write(&mut apic, reg::LVT_LINT0, EXTINT);
    apic.set_lint(0, false);
    assert!(!apic.extint_pending());
    assert!(!apic.take_nmi(), "a level that is there at the write of an NMI entry is no edge");
}

#[test]
fn reset_and_software_disable_shut_the_virtual_wire() {
    let mut apic = LocalApic::new(config());
    apic.set_lint(0, true);
    assert!(!apic.extint_pending());
    assert_eq!(apic.enter_virtual_wire_mode(), Effect::Readdressed);
    assert!(apic.extint_pending());
    assert!(apic.address().enabled);
    assert_eq!(read(&mut apic, reg::LVT_LINT0), EXTINT);
    assert_eq!(read(&mut apic, reg::LVT_LINT1), NMI);
    assert_eq!(read(&mut apic, reg::SVR), 0x1ff);
    let _ = write(&mut apic, reg::SVR, 0xff);
    assert!(!apic.extint_pending());
    let _ = apic.enter_virtual_wire_mode();
    apic.init();
    assert!(!apic.extint_pending(), "INIT masks it");
    let _ = apic.enter_virtual_wire_mode();
    assert!(apic.extint_pending(), "but does not lower the pin");
}

#[test]
fn without_a_local_apic_the_pins_are_intr_and_nmi() {
    let mut apic = xapic();
    let _ = apic.write_base(apic.base() & !ENABLE);
    apic.set_lint(0, true);
    assert!(apic.extint_pending());
    apic.set_lint(0, false);
    assert!(!apic.extint_pending());
    apic.set_lint(1, true);
    apic.set_lint(1, true);
    assert!(apic.take_nmi());
    assert!(!apic.take_nmi(), "an edge: one NMI");
    apic.set_lint(1, false);
    assert!(!apic.take_nmi());
}

#[test]
fn an_nmi_entry_makes_an_nmi_of_each_rising_edge() {
    let mut apic = xapic();
    let _ = apic.enter_virtual_wire_mode();
    for _ in 0..2 {
        apic.set_lint(1, true);
        apic.set_lint(1, true);
        assert_eq!((apic.take_nmi(), apic.take_nmi()), (true, false));
        apic.set_lint(1, false);
        assert!(!apic.take_nmi());
    }
    let _ = write(&mut apic, reg::LVT_LINT1, MASKED | NMI);
    pulse(&mut apic, 1);
    let _ = write(&mut apic, reg::LVT_LINT1, NMI);
    assert!(!apic.take_nmi(), "masked: lost");
    let _ = write(&mut apic, reg::TPR, 0xff);
    pulse(&mut apic, 1);
    assert!(apic.take_nmi(), "no priority holds it back");
}

#[test]
fn init_forgets_an_nmi_that_nobody_has_taken() {
    let mut apic = xapic();
    let _ = apic.enter_virtual_wire_mode();
    pulse(&mut apic, 1);
    apic.init();
    assert!(!apic.take_nmi());
}

#[test]
fn a_fixed_edge_entry_requests_at_each_rising_edge() {
    for pin in [0, 1] {
        let mut apic = xapic();
        let _ = write(&mut apic, reg::LVT_LINT0 + 16 * pin as u32, 0x45);
        apic.set_lint(pin, true);
        assert_eq!(apic.acknowledge(), Some(0x45));
        assert_eq!(apic.eoi(), Effect::None);
        apic.set_lint(pin, true);
        assert_eq!(apic.deliverable(), None, "no new edge");
        apic.set_lint(pin, false);
        apic.set_lint(pin, true);
        assert_eq!(apic.acknowledge(), Some(0x45));
    }
}

#[test]
fn lint1_is_an_edge_whatever_its_trigger_mode() {
    let mut apic = xapic();
    let _ = write(&mut apic, reg::LVT_LINT1, LEVEL_BIT | 0x45);
    apic.set_lint(1, true);
    assert_eq!(apic.acknowledge(), Some(0x45));
    assert_eq!(read(&mut apic, reg::LVT_LINT1) & REMOTE_IRR, 0);
    assert_eq!(apic.eoi(), Effect::None);
    assert_eq!(apic.deliverable(), None);
}

#[test]
fn a_fixed_level_entry_requests_again_at_eoi_while_the_pin_is_high() {
    let mut apic = with_lint0(LEVEL_BIT | 0x45);
    apic.set_lint(0, true);
    assert_eq!(read(&mut apic, reg::LVT_LINT0), LEVEL_BIT | REMOTE_IRR | 0x45);
    assert_eq!(apic.acknowledge(), Some(0x45));
    pulse(&mut apic, 0);
    apic.set_lint(0, true);
    assert!(apic.irr().is_empty(), "remote IRR: none until EOI");
    assert_eq!(apic.eoi(), Effect::Eoi(0x45));
    assert_eq!(apic.acknowledge(), Some(0x45), "still high");
    apic.set_lint(0, false);
    assert_eq!(apic.eoi(), Effect::Eoi(0x45));
    assert_eq!(apic.deliverable(), None);
    assert_eq!(read(&mut apic, reg::LVT_LINT0), LEVEL_BIT | 0x45);
}

#[test]
fn an_eoi_of_another_vector_leaves_remote_irr() {
    let mut apic = with_lint0(LEVEL_BIT | 0x45);
    apic.set_lint(0, true);
    assert_eq!(apic.acknowledge(), Some(0x45));
    service(&mut apic, 0x66, LEVEL);
    assert_eq!(apic.eoi(), Effect::Eoi(0x66));
    assert!(apic.irr().is_empty());
    assert_ne!(read(&mut apic, reg::LVT_LINT0) & REMOTE_IRR, 0);
}

#[test]
fn remote_irr_ends_with_the_vector_that_was_requested_not_with_a_new_one() {
    let mut apic = with_lint0(LEVEL_BIT | 0x45);
    apic.set_lint(0, true);
    assert_eq!(apic.acknowledge(), Some(0x45));
    let _ = write(&mut apic, reg::LVT_LINT0, LEVEL_BIT | 0x56);
    assert!(apic.irr().is_empty(), "0x45 is still in service");
    let _ = apic.eoi();
    assert_eq!(apic.acknowledge(), Some(0x56));
}

/// TMR is the last request's: an edge with LINT0's vector says nothing about the pin that waits for this EOI.
#[test]
fn an_edge_of_the_same_vector_does_not_keep_lint0_from_its_eoi() {
    for edge_comes_late in [false, true] {
        let mut apic = with_lint0(LEVEL_BIT | 0x45);
        apic.set_lint(0, true);
        if edge_comes_late {
            assert_eq!(apic.acknowledge(), Some(0x45));
        }
        apic.accept(0x45, EDGE);
        if !edge_comes_late {
            assert_eq!(apic.acknowledge(), Some(0x45), "one for both");
        }
        assert_eq!(apic.eoi(), Effect::None, "an edge, by TMR: no broadcast");
        assert_eq!(apic.acknowledge(), Some(0x45), "the pin is still high");
        assert_eq!(apic.eoi(), Effect::Eoi(0x45), "and level triggered");
        assert_ne!(read(&mut apic, reg::LVT_LINT0) & REMOTE_IRR, 0, "fired again");
    }
}

#[test]
fn a_level_pin_is_looked_at_when_its_entry_is_unmasked() {
    let mut apic = with_lint0(MASKED | LEVEL_BIT | 0x45);
    apic.set_lint(0, true);
    assert!(apic.irr().is_empty());
    let _ = write(&mut apic, reg::LVT_LINT0, LEVEL_BIT | 0x45);
    assert_eq!(apic.acknowledge(), Some(0x45));
}

#[test]
fn masking_in_service_keeps_remote_irr_and_turning_to_edge_clears_it() {
    let mut apic = with_lint0(LEVEL_BIT | 0x45);
    apic.set_lint(0, true);
    let _ = write(&mut apic, reg::LVT_LINT0, MASKED | LEVEL_BIT | 0x45);
    assert_eq!(read(&mut apic, reg::LVT_LINT0) & REMOTE_IRR, REMOTE_IRR);
    let _ = write(&mut apic, reg::LVT_LINT0, MASKED | 0x45);
    assert_eq!(read(&mut apic, reg::LVT_LINT0) & REMOTE_IRR, 0);
}

#[test]
fn remote_irr_cannot_be_written() {
    let mut apic = with_lint0(REMOTE_IRR | LEVEL_BIT | 0x45);
    assert_eq!(read(&mut apic, reg::LVT_LINT0), LEVEL_BIT | 0x45);
    apic.set_lint(0, true);
    let _ = write(&mut apic, reg::LVT_LINT0, LEVEL_BIT | 0x45);
    assert_eq!(read(&mut apic, reg::LVT_LINT0) & REMOTE_IRR, REMOTE_IRR);
}

#[test]
fn an_illegal_level_vector_leaves_no_remote_irr_behind() {
    let mut apic = with_lint0(LEVEL_BIT | 0x05);
    apic.set_lint(0, true);
    let _ = write(&mut apic, reg::ESR, 0);
    assert_eq!(read(&mut apic, reg::ESR), 0x40);
    let _ = write(&mut apic, reg::LVT_LINT0, LEVEL_BIT | 0x45);
    assert_eq!(apic.acknowledge(), Some(0x45), "no EOI will ever come for the other");
}

#[test]
fn suppressed_eoi_broadcasts_still_end_lint0() {
    let mut apic = with_lint0(LEVEL_BIT | 0x45);
    let _ = write(&mut apic, reg::SVR, 0x11ff);
    apic.set_lint(0, true);
    assert_eq!(apic.acknowledge(), Some(0x45));
    assert_eq!(apic.eoi(), Effect::None);
    assert_eq!(apic.acknowledge(), Some(0x45));
}

#[test]
fn lint0_comes_through_the_mailbox_with_its_short_pulses() {
    let mut apic = with_lint0(0x45);
    let mailbox = Mailbox::default();
    let _ = mailbox.post_lint0(true);
    let _ = mailbox.post_lint0(false);
    let _ = apic.collect(&mailbox);
    assert_eq!(apic.acknowledge(), Some(0x45), "an edge is not lost because it was short");
    let _ = apic.eoi();
    let _ = mailbox.post_lint0(true);
    let _ = apic.collect(&mailbox);
    assert_eq!(apic.acknowledge(), Some(0x45));
    let _ = apic.eoi();
    let _ = mailbox.post_lint0(false);
    let _ = mailbox.post_lint0(true);
    let _ = apic.collect(&mailbox);
    assert_eq!(apic.acknowledge(), Some(0x45), "it fell in between");
    let _ = apic.eoi();
    let _ = mailbox.post_lint0(true);
    let _ = apic.collect(&mailbox);
    assert_eq!(apic.acknowledge(), None, "it was high already");
}

#[test]
fn a_short_extint_pulse_is_gone() {
    let mut apic = with_lint0(EXTINT);
    let mailbox = Mailbox::default();
    let _ = mailbox.post_lint0(true);
    let _ = mailbox.post_lint0(false);
    let _ = apic.collect(&mailbox);
    assert!(!apic.extint_pending(), "the 8259A pair asks no more");
    let _ = mailbox.post_lint0(true);
    let _ = apic.collect(&mailbox);
    assert!(apic.extint_pending());
}

#[test]
fn an_smi_entry_goes_nowhere_and_reserved_modes_do_nothing() {
    for (mode, smis) in [(2, 1), (1, 0), (3, 0), (5, 0), (6, 0)] {
        let mut apic = with_lint0(mode << 8 | 0x45);
        pulse(&mut apic, 0);
        assert_eq!(apic.smis(), smis, "mode {mode}");
        assert!(apic.irr().is_empty() && !apic.take_nmi() && !apic.extint_pending(), "mode {mode}");
    }
}

#[test]
fn a_pin_in_init_mode_asks_for_an_init_at_its_rise() {
    let mut apic = with_lint0(5 << 8);
    pulse(&mut apic, 0);
    assert!(apic.take_init());
    assert!(!apic.take_init(), "once");
    let _ = write(&mut apic, reg::LVT_LINT0, MASKED | 5 << 8);
    pulse(&mut apic, 0);
    assert!(!apic.take_init(), "masked");
}

#[test]
fn sources_inside_the_processor_go_by_their_entries() {
    let mut apic = LocalApic::new(Config { cmci: true, ..config() });
    let _ = write(&mut apic, reg::SVR, 0x1ff);
    apic.raise(LocalSource::Thermal);
    assert!(apic.irr().is_empty(), "masked after reset");
    let _ = write(&mut apic, reg::LVT_THERMAL, 0x41);
    let _ = write(&mut apic, reg::LVT_PERF, NMI);
    let _ = write(&mut apic, reg::LVT_CMCI, 0x42);
    apic.raise(LocalSource::Thermal);
    apic.raise(LocalSource::CorrectedMachineCheck);
    assert_eq!((apic.acknowledge(), apic.irr().highest()), (Some(0x42), Some(0x41)));
    apic.raise(LocalSource::PerformanceCounter);
    assert!(apic.take_nmi());
    assert_eq!(read(&mut apic, reg::LVT_PERF), NMI | MASKED, "a counter's interrupt masks its entry");
    apic.raise(LocalSource::PerformanceCounter);
    assert!(!apic.take_nmi(), "until the handler unmasks it");
    let _ = apic.write_base(apic.base() & !ENABLE);
    apic.raise(LocalSource::Thermal);
    assert!(apic.irr().is_empty(), "nobody there");
}

#[test]
fn without_cmci_in_mcg_cap_there_is_no_such_interrupt() {
    let mut apic = xapic();
    let _ = write(&mut apic, reg::LVT_CMCI, 0x42);
    apic.raise(LocalSource::CorrectedMachineCheck);
    assert!(apic.irr().is_empty());
}

#[test]
fn a_request_masked_before_its_acknowledge_gives_the_spurious_vector() {
    let mut apic = xapic();
    let _ = write(&mut apic, reg::SVR, 0x1ef);
    apic.accept(0x41, EDGE);
    assert_eq!(apic.deliverable(), Some(0x41), "INTR is up");
    let _ = write(&mut apic, reg::TPR, 0x40);
    assert_eq!(apic.acknowledge_late(), 0xef);
    assert!(apic.isr().is_empty(), "no EOI is due");
    let _ = write(&mut apic, reg::TPR, 0);
    assert_eq!(apic.acknowledge_late(), 0x41, "and nothing is lost");
}
