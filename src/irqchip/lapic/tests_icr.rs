//! The interrupt command register and SELF IPI: what is sent, to whom, and what is not.

use x86::apic::{DeliveryMode, Shorthand, reg};

use super::tests::*;
use super::*;
use crate::message::{Destination, Message};

const MODES: [DeliveryMode; 8] = [
    DeliveryMode::Fixed,
    DeliveryMode::LowestPriority,
    DeliveryMode::Smi,
    DeliveryMode::RemoteRead,
    DeliveryMode::Nmi,
    DeliveryMode::Init,
    DeliveryMode::StartUp,
    DeliveryMode::ExtInt,
];

fn ipi(shorthand: Shorthand, mode: DeliveryMode, vector: u8, destination: Destination) -> Effect {
    Effect::Ipi(Ipi { shorthand, message: Message { destination, mode, vector, trigger: EDGE } })
}

#[test]
fn each_mode_is_sent_to_a_destination_or_to_all_but_self() {
    for (bits, shorthand) in [(0, Shorthand::None), (3, Shorthand::AllButSelf)] {
        for mode in MODES {
            let value = bits << 18 | 1 << 14 | (mode as u32) << 8 | 0x45;
            let sent = match mode {
                DeliveryMode::RemoteRead | DeliveryMode::ExtInt => Effect::None,
                _ => ipi(shorthand, mode, 0x45, Destination::Physical(0x12)),
            };
            let mut apic = xapic();
            let _ = write(&mut apic, reg::ICR_HIGH, 0x1200_0000);
            assert_eq!(write(&mut apic, reg::ICR_LOW, value), sent, "{mode:?} {shorthand:?}");
            let mut apic = x2apic();
            assert_eq!(apic.write_msr(0, 0x830, 0x12 << 32 | u64::from(value)), Ok(sent), "{mode:?} {shorthand:?}");
        }
    }
}

#[test]
fn shorthands_that_include_the_sender_take_fixed_only() {
    for mode in MODES {
        let fixed = mode == DeliveryMode::Fixed;
        let mut apic = xapic();
        let low = 1 << 14 | (mode as u32) << 8 | 0x45;
        assert_eq!(write(&mut apic, reg::ICR_LOW, 1 << 18 | low), Effect::None);
        assert_eq!(apic.deliverable(), fixed.then_some(0x45), "self, {mode:?}");
        let sent = ipi(Shorthand::All, mode, 0x45, Destination::Physical(0));
        let mut apic = xapic();
        assert_eq!(write(&mut apic, reg::ICR_LOW, 2 << 18 | low), if fixed { sent } else { Effect::None }, "{mode:?}");
        assert_eq!(apic.deliverable(), None, "the bus brings the sender's own copy");
    }
}

#[test]
fn every_ipi_is_an_edge() {
    let mut apic = xapic();
    for level_and_assert in [0, 1 << 14, 1 << 15, 3 << 14] {
        let sent = ipi(Shorthand::None, DeliveryMode::Fixed, 0x45, Destination::Physical(0));
        assert_eq!(write(&mut apic, reg::ICR_LOW, level_and_assert | 0x45), sent);
    }
}

#[test]
fn only_the_level_deassert_of_init_is_nothing() {
    let mut apic = xapic();
    let init = |low| low | (DeliveryMode::Init as u32) << 8;
    let sent = ipi(Shorthand::None, DeliveryMode::Init, 0, Destination::Physical(0));
    assert_eq!(write(&mut apic, reg::ICR_LOW, init(1 << 15)), Effect::None, "level, de-assert");
    assert_eq!(write(&mut apic, reg::ICR_LOW, init(2 << 18 | 1 << 15)), Effect::None, "to all");
    assert_eq!(write(&mut apic, reg::ICR_LOW, init(3 << 14)), sent, "level, assert");
    assert_eq!(write(&mut apic, reg::ICR_LOW, init(1 << 14)), sent, "edge");
    assert_eq!(write(&mut apic, reg::ICR_LOW, init(0)), sent, "edge: the level does not count");
}

#[test]
fn xapic_destinations_are_8_bits() {
    for (high, logical, destination) in [
        (0x12ff_ffff, 0, Destination::Physical(0x12)),
        (0x12ff_ffff, 1 << 11, Destination::Logical(0x12)),
        (0xff00_0000, 0, Destination::Broadcast),
        (0xff00_0000, 1 << 11, Destination::Broadcast),
        (0, 1 << 11, Destination::Logical(0)),
    ] {
        let mut apic = xapic();
        let _ = write(&mut apic, reg::ICR_HIGH, high);
        let sent = ipi(Shorthand::None, DeliveryMode::Fixed, 0x45, destination);
        assert_eq!(write(&mut apic, reg::ICR_LOW, logical | 0x45), sent);
    }
}

