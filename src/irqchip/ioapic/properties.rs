//! What holds for the I/O APIC whatever a guest and the devices do.

use proptest::prelude::*;
use x86::apic::TriggerMode;

use super::*;
use crate::message::{Accepted, Message};

/// Pins 0-3 and few vectors, so that steps meet each other.
#[derive(Debug, Clone)]
enum Step {
    Low(u8, u32),
    High(u8, u32),
    Line(u8, bool),
    Eoi(u8),
    EoiRegister(u8),
    Accept(bool),
    Wait(Nanos),
    Mmio(u64, Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let pin = || 0..4u8;
    let low = (0x30..0x34u32, prop::sample::select(vec![0u32, 0, 0, 1, 4, 3]), any::<u32>())
        .prop_map(|(vector, mode, flags)| vector | mode << 8 | flags & 0x0001_f800);
    prop_oneof![
        6 => (pin(), low).prop_map(|(pin, low)| Step::Low(pin, low)),
        2 => (pin(), any::<u32>()).prop_map(|(pin, high)| Step::High(pin, high)),
        8 => (pin(), any::<bool>()).prop_map(|(pin, level)| Step::Line(pin, level)),
        8 => (0x30..0x34u8).prop_map(Step::Eoi),
        2 => (0x30..0x34u8).prop_map(Step::EoiRegister),
        2 => any::<bool>().prop_map(Step::Accept),
        1 => (0..20_000_000u64).prop_map(Step::Wait),
        2 => (0..0x50u64, prop::collection::vec(any::<u8>(), 0..9)).prop_map(|(at, data)| Step::Mmio(at, data)),
    ]
}

struct Bus {
    accepting: bool,
    accepted: Vec<Message>,
}

impl MessageSink for Bus {
    fn send(&mut self, message: &Message) -> Accepted {
        if self.accepting {
            self.accepted.push(*message);
        }
        if self.accepting { Accepted::Yes } else { Accepted::No }
    }
}

fn write_register(chip: &mut IoApic, index: u8, value: u32, bus: &mut Bus) {
    chip.write(0, IOREGSEL, &[index], bus);
    chip.write(0, IOWIN, &value.to_le_bytes(), bus);
}

fn apply(chip: &mut IoApic, step: &Step, now: &mut Nanos, bus: &mut Bus) {
    match step {
        Step::Low(pin, value) => write_register(chip, REG_TABLE + 2 * pin, *value, bus),
        Step::High(pin, value) => write_register(chip, REG_TABLE + 2 * pin + 1, *value, bus),
        Step::Line(pin, level) => chip.set_line(*pin, *level, bus),
        Step::Eoi(vector) => chip.eoi(*now, *vector, bus),
        Step::EoiRegister(vector) => chip.write(*now, EOI, &[*vector, 0, 0, 0], bus),
        Step::Accept(accepting) => {
            bus.accepting = *accepting;
            chip.destinations_changed(bus);
        }
        Step::Wait(time) => {
            *now += time;
            chip.expire(*now, bus);
        }
        Step::Mmio(offset, data) => {
            let mut answer = data.clone();
            chip.read(*offset, &mut answer);
            chip.write(*now, *offset, data, bus);
        }
    }
}

/// Level and of a delivery mode that can be.
fn is_level(entry: RedirectionEntry) -> bool {
    entry.level() && entry.delivery_mode() < 2
}

proptest! {
    #[test]
    fn no_level_is_lost_and_none_is_sent_twice(steps in prop::collection::vec(step(), 1..200)) {
        let mut chip = IoApic::new(0);
        let mut now = 0;
        let mut bus = Bus { accepting: true, accepted: Vec::new() };
        for step in steps {
            let before: Vec<_> = chip.pins.iter().map(|pin| (pin.entry(), pin.line(), pin.counters().sent)).collect();
            bus.accepted.clear();
            apply(&mut chip, &step, &mut now, &mut bus);
            let mut sent = 0;
            for (pin, (old, was_high, sent_before)) in chip.pins.iter().zip(before) {
                let (entry, messages) = (pin.entry(), pin.counters().sent - sent_before);
                sent += messages as usize;
                prop_assert!(messages <= 1, "one step sends one message at most");
                prop_assert!(!entry.remote_irr() || is_level(entry), "remote IRR is for levels");
                let due = is_level(entry) && pin.line() && !entry.masked() && !entry.remote_irr();
                prop_assert_eq!(entry.delivery_status(), due, "pending and only then");
                prop_assert!(!(due && bus.accepting) || pin.damped_until().is_some(), "a level is lost");
                if is_level(entry) {
                    prop_assert_eq!(messages == 1 && !entry.remote_irr(), false, "sent, so in service");
                    let ended = matches!(step, Step::Eoi(_) | Step::EoiRegister(_) | Step::Mmio(..));
                    prop_assert!(messages == 0 || !old.remote_irr() || ended, "sent again without an EOI");
                    prop_assert!(!old.remote_irr() || entry.remote_irr() || ended, "ended without an EOI");
                    prop_assert!(messages == 0 || pin.line() && !entry.masked());
                } else {
                    prop_assert!(messages == 0 || !was_high && pin.line() && !entry.masked(), "an edge out of nowhere");
                }
            }
            prop_assert_eq!(sent, bus.accepted.len());
            let levels = |message: &&Message| message.trigger == TriggerMode::Level;
            let in_service = chip.pins.iter().filter(|pin| pin.entry().remote_irr()).count();
            prop_assert!(bus.accepted.iter().filter(levels).count() <= in_service);
        }
    }

    /// However a guest got there: when every line is low and all is ended, nothing is pending or in service.
    #[test]
    fn it_comes_to_rest(steps in prop::collection::vec(step(), 1..100)) {
        let mut chip = IoApic::new(0);
        let mut bus = Bus { accepting: true, accepted: Vec::new() };
        for step in steps {
            apply(&mut chip, &step, &mut 0, &mut bus);
        }
        (0..PINS as u8).for_each(|pin| chip.set_line(pin, false, &mut bus));
        (0..=255).for_each(|vector| chip.eoi(0, vector, &mut bus));
        prop_assert!(chip.pins.iter().all(|pin| !pin.entry().remote_irr() && !pin.entry().delivery_status()));
        prop_assert_eq!(chip.next_deadline(), None);
    }
}
