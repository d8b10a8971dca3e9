//! From messages and IPIs to mailboxes and kicks.

use x86::apic::{DeliveryMode, TriggerMode, reg};

use super::*;
use crate::destination::LogicalId;
use crate::lapic::{Config, Effect};

const EDGE: TriggerMode = TriggerMode::Edge;

fn address(index: usize) -> Address {
    Address { present: true, id: index as u32, logical: LogicalId::Flat(1 << (index & 7)), enabled: true }
}

fn bus(len: usize) -> ApicBus {
    ApicBus::new((0..len).map(address).collect())
}

fn message(destination: Destination, mode: DeliveryMode) -> Message {
    Message { destination, mode, vector: 0x45, trigger: EDGE }
}

fn fixed(destination: Destination) -> Message {
    message(destination, DeliveryMode::Fixed)
}

fn lowest(destination: Destination) -> Message {
    message(destination, DeliveryMode::LowestPriority)
}

/// Sends, and says whether it was accepted and who is to be kicked.
fn send(bus: &ApicBus, message: Message) -> (Accepted, Vec<usize>) {
    let mut kicks = Kicks::new();
    let accepted = bus.send(&message, &mut kicks);
    (accepted, drain(kicks))
}

fn drain(mut kicks: Kicks) -> Vec<usize> {
    let mut list = Vec::new();
    kicks.drain(|index| list.push(index));
    assert!(kicks.is_empty());
    list
}

/// Who has something in the mailbox; takes it.
fn posted(bus: &ApicBus) -> Vec<usize> {
    let has = |index: &usize| {
        let pending = bus.mailboxes()[*index].is_pending();
        bus.mailboxes()[*index].take(|_, _, _| {});
        pending
    };
    (0..bus.mailboxes().len()).filter(has).collect()
}

fn enabled_apic(id: u32) -> LocalApic {
    let mut apic =
        LocalApic::new(Config { id, bsp: false, x2apic: true, tsc_deadline: true, cmci: false, physical_bits: 40 });
    assert_eq!(apic.write_mmio(0, reg::SVR.into(), &0x1ffu32.to_le_bytes()), Effect::Readdressed);
    apic
}

/// APIC 1 of a bus sends an IPI; who is kicked.
fn send_ipi(bus: &ApicBus, sender: &mut LocalApic, shorthand: Shorthand, message: Message) -> Vec<usize> {
    let mut kicks = Kicks::new();
    bus.send_ipi(sender, 1, &Ipi { shorthand, message }, &mut kicks);
    drain(kicks)
}

#[test]
fn kicks_hold_any_index_and_each_once() {
    let mut kicks = Kicks::new();
    assert!(kicks.is_empty());
    for index in [63, 0, 64, 5, 5, 1000] {
        kicks.add(index);
    }
    assert!(!kicks.is_empty());
    let mut more = Kicks::new();
    [5, 4095, 70].into_iter().for_each(|index| more.add(index));
    more.append(&kicks);
    assert_eq!(drain(kicks), [0, 5, 63, 64, 1000]);
    assert_eq!(drain(more), [0, 5, 63, 64, 70, 1000, 4095]);
}

#[test]
fn a_message_is_posted_with_vector_and_trigger_mode() {
    let bus = bus(3);
    let level = Message { trigger: TriggerMode::Level, ..fixed(Destination::Physical(1)) };
    assert_eq!(send(&bus, level), (Accepted::Yes, vec![1]));
    let mut got = Vec::new();
    bus.mailboxes()[1].take(|word, edge, level| got.push((word, edge, level)));
    assert_eq!(got, [(1, 0, 1 << 5)]);
    assert_eq!(posted(&bus), [], "nobody else has it");
}

#[test]
fn nobody_there_is_not_accepted() {
    let bus = bus(3);
    for destination in [Destination::Physical(3), Destination::Physical(u32::MAX), Destination::Logical(0x80)] {
        for mode in [DeliveryMode::Fixed, DeliveryMode::LowestPriority, DeliveryMode::Nmi, DeliveryMode::Init] {
            assert_eq!(send(&bus, message(destination, mode)), (Accepted::No, vec![]));
        }
    }
    assert_eq!(posted(&bus), []);
}

#[test]
fn a_software_disabled_apic_takes_events_but_no_interrupts() {
    let bus = bus(2);
    bus.readdress(1, Address { enabled: false, ..address(1) });
    let to = Destination::Physical(1);
    for mode in [DeliveryMode::Fixed, DeliveryMode::LowestPriority, DeliveryMode::ExtInt] {
        assert_eq!(send(&bus, message(to, mode)), (Accepted::Disabled, vec![]), "{mode:?}");
    }
    for mode in [DeliveryMode::Nmi, DeliveryMode::Init, DeliveryMode::Smi] {
        assert_eq!(send(&bus, message(to, mode)), (Accepted::Yes, vec![1]), "{mode:?}");
        assert_eq!(posted(&bus), [1]);
    }
    bus.readdress(1, address(1));
    assert_eq!(send(&bus, fixed(to)), (Accepted::Yes, vec![1]), "enabled again");
}