#[test]
fn x2apic_destinations_are_32_bits() {
    for (high, logical, destination) in [
        (0x0102_0304, 0, Destination::Physical(0x0102_0304)),
        (0x0102_0304, 1 << 11, Destination::Logical(0x0102_0304)),
        (0xff, 0, Destination::Physical(0xff)),
        (0xff00_0000, 0, Destination::Physical(0xff00_0000)),
        (0xffff_ffff, 0, Destination::Broadcast),
        (0xffff_ffff, 1 << 11, Destination::Broadcast),
    ] {
        let sent = ipi(Shorthand::None, DeliveryMode::Fixed, 0x45, destination);
        assert_eq!(x2apic().write_msr(0, 0x830, high << 32 | logical | 0x45), Ok(sent));
    }
}

#[test]
fn icr_is_read_back_idle_and_without_reserved_bits() {
    let mut apic = xapic();
    let _ = write(&mut apic, reg::ICR_HIGH, 0x12ff_ffff);
    let _ = write(&mut apic, reg::ICR_LOW, 0xffff_ffff);
    assert_eq!(read(&mut apic, reg::ICR_LOW), 0x000c_cfff);
    assert_eq!(read(&mut apic, reg::ICR_HIGH), 0x1200_0000);
    let mut apic = x2apic();
    let _ = apic.write_msr(0, 0x830, 0x0102_0304_0000_5045);
    assert_eq!(apic.read_msr(0, 0x830), Ok(0x0102_0304_0000_4045), "delivery status is idle at once");
}

#[test]
fn writing_the_high_half_sends_nothing_and_the_low_half_can_be_sent_again() {
    let mut apic = xapic();
    let _ = write(&mut apic, reg::ICR_LOW, 0x45);
    assert_eq!(write(&mut apic, reg::ICR_HIGH, 0x0100_0000), Effect::None);
    let sent = ipi(Shorthand::None, DeliveryMode::Fixed, 0x45, Destination::Physical(1));
    assert_eq!(write(&mut apic, reg::ICR_LOW, 0x45), sent);
    assert_eq!(write(&mut apic, reg::ICR_LOW, 0x45), sent);
}

#[test]
fn a_self_ipi_is_requested_at_once() {
    let mut apic = xapic();
    assert_eq!(write(&mut apic, reg::ICR_LOW, 1 << 18 | 0x45), Effect::None);
    assert_eq!(apic.deliverable(), Some(0x45));
    let mut apic = x2apic();
    assert_eq!(apic.write_msr(0, 0x83f, 0x46), Ok(Effect::None));
    assert_eq!(apic.acknowledge(), Some(0x46));
    assert_eq!(apic.eoi(), Effect::None, "an edge");
}

#[test]
fn a_software_disabled_apic_sends_but_does_not_accept_its_own() {
    let mut apic = LocalApic::new(config());
    assert_eq!(write(&mut apic, reg::ICR_LOW, 1 << 18 | 0x45), Effect::None);
    assert!(apic.irr().is_empty());
    assert_ne!(write(&mut apic, reg::ICR_LOW, 0x45), Effect::None);
}

#[test]
fn an_illegal_vector_is_an_error_for_interrupts_only() {
    for mode in MODES {
        for vector in [0xf, 0x10] {
            let mut apic = xapic();
            let effect = write(&mut apic, reg::ICR_LOW, 1 << 14 | (mode as u32) << 8 | vector);
            let _ = write(&mut apic, reg::ESR, 0);
            let counts = matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority) && vector < 0x10;
            assert_eq!(read(&mut apic, reg::ESR), if counts { 0x20 } else { 0 }, "{mode:?} {vector:#x}");
            if counts {
                assert_ne!(effect, Effect::None, "the receivers note it too");
            }
        }
    }
    let mut apic = xapic();
    let _ = write(&mut apic, reg::ICR_LOW, 1 << 18 | 0xf);
    let _ = write(&mut apic, reg::ESR, 0);
    assert_eq!((read(&mut apic, reg::ESR), apic.irr().is_empty()), (0x60, true), "to self: sent and received");
}
