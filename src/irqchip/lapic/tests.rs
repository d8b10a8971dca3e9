//! Acceptance, priorities, EOI, the two ways to disable, IA32_APIC_BASE, INIT and reset.

use x86::apic::{TriggerMode, reg};

use super::*;

pub(super) const EDGE: TriggerMode = TriggerMode::Edge;
pub(super) const LEVEL: TriggerMode = TriggerMode::Level;
pub(super) const ENABLE: u64 = ApicBase::ENABLE.bits();
pub(super) const EXTD: u64 = ApicBase::X2APIC.bits();
pub(super) const BSP: u64 = ApicBase::BSP.bits();
pub(super) const MASKED: u32 = 1 << 16;

/// APIC ID 0x25 of a bootstrap processor with every feature but CMCI.
pub(super) fn config() -> Config {
    Config { id: 0x25, bsp: true, x2apic: true, tsc_deadline: true, cmci: false, physical_bits: 40 }
}

/// In xAPIC mode, software-enabled.
pub(super) fn xapic() -> LocalApic {
    let mut apic = LocalApic::new(config());
    assert_eq!(write(&mut apic, reg::SVR, 0x1ff), Effect::Readdressed);
    apic
}

/// In x2APIC mode, software-enabled.
pub(super) fn x2apic() -> LocalApic {
    let mut apic = xapic();
    assert_eq!(apic.write_base(apic.base() | EXTD), Ok(Effect::Readdressed));
    apic
}

/// An aligned 32-bit register read in xAPIC mode at time 0.
pub(super) fn read(apic: &mut LocalApic, offset: u32) -> u32 {
    let mut bytes = [0xaa; 4];
    apic.read_mmio(0, offset.into(), &mut bytes);
    u32::from_le_bytes(bytes)
}

/// An aligned 32-bit register write in xAPIC mode at time 0.
pub(super) fn write(apic: &mut LocalApic, offset: u32, value: u32) -> Effect {
    apic.write_mmio(0, offset.into(), &value.to_le_bytes())
}

/// The MSR of the register that has this xAPIC offset.
pub(super) fn msr(offset: u32) -> u32 {
    0x800 + (offset >> 4)
}

/// Posts and collects.
pub(super) fn post(apic: &mut LocalApic, vector: u8, trigger: TriggerMode) {
    let mailbox = Mailbox::default();
    let _ = mailbox.post(vector, trigger);
    let _ = apic.collect(&mailbox);
}

/// Accepts and delivers `vector`, which must be deliverable.
pub(super) fn service(apic: &mut LocalApic, vector: u8, trigger: TriggerMode) {
    apic.accept(vector, trigger);
    assert_eq!(apic.acknowledge(), Some(vector));
}

fn vectors(set: &Vectors) -> Vec<u8> {
    (0..=255).filter(|&vector| set.contains(vector)).collect()
}

#[test]
fn a_request_waits_in_irr_and_delivery_moves_it_to_isr() {
    let mut apic = xapic();
    post(&mut apic, 0x41, EDGE);
    assert_eq!((vectors(apic.irr()), vectors(apic.isr())), (vec![0x41], vec![]));
    assert_eq!(apic.acknowledge(), Some(0x41));
    assert_eq!((vectors(apic.irr()), vectors(apic.isr())), (vec![], vec![0x41]));
    assert_eq!(apic.acknowledge(), None);
}

#[test]
fn the_highest_vector_goes_first_and_only_a_higher_class_interrupts_it() {
    let mut apic = xapic();
    for vector in [0x31, 0x52, 0x5f, 0x30] {
        post(&mut apic, vector, EDGE);
    }
    assert_eq!(apic.acknowledge(), Some(0x5f));
    assert_eq!(apic.deliverable(), None, "0x52 is in the class in service");
    post(&mut apic, 0x60, EDGE);
    assert_eq!(apic.acknowledge(), Some(0x60));
    let _ = apic.eoi();
    let _ = apic.eoi();
    assert_eq!(apic.acknowledge(), Some(0x52));
    let _ = apic.eoi();
    assert_eq!(apic.acknowledge(), Some(0x31));
}

