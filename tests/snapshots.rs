//! The chips' snapshots as text: what serialises comes back the same. tests/reference_*.rs restore from snapshots in the
//! middle of their traces; the chips' own tests have the states that are refused.

use irqchip::ioapic::{self, IoApic};
use irqchip::lapic::{self, Config, LocalApic};
use irqchip::mailbox::{self, Mailbox};
use irqchip::pic::{self, PicPair, PicPort};
use irqchip::{Accepted, Message};
use x86::apic::{TriggerMode, reg};
use x86::ioapic::{IOREGSEL, IOWIN, REG_TABLE};

fn through_text<T: serde::Serialize + serde::de::DeserializeOwned>(state: &T) -> T {
    let text = serde_json::to_string(state).expect("plain data");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_pair_of_pics() {
    let mut pics = PicPair::new();
    for (port, value) in [
        (PicPort::MasterCommand, 0x11),
        (PicPort::MasterData, 0x30),
        (PicPort::MasterData, 0x04),
        (PicPort::MasterData, 0x03),
        (PicPort::MasterCommand, 0x80),
        (PicPort::SlaveCommand, 0x11),
        (PicPort::SlaveData, 0x38),
        (PicPort::ElcrSlave, 0x0e),
    ] {
        pics.write(port, value);
    }
    pics.set_line(4, true);
    pics.set_line(10, true);
    let state: pic::State = through_text(&pics.save());
    assert_eq!(PicPair::restore(&state), Ok(pics));
}

#[test]
fn an_ioapic() {
    let mut chip = IoApic::new(3);
    let mut sink = |_: &Message| Accepted::Yes;
    chip.write(0, IOREGSEL, &[REG_TABLE + 20], &mut sink);
    chip.write(0, IOWIN, &0x8051_u32.to_le_bytes(), &mut sink);
    chip.set_line(10, true, &mut sink);
    chip.set_line(11, true, &mut sink);
    let state: ioapic::State = through_text(&chip.save());
    assert!(state.pins[10].entry & 1 << 14 != 0, "in service");
    assert_eq!(IoApic::restore(3, &state), Ok(chip));
}

#[test]
fn a_local_apic_and_its_mailbox() {
    let config = Config { id: 0x1_0005, bsp: false, x2apic: true, tsc_deadline: true, cmci: true, physical_bits: 52 };
    let mut apic = LocalApic::new(config);
    let _ = apic.enter_virtual_wire_mode();
    let _ = apic.write_mmio(0, reg::LVT_TIMER.into(), &0x2_0041_u32.to_le_bytes());
    let _ = apic.write_mmio(u64::MAX / 2, reg::TIMER_INITIAL.into(), &u32::MAX.to_le_bytes());
    apic.accept(0xff, TriggerMode::Level);
    let state: lapic::State = through_text(&apic.save());
    assert_eq!(LocalApic::restore(config, &state), Ok(apic));

    let mailbox = Mailbox::default();
    mailbox.wait_for_start_up();
    let _ = mailbox.post(0x31, TriggerMode::Edge);
    let _ = mailbox.post(0xff, TriggerMode::Level);
    let _ = mailbox.post_nmi();
    let _ = mailbox.post_init();
    let _ = mailbox.post_start_up(0x9a);
    let _ = mailbox.post_lint0(true);
    let state: mailbox::State = through_text(&mailbox.save());
    let restored = Mailbox::restore(&state);
    assert_eq!(restored.save(), state);
    let take = |mailbox: &Mailbox| {
        let mut words = Vec::new();
        let events = mailbox.take(|word, edge, level| words.push((word, edge, level)));
        (words, events)
    };
    assert_eq!(take(&restored), take(&mailbox));
    assert_eq!(restored.save(), mailbox.save());
}