#[test]
fn a_broadcast_interrupt_skips_the_disabled() {
    let bus = bus(4);
    bus.readdress(0, Address::DISABLED);
    bus.readdress(2, Address { enabled: false, ..address(2) });
    assert_eq!(send(&bus, fixed(Destination::Broadcast)), (Accepted::Yes, vec![1, 3]));
    assert_eq!(posted(&bus), [1, 3]);
    assert_eq!(send(&bus, message(Destination::Broadcast, DeliveryMode::Nmi)).1, [1, 2, 3]);
}

#[test]
fn readdressing_moves_whom_a_destination_means() {
    let bus = bus(2);
    bus.readdress(0, Address { id: 9, logical: LogicalId::Cluster(0x21), ..address(0) });
    assert_eq!(send(&bus, fixed(Destination::Physical(0))), (Accepted::No, vec![]));
    assert_eq!(send(&bus, fixed(Destination::Physical(9))), (Accepted::Yes, vec![0]));
    assert_eq!(posted(&bus), [0]);
    assert_eq!(send(&bus, fixed(Destination::Logical(0x21))), (Accepted::Yes, vec![0]));
}

#[test]
fn each_event_goes_to_its_place_in_the_mailbox() {
    let bus = bus(1);
    let mailbox = &bus.mailboxes()[0];
    mailbox.wait_for_start_up();
    let to = Destination::Physical(0);
    for mode in [DeliveryMode::Smi, DeliveryMode::Nmi, DeliveryMode::Init, DeliveryMode::StartUp, DeliveryMode::ExtInt]
    {
        assert_eq!(send(&bus, message(to, mode)).0, Accepted::Yes);
    }
    let mut requests = 0;
    let events = mailbox.take(|_, _, _| requests += 1);
    assert_eq!(requests, 0);
    assert!(events.smi && events.nmis == 1 && events.init && events.extint);
    assert_eq!((events.start_up, events.lint0, events.attention), (Some(0x45), None, false));
}

#[test]
fn only_the_first_post_to_a_mailbox_owes_a_kick() {
    let bus = bus(2);
    assert_eq!(send(&bus, fixed(Destination::Broadcast)), (Accepted::Yes, vec![0, 1]));
    assert_eq!(send(&bus, fixed(Destination::Broadcast)), (Accepted::Merged, vec![]));
    assert_eq!(posted(&bus), [0, 1]);
    assert_eq!(send(&bus, fixed(Destination::Physical(1))).1, [1]);
}

#[test]
fn lowest_priority_goes_to_the_one_with_the_lowest_priority() {
    let bus = bus(4);
    for (index, ppr) in [0x50, 0x30, 0x2f, 0x40].into_iter().enumerate() {
        bus.mailboxes()[index].publish_priority(ppr);
    }
    for _ in 0..3 {
        assert_eq!(send(&bus, lowest(Destination::Broadcast)), (Accepted::Yes, vec![2]));
        assert_eq!(posted(&bus), [2]);
    }
    assert_eq!(send(&bus, lowest(Destination::Logical(0b1001))).1, [3], "of those addressed");
    let _ = posted(&bus);
    bus.readdress(2, Address { enabled: false, ..address(2) });
    assert_eq!(send(&bus, lowest(Destination::Broadcast)).1, [1], "of those enabled");
}

#[test]
fn equal_priorities_take_turns() {
    let bus = bus(4);
    // The sub-class does not count, so these are equals; 0 is busy.
    for (index, ppr) in [0x80, 0x21, 0x2f, 0x20].into_iter().enumerate() {
        bus.mailboxes()[index].publish_priority(ppr);
    }
    let turns: Vec<_> = (0..7)
        .flat_map(|_| {
            let _ = posted(&bus);
            send(&bus, lowest(Destination::Broadcast)).1
        })
        .collect();
    assert_eq!(turns, [1, 2, 3, 1, 2, 3, 1]);
}

/// Intel SDM vol. 3A, section "Local APIC State After It Has Been Software Disabled": they take no part in the arbitration.
#[test]
fn the_software_disabled_never_win_the_arbitration() {
    let bus = bus(4);
    for (index, ppr) in [0x00, 0x40, 0x00, 0x50].into_iter().enumerate() {
        bus.mailboxes()[index].publish_priority(ppr);
    }
    for index in [0, 2] {
        bus.readdress(index, Address { enabled: false, ..address(index) });
    }
    for _ in 0..3 {
        assert_eq!(send(&bus, lowest(Destination::Broadcast)), (Accepted::Yes, vec![1]));
        assert_eq!(posted(&bus), [1]);
    }
    for index in [1, 3] {
        bus.readdress(index, Address { enabled: false, ..address(index) });
    }
    assert_eq!(send(&bus, lowest(Destination::Broadcast)), (Accepted::Disabled, vec![]));
    assert!(posted(&bus).is_empty());
}