#[test]
fn a_vector_in_service_can_be_requested_once_more() {
    let mut apic = xapic();
    service(&mut apic, 0x41, EDGE);
    post(&mut apic, 0x41, EDGE);
    post(&mut apic, 0x41, EDGE);
    assert_eq!(apic.deliverable(), None);
    let _ = apic.eoi();
    assert_eq!(apic.acknowledge(), Some(0x41));
    let _ = apic.eoi();
    assert_eq!(apic.acknowledge(), None, "two requests while one waits are one");
}

#[test]
fn ppr_is_the_higher_of_task_priority_and_service_class() {
    // TPR, vector in service, PPR.
    for (tpr, in_service, ppr) in [
        (0x00, None, 0x00),
        (0x23, None, 0x23),
        (0x00, Some(0x47), 0x40),
        (0x3f, Some(0x47), 0x40),
        (0x45, Some(0x47), 0x45),
        (0x52, Some(0x47), 0x52),
    ] {
        let mut apic = xapic();
        if let Some(vector) = in_service {
            service(&mut apic, vector, EDGE);
        }
        assert_eq!(write(&mut apic, reg::TPR, tpr), Effect::None);
        assert_eq!((apic.ppr(), read(&mut apic, reg::PPR)), (ppr as u8, ppr), "TPR {tpr:#x}, ISR {in_service:x?}");
    }
}

#[test]
fn tpr_holds_back_its_class_and_those_below() {
    let mut apic = xapic();
    apic.accept(0x5f, EDGE);
    for (tpr, through) in [(0x4f, true), (0x50, false), (0x60, false), (0xff, false), (0x40, true)] {
        let _ = write(&mut apic, reg::TPR, tpr);
        assert_eq!(apic.deliverable().is_some(), through, "TPR {tpr:#x}");
        assert_eq!(apic.blocked_by_tpr(), !through, "TPR {tpr:#x}");
    }
}

#[test]
fn a_request_behind_one_in_service_is_not_blocked_by_tpr() {
    let mut apic = xapic();
    service(&mut apic, 0x51, EDGE);
    apic.accept(0x50, EDGE);
    let _ = write(&mut apic, reg::TPR, 0xf0);
    assert!(!apic.blocked_by_tpr(), "lowering TPR would not help");
    apic.accept(0x60, EDGE);
    assert!(apic.blocked_by_tpr());
}

#[test]
fn cr8_is_the_task_priority_class() {
    let mut apic = xapic();
    let _ = write(&mut apic, reg::TPR, 0x5b);
    assert_eq!(apic.cr8(), 5);
    apic.set_cr8(5);
    assert_eq!(apic.tpr(), 0x5b, "nothing was written: the sub-class stays");
    apic.set_cr8(7);
    assert_eq!((apic.tpr(), read(&mut apic, reg::TPR)), (0x70, 0x70), "a write clears the sub-class");
    apic.set_cr8(0);
    assert_eq!(apic.tpr(), 0);
}

#[test]
fn tmr_follows_each_acceptance() {
    let mut apic = xapic();
    post(&mut apic, 0x41, LEVEL);
    assert!(apic.tmr().contains(0x41));
    post(&mut apic, 0x41, EDGE);
    assert!(!apic.tmr().contains(0x41));
    post(&mut apic, 0x41, LEVEL);
    assert_eq!(read(&mut apic, reg::TMR + 0x20), 1 << 1);
}

#[test]
fn of_an_edge_and_a_level_request_collected_together_the_level_counts() {
    let mut apic = xapic();
    let mailbox = Mailbox::default();
    let _ = mailbox.post(0x41, LEVEL);
    let _ = mailbox.post(0x41, EDGE);
    let _ = apic.collect(&mailbox);
    assert_eq!(apic.acknowledge(), Some(0x41));
    assert_eq!(apic.eoi(), Effect::Eoi(0x41), "an I/O APIC waits for it");
}

#[test]
fn vectors_below_16_never_reach_irr() {
    let mut apic = xapic();
    let mailbox = Mailbox::default();
    for vector in [0, 15, 16] {
        let _ = mailbox.post(vector, EDGE);
        let _ = mailbox.post(vector, LEVEL);
    }
    let _ = apic.collect(&mailbox);
    assert_eq!((vectors(apic.irr()), vectors(apic.tmr())), (vec![16], vec![16]));
    apic.accept(15, LEVEL);
    assert_eq!((vectors(apic.irr()), vectors(apic.tmr())), (vec![16], vec![16]));
}

