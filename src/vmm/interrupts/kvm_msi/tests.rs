use x86::apic::DeliveryMode;
use x86::ioapic::RedirectionEntry;

use super::*;

fn to(destination: Destination) -> Msi {
    encode(&Message { destination, mode: DeliveryMode::Fixed, vector: 0x41, trigger: TriggerMode::Edge })
}

#[test]
fn a_destination_is_split_into_its_low_byte_and_the_rest() {
    for (id, address) in [
        (0, 0x0000_0000_fee0_0000),
        (254, 0x0000_0000_feef_e000),
        (255, 0x0000_0000_feef_f000),
        (256, 0x0000_0100_fee0_0000),
        (300, 0x0000_0100_fee2_c000),
        (32766, 0x0000_7f00_feef_e000),
        (u32::MAX, 0xffff_ff00_feef_f000),
    ] {
        assert_eq!(to(Destination::Physical(id)), Msi { address, data: 0x4041 }, "ID {id}");
        assert_eq!(to(Destination::Logical(id)), Msi { address: address | 4, data: 0x4041 }, "mask {id:#x}");
    }
}

#[test]
fn the_two_broadcasts_stay_what_they_are() {
    assert_eq!(to(Destination::Broadcast), to(Destination::Physical(u32::MAX)));
    assert_eq!(to(Destination::Byte255 { logical: false }), to(Destination::Physical(0xff)));
    assert_eq!(to(Destination::Byte255 { logical: true }), to(Destination::Logical(0xff)));
}

/// KVM reads bits 39:32 of the address as reserved, and refuses the message if they are not zero.
#[test]
fn reserved_bits_stay_clear() {
    for id in 0..=0x7fff {
        let Msi { address, data } = to(Destination::Physical(id));
        assert_eq!((address >> 32 & 0xff, address & 0xff7, data & !0xc7ff), (0, 0, 0), "ID {id}");
    }
}

#[test]
fn what_a_redirection_entry_says_arrives() {
    for mode in [DeliveryMode::Fixed, DeliveryMode::LowestPriority, DeliveryMode::Nmi] {
        for level in [false, true] {
            let entry = RedirectionEntry::new()
                .with_vector(0x51)
                .with_delivery_mode(mode as u8)
                .with_level(level)
                .with_logical(true)
                .with_destination(0x2c)
                .with_ext_destination(1);
            let message = Message::from_redirection(entry).expect("no reserved mode");
            let Msi { address, data } = encode(&message);
            assert_eq!(address, 0x0000_0100_fee2_c004);
            // An NMI is an edge whatever the entry says.
            let level = level && mode != DeliveryMode::Nmi;
            assert_eq!(data, 0x4051 | (mode as u32) << 8 | u32::from(level) << 15, "{mode:?}, level {level}");
        }
    }
}
