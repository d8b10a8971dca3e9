//! Slots, and that the I/O APIC never sends a level interrupt whose end nobody would hear of.

use std::collections::HashSet;

use irqchip::ioapic::IoApic;
use irqchip::{Accepted, Destination};
use proptest::prelude::*;
use x86::apic::{DeliveryMode, TriggerMode};
use x86::ioapic::{IOREGSEL, IOWIN, REG_TABLE, RedirectionEntry};

use super::*;

fn message(vector: u8, id: u32) -> Message {
    let destination = Destination::Physical(id);
    Message { destination, mode: DeliveryMode::Fixed, vector, trigger: TriggerMode::Level }
}

#[test]
fn a_message_is_new_once() {
    let mut routes = EoiRoutes::new();
    assert!(routes.add(&message(0x51, 0)));
    assert!(!routes.add(&message(0x51, 0)));
    assert!(routes.add(&message(0x51, 1)), "the destination counts");
    assert!(!routes.add(&message(0x51, 0)), "and the one before is still there");
    let slots: Vec<_> = routes.iter().map(|(gsi, m)| (gsi, *m)).collect();
    assert_eq!(slots, [(0, message(0x51, 0)), (1, message(0x51, 1))]);
}

#[test]
fn short_of_space_only_what_is_awaited_stays() {
    let mut routes = EoiRoutes::new();
    let awaited = message(0x20, 0);
    for vector in 0x20..0x20 + (SLOTS - PINS) as u8 {
        assert!(routes.add(&message(vector, 0)));
        routes.prune([awaited].into_iter());
    }
    assert_eq!(routes.iter().count(), SLOTS - PINS, "there is space enough");
    assert!(routes.add(&message(0xf0, 0)));
    routes.prune([awaited].into_iter());
    assert_eq!(routes.iter().collect::<Vec<_>>(), [(0, &awaited)]);
}

/// What happens to an I/O APIC in front of KVM's local APICs.
#[derive(Debug, Clone)]
enum Step {
    Write { pin: u8, vector: u8, destination: u8, level: bool, masked: bool },
    Line { pin: u8, high: bool },
    Eoi { vector: u8 },
    Retry,
    Accept(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let pin = 0..PINS as u8;
    prop_oneof![
        4 => (pin.clone(), 0x20..0x60u8, 0..8u8, prop::bool::weighted(0.8), prop::bool::weighted(0.2))
            .prop_map(|(pin, vector, destination, level, masked)| Step::Write { pin, vector, destination, level, masked }),
        4 => (pin, any::<bool>()).prop_map(|(pin, high)| Step::Line { pin, high }),
        2 => (0x20..0x60u8).prop_map(|vector| Step::Eoi { vector }),
        1 => Just(Step::Retry),
        1 => any::<bool>().prop_map(Step::Accept),
    ]
}

/// The I/O APIC, its routes, and KVM's table as it was last told.
struct Rig {
    ioapic: IoApic,
    routes: EoiRoutes,
    table: HashSet<Message>,
    accepts: bool,
}

impl Rig {
    fn change(&mut self, change: impl FnOnce(&mut IoApic, &mut dyn irqchip::MessageSink)) {
        let Self { ioapic, routes, table, accepts } = self;
        change(ioapic, &mut |message: &Message| {
            if message.trigger == TriggerMode::Level {
                if routes.add(message) {
                    *table = routes.iter().map(|(_, m)| *m).collect();
                }
                assert!(table.contains(message), "sent without a route: {message:?}");
            }
            if *accepts { Accepted::Yes } else { Accepted::No }
        });
        routes.prune(ioapic.awaited_eois());
    }

    fn write(&mut self, pin: u8, entry: RedirectionEntry) {
        for (register, half) in [(1, entry.into_bits() >> 32), (0, entry.into_bits())] {
            self.change(|ioapic, sink| {
                ioapic.write(0, IOREGSEL, &[REG_TABLE + 2 * pin + register], sink);
                ioapic.write(0, IOWIN, &(half as u32).to_le_bytes(), sink);
            });
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Write { pin, vector, destination, level, masked } => {
                let entry = RedirectionEntry::new().with_vector(vector).with_destination(destination);
                self.write(pin, entry.with_level(level).with_masked(masked));
            }
            Step::Line { pin, high } => self.change(|ioapic, sink| ioapic.set_line(pin, high, sink)),
            Step::Eoi { vector } => self.change(|ioapic, sink| ioapic.eoi(0, vector, sink)),
            Step::Retry => self.change(|ioapic, sink| ioapic.destinations_changed(sink)),
            Step::Accept(accepts) => self.accepts = accepts,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Red when: `prune` drops what is in service or what an entry describes, `add` runs out of slots, or the I/O APIC
    /// forgets in `awaited_eois` what it has sent before its entry was changed.
    #[test]
    fn kvm_can_report_the_end_of_whatever_is_in_service(steps in prop::collection::vec(step(), 0..400)) {
        let mut rig = Rig { ioapic: IoApic::new(0), routes: EoiRoutes::new(), table: HashSet::new(), accepts: true };
        for step in &steps {
            rig.step(step);
            for pin in 0..PINS as u8 {
                let in_service = rig.ioapic.entry(pin).is_some_and(|entry| entry.remote_irr());
                let heard = rig.ioapic.in_service(pin).is_some_and(|message| rig.table.contains(&message));
                prop_assert_eq!(in_service, heard, "pin {} after {:?}", pin, step);
            }
        }
    }
}