#[test]
fn eoi_ends_the_highest_in_service_whatever_is_written() {
    let mut apic = xapic();
    service(&mut apic, 0x31, EDGE);
    service(&mut apic, 0x82, EDGE);
    assert_eq!(write(&mut apic, reg::EOI, 0xdead_beef), Effect::None);
    assert_eq!(vectors(apic.isr()), [0x31]);
    let _ = apic.eoi();
    assert!(apic.isr().is_empty());
    assert_eq!(apic.eoi(), Effect::None, "nothing in service: nothing happens");
}

#[test]
fn only_the_eoi_of_a_level_interrupt_reaches_the_io_apics() {
    let mut apic = xapic();
    service(&mut apic, 0x31, LEVEL);
    service(&mut apic, 0x42, EDGE);
    assert_eq!(write(&mut apic, reg::EOI, 0), Effect::None);
    assert_eq!(write(&mut apic, reg::EOI, 0), Effect::Eoi(0x31));
}

#[test]
fn eoi_broadcast_is_suppressed_by_svr_bit_12() {
    let mut apic = xapic();
    let _ = write(&mut apic, reg::SVR, 0x11ff);
    assert_eq!(read(&mut apic, reg::SVR), 0x11ff);
    service(&mut apic, 0x31, LEVEL);
    assert_eq!(write(&mut apic, reg::EOI, 0), Effect::None);
    assert!(apic.isr().is_empty());
    let _ = write(&mut apic, reg::SVR, 0x1ff);
    service(&mut apic, 0x31, LEVEL);
    assert_eq!(write(&mut apic, reg::EOI, 0), Effect::Eoi(0x31));
}

#[test]
fn software_disable_masks_every_lvt_entry_for_good() {
    let mut apic = LocalApic::new(Config { cmci: true, ..config() });
    let entries = [0x2f0, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370];
    let _ = write(&mut apic, reg::SVR, 0x1ff);
    for offset in entries {
        let _ = write(&mut apic, offset, 0x55);
        assert_eq!(read(&mut apic, offset), 0x55);
    }
    assert_eq!(write(&mut apic, reg::SVR, 0xff), Effect::Readdressed);
    assert!(!apic.address().enabled);
    for offset in entries {
        assert_eq!(read(&mut apic, offset), MASKED | 0x55);
        let _ = write(&mut apic, offset, 0x66);
        assert_eq!(read(&mut apic, offset), MASKED | 0x66, "the mask can't be cleared");
    }
    assert_eq!(write(&mut apic, reg::SVR, 0x1ff), Effect::Readdressed);
    assert_eq!(read(&mut apic, reg::LVT_LINT0), MASKED | 0x66, "enabling unmasks nothing");
}

#[test]
fn software_disable_keeps_what_is_pending_and_in_service() {
    let mut apic = xapic();
    service(&mut apic, 0x41, LEVEL);
    apic.accept(0x61, EDGE);
    let _ = write(&mut apic, reg::SVR, 0xff);
    // Posted while it was enabled, seen after: held too (once thrown away in another VMM, which hung its guest).
    post(&mut apic, 0x71, EDGE);
    assert_eq!((vectors(apic.irr()), vectors(apic.isr())), (vec![0x61, 0x71], vec![0x41]));
    assert_eq!(apic.acknowledge(), Some(0x71), "the processor still handles it");
    let _ = apic.eoi();
    let _ = write(&mut apic, reg::SVR, 0x1ff);
    assert_eq!(apic.acknowledge(), Some(0x61));
    let _ = apic.eoi();
    assert_eq!(apic.eoi(), Effect::Eoi(0x41));
}