#[test]
fn all_but_self_is_everyone_else_whatever_the_destination() {
    let bus = bus(4);
    let mut sender = enabled_apic(1);
    for mode in [DeliveryMode::Fixed, DeliveryMode::Nmi, DeliveryMode::Init] {
        let kicked = send_ipi(&bus, &mut sender, Shorthand::AllButSelf, message(Destination::Physical(77), mode));
        assert_eq!(kicked, [0, 2, 3], "{mode:?}");
        assert_eq!(posted(&bus), [0, 2, 3], "{mode:?}");
    }
    assert!(sender.irr().is_empty());
}

#[test]
fn all_including_self_is_everyone_and_the_senders_copy_needs_no_kick() {
    let bus = bus(3);
    let mut sender = enabled_apic(1);
    assert_eq!(send_ipi(&bus, &mut sender, Shorthand::All, fixed(Destination::Physical(77))), [0, 2]);
    assert_eq!(posted(&bus), [0, 2]);
    assert_eq!(sender.acknowledge(), Some(0x45));
    assert_eq!(sender.eoi(), Effect::None);
}

#[test]
fn the_self_shorthand_is_the_sender_alone() {
    let bus = bus(3);
    let mut sender = enabled_apic(1);
    assert_eq!(send_ipi(&bus, &mut sender, Shorthand::Myself, fixed(Destination::Broadcast)), []);
    assert_eq!(posted(&bus), []);
    assert_eq!(sender.deliverable(), Some(0x45));
}

#[test]
fn a_destination_that_includes_the_sender_reaches_it() {
    let bus = bus(3);
    let mut sender = enabled_apic(1);
    assert_eq!(send_ipi(&bus, &mut sender, Shorthand::None, fixed(Destination::Logical(0b011))), [0]);
    assert_eq!(posted(&bus), [0]);
    assert_eq!(sender.acknowledge(), Some(0x45));
    let _ = sender.eoi();
    assert_eq!(send_ipi(&bus, &mut sender, Shorthand::None, lowest(Destination::Physical(1))), []);
    assert_eq!(sender.acknowledge(), Some(0x45));
}

#[test]
fn an_nmi_to_oneself_waits_in_the_mailbox_without_a_kick() {
    let bus = bus(3);
    let mut sender = enabled_apic(1);
    let nmi = message(Destination::Physical(1), DeliveryMode::Nmi);
    assert_eq!(send_ipi(&bus, &mut sender, Shorthand::None, nmi), []);
    assert!(!bus.mailboxes()[1].enter_guest(), "it is seen before the guest is entered");
    assert!(sender.collect(&bus.mailboxes()[1]).nmis == 1);
}

#[test]
fn an_ipi_to_nobody_is_nothing() {
    // Once a panic in another VMM: an array was indexed with the guest's destination.
    let bus = bus(2);
    let mut sender = enabled_apic(1);
    let before = sender.clone();
    for destination in
        [Destination::Physical(2), Destination::Physical(u32::MAX - 1), Destination::Logical(0xffff_fffe)]
    {
        for mode in [DeliveryMode::Fixed, DeliveryMode::LowestPriority, DeliveryMode::Init, DeliveryMode::StartUp] {
            assert_eq!(send_ipi(&bus, &mut sender, Shorthand::None, message(destination, mode)), []);
        }
    }
    assert_eq!((posted(&bus), sender.without_past()), (vec![], before.without_past()));
    assert_eq!(sender.ledger().ipis.dropped.no_destination, 12);
}

#[test]
fn an_ipi_to_a_software_disabled_sender_is_not_accepted() {
    let bus = bus(2);
    bus.readdress(1, Address { enabled: false, ..address(1) });
    let mut sender = enabled_apic(1);
    assert_eq!(send_ipi(&bus, &mut sender, Shorthand::All, fixed(Destination::Broadcast)), [0]);
    assert!(sender.irr().is_empty());
}

#[test]
fn an_illegal_vector_reaches_the_receivers_error_register() {
    let bus = bus(2);
    let mut sender = enabled_apic(1);
    let illegal = Message { vector: 3, ..fixed(Destination::Broadcast) };
    assert_eq!(send_ipi(&bus, &mut sender, Shorthand::None, illegal), [0]);
    let mut receiver = enabled_apic(0);
    let _ = receiver.collect(&bus.mailboxes()[0]);
    for mut apic in [sender, receiver] {
        let _ = apic.write_mmio(0, reg::ESR.into(), &[0; 4]);
        let mut esr = [0; 4];
        apic.read_mmio(0, reg::ESR.into(), &mut esr);
        assert_eq!((esr, apic.irr().is_empty()), ([0x40, 0, 0, 0], true));
    }
}

#[test]
fn more_than_64_local_apics_are_all_reached() {
    let bus = bus(130);
    let (accepted, kicked) = send(&bus, fixed(Destination::Broadcast));
    assert_eq!(accepted, Accepted::Yes);
    assert!(kicked.into_iter().eq(0..130));
    assert!(posted(&bus).into_iter().eq(0..130));
}
