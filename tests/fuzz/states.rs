//! Snapshots that somebody has changed: a chip refuses what it could not have come into, and whatever it takes it comes
//! back to, and lives on from.

use irqchip::bus::{self, ApicBus, Kicks};
use irqchip::ioapic::{self, IoApic};
use irqchip::lapic::{self, Config, Effect, LocalApic, Now};
use irqchip::pic::{self, PicPair, PicPort};
use irqchip::{Accepted, Message};
use serde_json::Value;
use x86::ioapic::{EOI, IOREGSEL, IOWIN};

use super::op::{Op, Target, check};

const CONFIG: Config = Config { id: 3, bsp: false, x2apic: true, tsc_deadline: true, cmci: true, physical_bits: 40 };

/// One chip of each kind.
pub struct States {
    pic: PicPair,
    ioapic: IoApic,
    apic: LocalApic,
    bus: ApicBus,
    /// The states that are being changed, as text would have them.
    files: [Value; 4],
    taken: u64,
    refused: u64,
}

impl Target for States {
    const SIGHTS: &'static [&'static str] = &["taken", "refused"];

    /// What goes through text takes its time.
    fn size(op: &Op) -> u64 {
        if op.kind(16) < 7 { 10 } else { 1 }
    }

    fn new() -> Self {
        let apic = LocalApic::new(CONFIG);
        let bus = ApicBus::new(vec![apic.address()]);
        let files = std::array::from_fn(|_| Value::Null);
        let mut states = Self { pic: PicPair::new(), ioapic: IoApic::new(0), apic, bus, files, taken: 0, refused: 0 };
        states.save();
        states
    }

    fn step(&mut self, op: &Op) -> Result<(), String> {
        match op.kind(16) {
            0..4 => change(&mut self.files[usize::from(op.place()) % 4], op),
            4 => self.save(),
            5 | 6 => self.restore(op)?,
            7 => drop(self.pic.read(PORTS[usize::from(op.place()) % PORTS.len()])),
            8 => self.pic.write(PORTS[usize::from(op.place()) % PORTS.len()], op.raw() as u8),
            9 => {
                self.pic.set_line(op.place() % 16, op.choice(2) == 0);
                let _ = (self.pic.output(), self.pic.acknowledge());
            }
            10..12 => self.touch_ioapic(op),
            12 => self.touch_bus(op),
            _ => self.touch_apic(op),
        }
        Ok(())
    }

    fn sights(&self) -> Vec<(&'static str, u64)> {
        vec![("taken", self.taken), ("refused", self.refused)]
    }
}

const PORTS: [PicPort; 6] = [
    PicPort::MasterCommand,
    PicPort::MasterData,
    PicPort::SlaveCommand,
    PicPort::SlaveData,
    PicPort::ElcrMaster,
    PicPort::ElcrSlave,
];

impl States {
    fn save(&mut self) {
        let texts = [
            serde_json::to_value(self.pic.save()),
            serde_json::to_value(self.ioapic.save()),
            serde_json::to_value(self.apic.save()),
            serde_json::to_value(self.bus.save()),
        ];
        self.files = texts.map(|text| text.unwrap_or(Value::Null));
    }

    /// Tries one of the states; what is refused is forgotten.
    fn restore(&mut self, op: &Op) -> Result<(), String> {
        let file = self.files[usize::from(op.place()) % 4].clone();
        let taken = match op.place() % 4 {
            0 => serde_json::from_value(file).ok().map(|state: pic::State| {
                PicPair::restore(&state).map(|chip| back(chip.save() == state, &state).map(|()| self.pic = chip))
            }),
            1 => serde_json::from_value(file).ok().map(|state: ioapic::State| {
                IoApic::restore(0, &state).map(|chip| back(chip.save() == state, &state).map(|()| self.ioapic = chip))
            }),
            2 => serde_json::from_value(file).ok().map(|state: lapic::State| {
                LocalApic::restore(CONFIG, &state)
                    .map(|chip| back(chip.save() == state, &state).map(|()| self.apic = chip))
            }),
            _ => serde_json::from_value(file).ok().map(|state: bus::State| {
                ApicBus::restore(vec![self.apic.address()], &state)
                    .map(|bus| back(bus.save() == state, &state).map(|()| self.bus = bus))
            }),
        };
        match taken {
            Some(Ok(came_back)) => {
                came_back?;
                self.taken += 1;
            }
            Some(Err(_)) | None => {
                self.refused += 1;
                self.save();
            }
        }
        Ok(())
    }