/// Found by the reference model: what was accepted directly while globally disabled sat in IRR, claimed to wait for a
/// lower TPR, and would have come as a ghost after the next enabling.
#[test]
fn a_request_to_a_globally_disabled_apic_is_no_ghost_after_the_next_enabling() {
    let mut apic = xapic();
    assert_eq!(apic.write_base(apic.base() & !ENABLE), Ok(Effect::Readdressed));
    apic.accept(0x71, LEVEL);
    apic.accept(3, EDGE);
    assert!(!apic.blocked_by_tpr());
    assert_eq!(apic.write_base(apic.base() | ENABLE), Ok(Effect::Readdressed));
    assert_eq!(apic.without_past(), LocalApic::new(config()));
}

#[test]
fn a_globally_disabled_apic_takes_and_gives_nothing() {
    let mut apic = xapic();
    service(&mut apic, 0x41, LEVEL);
    apic.accept(0x61, EDGE);
    assert_eq!(apic.write_base(apic.base() & !ENABLE), Ok(Effect::Readdressed));
    assert_eq!((apic.mode(), apic.mmio_page(), apic.address()), (Mode::Disabled, None, Address::DISABLED));
    let mailbox = Mailbox::default();
    let _ = mailbox.post(0x71, LEVEL);
    let _ = mailbox.post(3, EDGE);
    let _ = mailbox.post_extint();
    let _ = apic.collect(&mailbox);
    assert_eq!((apic.deliverable(), apic.extint_pending()), (None, false));
    // Nothing of it comes back with the APIC, whose state is that of a reset.
    assert_eq!(apic.write_base(apic.base() | ENABLE), Ok(Effect::Readdressed));
    assert_eq!(apic.without_past(), LocalApic::new(config()));
}

#[test]
fn apic_base_goes_only_where_the_state_diagram_allows() {
    use Mode::{Disabled, X2Apic, XApic};
    // From, EN and EXTD written, mode reached.
    for (from, bits, to) in [
        (Disabled, 0, Some(Disabled)),
        (Disabled, ENABLE, Some(XApic)),
        (Disabled, ENABLE | EXTD, None),
        (Disabled, EXTD, None),
        (XApic, 0, Some(Disabled)),
        (XApic, ENABLE, Some(XApic)),
        (XApic, ENABLE | EXTD, Some(X2Apic)),
        (XApic, EXTD, None),
        (X2Apic, 0, Some(Disabled)),
        (X2Apic, ENABLE, None),
        (X2Apic, ENABLE | EXTD, Some(X2Apic)),
        (X2Apic, EXTD, None),
    ] {
        let mut apic = if from == X2Apic { x2apic() } else { xapic() };
        let page = apic.base() & !(ENABLE | EXTD);
        if from == Disabled {
            assert_eq!(apic.write_base(page), Ok(Effect::Readdressed));
        }
        let before = apic.clone();
        let answer = apic.write_base(page | bits);
        match to {
            None => assert_eq!((answer, apic), (Err(Gp), before), "{from:?} {bits:#x}"),
            Some(mode) => {
                let changed = if mode == from { Effect::None } else { Effect::Readdressed };
                assert_eq!((answer, apic.mode(), apic.base()), (Ok(changed), mode, page | bits), "{from:?} {bits:#x}");
            }
        }
    }
}

#[test]
fn reserved_bits_of_apic_base_give_gp() {
    let mut apic = xapic();
    let base = apic.base();
    let before = apic.clone();
    for bit in (0..8).chain([9]).chain(40..64) {
        assert_eq!(apic.write_base(base | 1 << bit), Err(Gp), "bit {bit}");
    }
    assert_eq!(apic, before);
    let mut old = LocalApic::new(Config { x2apic: false, ..config() });
    assert_eq!(old.write_base(base | EXTD), Err(Gp), "CPUID does not offer x2APIC");
    let mut wide = LocalApic::new(Config { physical_bits: 52, ..config() });
    assert_eq!(wide.write_base(base | 1 << 51), Ok(Effect::None));
    assert_eq!(wide.write_base(base | 1 << 52), Err(Gp));
}

#[test]
fn the_register_page_can_be_moved() {
    let mut apic = xapic();
    assert_eq!(apic.mmio_page(), Some(0xfee0_0000));
    assert_eq!(apic.write_base(0x12_3456_7000 | ENABLE | BSP), Ok(Effect::None));
    assert_eq!((apic.mmio_page(), apic.base()), (Some(0x12_3456_7000), 0x12_3456_7000 | ENABLE | BSP));
    assert_eq!(x2apic().mmio_page(), None);
}

