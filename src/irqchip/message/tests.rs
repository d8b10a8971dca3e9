//! Decoding of destinations, redirection entries and MSIs.

use super::*;

const LEVEL: u32 = 1 << 15;
const ASSERT: u32 = 1 << 14;

fn entry(low: u64, destination: u64) -> RedirectionEntry {
    RedirectionEntry::from_bits(destination << 56 | low)
}

#[test]
fn all_ones_is_the_broadcast_of_each_width() {
    for logical in [false, true] {
        assert_eq!(Destination::from_u8(0xff, logical), Destination::Broadcast);
        assert_eq!(Destination::from_u32(u32::MAX, logical), Destination::Broadcast);
        assert_eq!(Destination::from_u15(0xff, 0, logical), Destination::Byte255 { logical });
    }
    assert_eq!(Destination::from_u32(0xff, false), Destination::Physical(0xff));
    assert_eq!(Destination::from_u15(0xff, 1, false), Destination::Physical(0x1ff), "ID 511, of the extension");
    assert_eq!(Destination::from_u15(0x21, 0x7f, true), Destination::Logical(0x7f21));
    assert_eq!(Destination::from_u8(0x21, true), Destination::Logical(0x21));
}

#[test]
fn a_redirection_entry_keeps_its_trigger_mode_for_interrupts_only() {
    for (mode, expected) in [
        (0, Some((DeliveryMode::Fixed, TriggerMode::Level))),
        (1, Some((DeliveryMode::LowestPriority, TriggerMode::Level))),
        (2, Some((DeliveryMode::Smi, TriggerMode::Edge))),
        (3, None),
        (4, Some((DeliveryMode::Nmi, TriggerMode::Edge))),
        (5, Some((DeliveryMode::Init, TriggerMode::Edge))),
        (6, None),
        (7, Some((DeliveryMode::ExtInt, TriggerMode::Edge))),
    ] {
        let message = Message::from_redirection(entry(u64::from(LEVEL) | mode << 8 | 0x45, 3));
        let expected = expected.map(|(mode, trigger)| Message {
            destination: Destination::Physical(3),
            mode,
            vector: 0x45,
            trigger,
        });
        assert_eq!(message, expected, "mode {mode}");
    }
    let edge = Message::from_redirection(entry(1 << 11 | 0x45, 3));
    let logical = Destination::Logical(3);
    let fixed = Message { destination: logical, mode: DeliveryMode::Fixed, vector: 0x45, trigger: TriggerMode::Edge };
    assert_eq!(edge, Some(fixed));
}

#[test]
fn an_msi_address_says_to_whom() {
    for (address, destination) in [
        (0xfee0_0000, Destination::Physical(0)),
        (0xfee1_2000, Destination::Physical(0x12)),
        (0xfee1_2004, Destination::Logical(0x12)),
        (0xfeef_f000, Destination::Byte255 { logical: false }),
        (0xfeef_f004, Destination::Byte255 { logical: true }),
        (0xfee1_2020, Destination::Physical(0x112)),
    ] {
        assert_eq!(Message::from_msi(address, 0x45).map(|m| m.destination), Some(destination), "{address:#x}");
    }
}

#[test]
fn writes_elsewhere_are_no_interrupt_messages() {
    for address in [0, 0xfed0_0000, 0xfef0_0000, 0x1_fee0_0000, u64::MAX] {
        assert_eq!(Message::from_msi(address, 0x45), None, "{address:#x}");
    }
}

#[test]
fn the_redirection_hint_asks_for_the_lowest_priority() {
    let mode = |address, data| Message::from_msi(address, data).map(|m| m.mode);
    assert_eq!(mode(0xfee0_0008, 0x45), Some(DeliveryMode::LowestPriority));
    assert_eq!(mode(0xfee0_0000, 0x45), Some(DeliveryMode::Fixed));
    assert_eq!(mode(0xfee0_0008, 0x445), Some(DeliveryMode::Nmi), "only of fixed interrupts");
    assert_eq!(mode(0xfee0_0000, 0x345), None, "reserved");
    assert_eq!(mode(0xfee0_0000, 0x645), None, "start-up is for processors to send");
}

#[test]
fn a_level_msi_counts_when_it_asserts() {
    let trigger = |data| Message::from_msi(0xfee0_0000, data).map(|m| m.trigger);
    assert_eq!(trigger(LEVEL | ASSERT | 0x45), Some(TriggerMode::Level));
    assert_eq!(trigger(LEVEL | 0x45), None, "de-assert");
    assert_eq!(trigger(0x45), Some(TriggerMode::Edge));
    assert_eq!(trigger(ASSERT | 0x45), Some(TriggerMode::Edge));
    assert_eq!(trigger(LEVEL | 0x445), Some(TriggerMode::Edge), "an NMI is an edge whatever it says");
}