    fn touch_ioapic(&mut self, op: &Op) {
        let now = op.raw() >> 8;
        let sink = &mut |_: &Message| if op.choice(2) == 0 { Accepted::Yes } else { Accepted::No };
        match op.place() % 8 {
            0 => self.ioapic.write(now, IOREGSEL, &[op.raw() as u8], sink),
            1 | 2 => self.ioapic.write(now, IOWIN, &(op.raw() as u32).to_le_bytes(), sink),
            3 => self.ioapic.set_line(op.raw() as u8 % 24, op.choice(4) < 2, sink),
            4 => self.ioapic.eoi(now, op.raw() as u8, sink),
            5 => self.ioapic.write(now, EOI, &(op.raw() as u32 & 0xff).to_le_bytes(), sink),
            6 => self.ioapic.expire(now, sink),
            _ => self.ioapic.destinations_changed(sink),
        }
    }

    fn touch_bus(&mut self, op: &Op) {
        if let Some(message) = Message::from_msi(0xfee0_0000 | op.raw() >> 44, op.raw() as u32) {
            let _ = self.bus.send(&message, &mut Kicks::new());
        }
        let _ = self.apic.collect(&self.bus.mailboxes()[0]);
    }

    fn touch_apic(&mut self, op: &Op) {
        let now = op.raw() >> 8;
        let effect = match op.place() % 8 {
            0 | 1 => self.apic.write_mmio(now, u64::from(op.place()) * 16, &(op.raw() as u32).to_le_bytes()),
            2 | 3 => self.apic.write_msr(now, 0x800 + u32::from(op.place()), op.value()).unwrap_or(Effect::None),
            4 => self.apic.write_base(op.value()).unwrap_or(Effect::None),
            5 => {
                self.apic.expire(Now { ns: now, tsc: op.raw() });
                Effect::None
            }
            6 => {
                let _ = (self.apic.acknowledge(), self.apic.next_deadline());
                Effect::None
            }
            _ => self.apic.eoi(),
        };
        match effect {
            Effect::Ipi(ipi) => self.bus.send_ipi(&mut self.apic, 0, &ipi, &mut Kicks::new()),
            Effect::Readdressed => self.bus.readdress(0, self.apic.address()),
            Effect::Eoi(_) | Effect::None => {}
        }
    }
}

fn back(same: bool, state: &impl std::fmt::Debug) -> Result<(), String> {
    check(same, || format!("taken, and not the same any more: {state:?}"))
}

/// Changes one number, flag or nothing in the state.
fn change(file: &mut Value, op: &Op) {
    let mut leaves = Vec::new();
    collect(file, &mut leaves);
    let count = leaves.len();
    let Some(leaf) = leaves.into_iter().nth(op.raw() as usize % count.max(1)) else { return };
    *leaf = match (&*leaf, op.choice(8)) {
        (Value::Bool(is), 0..7) => Value::Bool(!is),
        (_, 7) => Value::Null,
        (Value::Number(number), 0..3) => Value::from(number.as_u64().unwrap_or(0) ^ 1 << (op.raw() >> 58)),
        _ => Value::from(op.value()),
    };
}

fn collect<'a>(value: &'a mut Value, leaves: &mut Vec<&'a mut Value>) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|item| collect(item, leaves)),
        Value::Object(map) => map.values_mut().for_each(|item| collect(item, leaves)),
        leaf => leaves.push(leaf),
    }
}