#[test]
fn the_bsp_flag_stays_what_it_is() {
    let mut bsp = LocalApic::new(config());
    assert_eq!(bsp.write_base(bsp.base() & !BSP), Ok(Effect::None));
    assert_eq!(bsp.base() & BSP, BSP);
    let mut ap = LocalApic::new(Config { bsp: false, ..config() });
    assert_eq!(ap.write_base(ap.base() | BSP), Ok(Effect::None));
    assert_eq!(ap.base() & BSP, 0);
}

#[test]
fn entering_x2apic_mode_keeps_the_registers_and_derives_the_logical_id() {
    let mut apic = xapic();
    service(&mut apic, 0x31, LEVEL);
    apic.accept(0x61, EDGE);
    let _ = write(&mut apic, reg::TPR, 0x20);
    let _ = write(&mut apic, reg::LDR, 0x0800_0000);
    let _ = write(&mut apic, reg::LVT_LINT1, 0x400);
    let _ = write(&mut apic, reg::ICR_HIGH, 0x1200_0000);
    let _ = apic.write_base(apic.base() | EXTD);
    let read = |apic: &mut LocalApic, offset| apic.read_msr(0, msr(offset));
    assert_eq!(read(&mut apic, reg::ID), Ok(0x25));
    assert_eq!(read(&mut apic, reg::LDR), Ok(0x0002_0020));
    assert_eq!(read(&mut apic, reg::TPR), Ok(0x20));
    assert_eq!(read(&mut apic, reg::SVR), Ok(0x1ff));
    assert_eq!(read(&mut apic, reg::LVT_LINT1), Ok(0x400));
    assert_eq!(read(&mut apic, reg::ICR_LOW), Ok(0), "the xAPIC destination is none here");
    assert_eq!(apic.acknowledge(), Some(0x61));
    assert_eq!((apic.eoi(), apic.eoi()), (Effect::None, Effect::Eoi(0x31)));
}

#[test]
fn leaving_x2apic_mode_loses_everything_but_the_id() {
    let mut apic = x2apic();
    apic.accept(0x61, EDGE);
    assert_eq!(apic.write_base(apic.base() & !(ENABLE | EXTD)), Ok(Effect::Readdressed));
    assert_eq!(apic.write_base(apic.base() | ENABLE), Ok(Effect::Readdressed));
    assert_eq!(apic.without_past(), LocalApic::new(config()));
}

/// Uses every register that INIT resets.
fn used(mut apic: LocalApic) -> LocalApic {
    service(&mut apic, 0x31, LEVEL);
    apic.accept(0x61, LEVEL);
    apic.accept(2, EDGE);
    for (offset, value) in [
        (reg::TPR, 0x20),
        (reg::LVT_TIMER, 0x20051),
        (reg::LVT_LINT0, 0x8400),
        (reg::TIMER_DIVIDE, 0xb),
        (reg::TIMER_INITIAL, 1000),
        (reg::ESR, 0),
    ] {
        match apic.mode() {
            Mode::X2Apic => assert!(apic.write_msr(0, msr(offset), value).is_ok()),
            _ => assert_eq!(write(&mut apic, offset, value as u32), Effect::None),
        }
    }
    apic.accept(3, EDGE);
    let mailbox = Mailbox::default();
    let _ = mailbox.post_extint();
    let _ = apic.collect(&mailbox);
    apic
}

#[test]
fn init_puts_back_everything_but_mode_id_and_base() {
    let mut apic = used(xapic());
    let _ = write(&mut apic, reg::LDR, 0x0800_0000);
    let _ = write(&mut apic, reg::DFR, 0);
    let _ = apic.write_base(0x12_3456_7000 | ENABLE | BSP);
    apic.init();
    assert_eq!(apic.base(), 0x12_3456_7000 | ENABLE | BSP);
    let _ = apic.write_base(0xfee0_0000 | ENABLE | BSP);
    assert_eq!(apic.without_past(), LocalApic::new(config()), "as after a reset");

    let mut apic = used(x2apic());
    apic.init();
    assert_eq!(apic.mode(), Mode::X2Apic);
    assert_eq!(apic.read_msr(0, msr(reg::ID)), Ok(0x25));
    assert_eq!(apic.read_msr(0, msr(reg::LDR)), Ok(0x0002_0020));
    let mut fresh = LocalApic::new(config());
    let _ = fresh.write_base(fresh.base() | EXTD);
    assert_eq!(apic.without_past(), fresh);
    assert_eq!(apic.next_deadline(), None);
}

#[test]
fn registers_after_reset_are_as_the_manual_lists() {
    let mut apic = LocalApic::new(config());
    for (offset, value) in [
        (reg::ID, 0x2500_0000),
        (reg::TPR, 0),
        (reg::APR, 0),
        (reg::PPR, 0),
        (reg::LDR, 0),
        (reg::DFR, u32::MAX),
        (reg::SVR, 0xff),
        (reg::ESR, 0),
        (reg::ICR_LOW, 0),
        (reg::ICR_HIGH, 0),
        (reg::LVT_TIMER, MASKED),
        (reg::LVT_THERMAL, MASKED),
        (reg::LVT_PERF, MASKED),
        (reg::LVT_LINT0, MASKED),
        (reg::LVT_LINT1, MASKED),
        (reg::LVT_ERROR, MASKED),
        (reg::TIMER_INITIAL, 0),
        (reg::TIMER_CURRENT, 0),
        (reg::TIMER_DIVIDE, 0),
    ] {
        assert_eq!(read(&mut apic, offset), value, "register {offset:#x}");
    }
    for offset in (reg::ISR..reg::ESR).step_by(16) {
        assert_eq!(read(&mut apic, offset), 0, "register {offset:#x}");
    }
    assert_eq!(apic.base(), 0xfee0_0000 | ENABLE | BSP);
    assert_eq!(apic.address(), Address { present: true, id: 0x25, logical: LogicalId::Flat(0), enabled: false });
}

#[test]
fn an_id_above_255_is_never_taken_for_its_low_byte() {
    let mut apic = LocalApic::new(Config { id: 0x1_0023, ..config() });
    assert_eq!(read(&mut apic, reg::ID), 0x2300_0000);
    assert_eq!(apic.address().id, 0x1_0023);
    let _ = apic.write_base(apic.base() | EXTD);
    assert_eq!(apic.read_msr(0, msr(reg::ID)), Ok(0x1_0023));
    assert_eq!(apic.address().logical, LogicalId::X2Apic(0x1002 << 16 | 1 << 3));
}

#[test]
fn logical_ids_follow_ldr_and_dfr() {
    let mut apic = xapic();
    assert_eq!(write(&mut apic, reg::LDR, 0x34ff_ffff), Effect::Readdressed);
    assert_eq!(read(&mut apic, reg::LDR), 0x3400_0000);
    for (dfr, logical) in [
        (0xffff_ffff, LogicalId::Flat(0x34)),
        (0x0000_0000, LogicalId::Cluster(0x34)),
        (0x7fff_ffff, LogicalId::None),
        (0x1000_0000, LogicalId::None),
    ] {
        assert_eq!(write(&mut apic, reg::DFR, dfr), Effect::Readdressed);
        assert_eq!(read(&mut apic, reg::DFR), dfr | 0x0fff_ffff);
        assert_eq!(apic.address().logical, logical);
    }
}

#[test]
fn smis_are_counted_and_nothing_else() {
    let mut apic = xapic();
    let before = apic.clone();
    let mailbox = Mailbox::default();
    let _ = mailbox.post_smi();
    assert!(apic.collect(&mailbox).smi);
    assert_eq!((apic.smis(), apic.deliverable(), apic.take_nmi()), (before.smis() + 1, None, false));
}

#[test]
fn an_extint_message_is_pending_until_it_is_acknowledged() {
    let mut apic = xapic();
    assert!(!apic.extint_pending());
    let mailbox = Mailbox::default();
    let _ = mailbox.post_extint();
    let _ = apic.collect(&mailbox);
    assert!(apic.extint_pending());
    let _ = write(&mut apic, reg::TPR, 0xff);
    assert!(apic.extint_pending(), "priorities don't touch it");
    apic.extint_acknowledged();
    assert!(!apic.extint_pending());
}
