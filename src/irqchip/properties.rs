//! What holds for the controllers together, whatever guest and devices do: an I/O APIC, three local APICs, the bus between
//! them. Level pins and edge pins have vectors of their own: one vector with both trigger modes loses EOIs on hardware too.

use std::collections::BTreeSet;

use proptest::prelude::*;
use x86::ioapic::{IOREGSEL, IOWIN, REG_TABLE};

use crate::Message;
use crate::bus::{self, ApicBus, Kicks};
use crate::ioapic::{self, IoApic};
use crate::lapic::{self, Config, Effect, LocalApic};

const CPUS: usize = 3;
/// Pins 0 and 1 are level-triggered, 2 and 3 edge-triggered.
const PINS: u8 = 4;
const IPI: u8 = 0x58;

#[derive(Debug, Clone)]
enum Step {
    Line(u8, bool),
    /// Pin, vector out of the pin's few, lowest priority, masked.
    Low(u8, u8, bool, bool),
    /// A level pin to edge and back: the end of an interrupt without an EOI.
    Flip(u8),
    /// Pin, physical destination.
    High(u8, u8),
    /// A vCPU looks, and takes an interrupt if it may.
    Look(usize),
    /// A vCPU's guest writes EOI.
    End(usize),
    Tpr(usize, u8),
    Enable(usize, bool),
    /// From, to.
    Ipi(usize, usize),
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    let (pin, cpu) = (|| 0..PINS, || 0..CPUS);
    prop_oneof![
        8 => (pin(), any::<bool>()).prop_map(|(pin, level)| Step::Line(pin, level)),
        4 => (pin(), 0..3u8, any::<bool>(), prop::bool::weighted(0.3)).prop_map(|(p, v, l, m)| Step::Low(p, v, l, m)),
        1 => (0..2u8).prop_map(Step::Flip),
        2 => (pin(), prop::sample::select(vec![0u8, 1, 2, 7, 0xff])).prop_map(|(pin, to)| Step::High(pin, to)),
        10 => cpu().prop_map(Step::Look),
        8 => cpu().prop_map(Step::End),
        2 => (cpu(), any::<u8>()).prop_map(|(cpu, tpr)| Step::Tpr(cpu, tpr >> 1)),
        1 => (cpu(), any::<bool>()).prop_map(|(cpu, on)| Step::Enable(cpu, on)),
        3 => (cpu(), cpu()).prop_map(|(from, to)| Step::Ipi(from, to)),
        1 => Just(Step::Snapshot),
    ]
}

fn config(index: usize) -> Config {
    Config { id: index as u32, bsp: index == 0, x2apic: true, tsc_deadline: true, cmci: false, physical_bits: 40 }
}

struct System {
    bus: ApicBus,
    apics: Vec<LocalApic>,
    ioapic: IoApic,
}

type Saved = (bus::State, Vec<lapic::State>, ioapic::State);

/// Vectors that are requested at a vCPU: in its mailbox or its IRR.
type Requests = BTreeSet<(usize, u8)>;

impl System {
    fn new() -> Self {
        let mut apics: Vec<_> = (0..CPUS).map(|index| LocalApic::new(config(index))).collect();
        for apic in &mut apics {
            let _ = apic.enter_virtual_wire_mode();
        }
        let bus = ApicBus::new(apics.iter().map(LocalApic::address).collect());
        Self { bus, apics, ioapic: IoApic::new(0) }
    }

    fn save(&self) -> Saved {
        (self.bus.save(), self.apics.iter().map(LocalApic::save).collect(), self.ioapic.save())
    }

    fn restore((bus, apics, ioapic): &Saved) -> Self {
        let restore = |(index, state)| LocalApic::restore(config(index), state).expect("what was saved");
        let apics: Vec<_> = apics.iter().enumerate().map(restore).collect();
        let addresses = apics.iter().map(LocalApic::address).collect();
        let bus = ApicBus::restore(addresses, bus).expect("what was saved");
        Self { bus, apics, ioapic: IoApic::restore(0, ioapic).expect("what was saved") }
    }

    fn with_ioapic(&mut self, change: impl FnOnce(&mut IoApic, &mut dyn crate::MessageSink)) {
        let bus = &self.bus;
        change(&mut self.ioapic, &mut |message: &Message| bus.send(message, &mut Kicks::new()));
    }

    fn write_ioapic(&mut self, register: u8, value: u32) {
        self.with_ioapic(|ioapic, sink| {
            ioapic.write(0, IOREGSEL, &[register], sink);
            ioapic.write(0, IOWIN, &value.to_le_bytes(), sink);
        });
    }

    /// What the vCPU took, if it is about that.
    fn apply(&mut self, step: &Step) -> Option<u8> {
        match *step {
            Step::Line(pin, level) => self.with_ioapic(|ioapic, sink| ioapic.set_line(pin, level, sink)),
            Step::Low(pin, vector, lowest, masked) => {
                let level = if pin < 2 { 1 << 15 } else { 0 };
                let bits = vector_of(pin, vector) | level | u32::from(lowest) << 8 | u32::from(masked) << 16;
                self.write_ioapic(REG_TABLE + 2 * pin, bits);
            }
            Step::Flip(pin) => {
                let entry = self.ioapic.entry(pin).expect("a pin").into_bits() as u32;
                self.write_ioapic(REG_TABLE + 2 * pin, entry & !(1 << 15) | 1 << 16);
                self.write_ioapic(REG_TABLE + 2 * pin, entry | 1 << 15);
            }
            Step::High(pin, to) => self.write_ioapic(REG_TABLE + 2 * pin + 1, u32::from(to) << 24),
            Step::Look(cpu) => {
                let _ = self.apics[cpu].collect(&self.bus.mailboxes()[cpu]);
                let vector = self.apics[cpu].acknowledge();
                self.bus.mailboxes()[cpu].publish_priority(self.apics[cpu].ppr());
                return vector;
            }
            Step::End(cpu) => {
                if let Effect::Eoi(vector) = self.apics[cpu].eoi() {
                    self.with_ioapic(|ioapic, sink| ioapic.eoi(0, vector, sink));
                }
            }
            Step::Tpr(cpu, tpr) => {
                let _ = self.apics[cpu].write_mmio(0, 0x80, &u32::from(tpr).to_le_bytes());
            }
            Step::Enable(cpu, on) => {
                let svr = 0xff_u32 | u32::from(on) << 8;
                if self.apics[cpu].write_mmio(0, 0xf0, &svr.to_le_bytes()) == Effect::Readdressed {
                    self.bus.readdress(cpu, self.apics[cpu].address());
                    self.with_ioapic(|ioapic, sink| ioapic.destinations_changed(sink));
                }
            }
            Step::Ipi(from, to) => {
                let _ = self.apics[from].write_mmio(0, 0x310, &((to as u32) << 24).to_le_bytes());
                if let Effect::Ipi(ipi) = self.apics[from].write_mmio(0, 0x300, &u32::from(IPI).to_le_bytes()) {
                    self.bus.send_ipi(&mut self.apics[from], from, &ipi, &mut Kicks::new());
                }
            }
            Step::Snapshot => *self = Self::restore(&self.save()),
        }
        None
    }

    fn requests(&self) -> Requests {
        let mut all = Requests::new();
        for (cpu, (apic, mailbox)) in self.apics.iter().zip(self.bus.save().mailboxes).enumerate() {
            let posted =
                |v: u8| (mailbox.edge[usize::from(v / 64)] | mailbox.level[usize::from(v / 64)]) >> (v % 64) & 1;
            all.extend((0..=255).filter(|&v| apic.irr().contains(v) || posted(v) == 1).map(|v| (cpu, v)));
        }
        all
    }

    fn sent(&self) -> Vec<u64> {
        (0..PINS).map(|pin| self.ioapic.counters(pin).expect("a pin").sent).collect()
    }
}

fn vector_of(pin: u8, choice: u8) -> u32 {
    // Two pins of a kind share theirs.
    u32::from(if pin < 2 { 0x31 } else { 0x71 } + 0x11 * choice)
}

/// The processor priority, from the registers alone.
fn ppr(apic: &mut LocalApic) -> u8 {
    let mut tpr = [0; 4];
    apic.read_mmio(0, 0x80, &mut tpr);
    let in_service = (0..=255_u8).rev().find(|&v| apic.isr().contains(v)).unwrap_or(0);
    if tpr[0] >> 4 >= in_service >> 4 { tpr[0] } else { in_service & 0xf0 }
}

fn check_step(system: &mut System, step: &Step) -> Result<(), TestCaseError> {
    let (requests, sent) = (system.requests(), system.sent());
    let isr: Vec<_> = system.apics.iter().map(|apic| *apic.isr()).collect();
    let taken = system.apply(step);
    let now = system.requests();

    // None is lost, none comes out of nowhere.
    let mut expected = requests.clone();
    if let (Step::Look(cpu), Some(vector)) = (step, taken) {
        let highest = requests.iter().filter(|(at, _)| at == cpu).map(|&(_, v)| v).max();
        prop_assert_eq!(highest, Some(vector), "the highest wins");
        expected.remove(&(*cpu, vector));
    }
    prop_assert!(now.is_superset(&expected), "lost: {:x?}", expected.difference(&now));
    let mut sources: BTreeSet<_> = (0..PINS)
        .filter(|&pin| system.sent()[usize::from(pin)] > sent[usize::from(pin)])
        .map(|pin| system.ioapic.entry(pin).expect("a pin").vector())
        .collect();
    if let Step::Ipi(..) = step {
        sources.insert(IPI);
    }
    let new: BTreeSet<_> = now.difference(&expected).map(|&(_, v)| v).collect();
    prop_assert!(new.is_subset(&sources), "out of nowhere: {new:x?}, sent {sources:x?}");

    for (cpu, (apic, before)) in system.apics.iter_mut().zip(isr).enumerate() {
        prop_assert_eq!(apic.ppr(), ppr(apic), "PPR");
        let gone: Vec<_> = (0..=255_u8).filter(|&v| before.contains(v) && !apic.isr().contains(v)).collect();
        let ended = matches!(step, Step::End(at) if *at == cpu);
        prop_assert_eq!(gone, if ended { before.highest().into_iter().collect() } else { Vec::new() }, "EOI ends one");
        let deliverable = apic.irr().highest().filter(|v| v >> 4 > apic.ppr() >> 4);
        prop_assert_eq!(apic.deliverable(), deliverable);
    }

    for pin in 0..PINS {
        let (entry, high) = (system.ioapic.entry(pin).expect("a pin"), system.ioapic.line(pin) == Some(true));
        if entry.level() && high && !entry.masked() && !entry.remote_irr() {
            let takers = system.apics.iter().filter(|apic| {
                let address = apic.address();
                address.enabled && (entry.destination() == 0xff || u32::from(entry.destination()) == address.id)
            });
            prop_assert_eq!(takers.count(), 0, "pin {} asks, and nobody hears of it", pin);
        }
        if entry.remote_irr() {
            let vector = system.ioapic.save().pins[usize::from(pin)].accepted as u8;
            let somewhere = now.iter().any(|&(_, v)| v == vector)
                || system.apics.iter().any(|apic| apic.isr().contains(vector) && apic.tmr().contains(vector));
            prop_assert!(somewhere, "pin {pin} waits for the end of {vector:#x}, which nobody has");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn requests_priorities_and_remote_irr_hold_together(steps in prop::collection::vec(step(), 1..300)) {
        let mut system = System::new();
        for step in steps {
            check_step(&mut system, &step)?;
        }
        // And it comes to rest: lines low, everything taken and ended.
        for pin in 0..PINS {
            check_step(&mut system, &Step::Line(pin, false))?;
        }
        for cpu in 0..CPUS {
            check_step(&mut system, &Step::Tpr(cpu, 0))?;
            for _ in 0..24 {
                check_step(&mut system, &Step::Look(cpu))?;
                check_step(&mut system, &Step::End(cpu))?;
            }
        }
        prop_assert_eq!(system.requests(), Requests::new());
        prop_assert!((0..PINS).all(|pin| !system.ioapic.entry(pin).is_some_and(|entry| entry.remote_irr())));
    }

    #[test]
    fn a_snapshot_of_any_state_has_the_same_future(
        past in prop::collection::vec(step(), 0..100),
        future in prop::collection::vec(step(), 1..100),
    ) {
        let mut system = System::new();
        for step in &past {
            system.apply(step);
        }
        let saved = system.save();
        let mut restored = System::restore(&saved);
        prop_assert_eq!(&restored.save(), &saved);
        for (at, priority) in system.bus.mailboxes().iter().map(crate::mailbox::Mailbox::priority).enumerate() {
            // A hint that every vCPU publishes before it enters its guest.
            restored.bus.mailboxes()[at].publish_priority(priority);
        }
        for step in future {
            prop_assert_eq!(system.apply(&step), restored.apply(&step));
            prop_assert_eq!(system.save(), restored.save());
        }
    }
}

/// The reach of the steps: without these, the properties would hold of nothing.
#[test]
fn the_system_delivers_level_edge_and_ipi() {
    let mut system = System::new();
    for (pin, vector) in [(0, 0x31), (2, 0x71)] {
        system.apply(&Step::Low(pin, 0, false, false));
        system.apply(&Step::Line(pin, true));
        assert_eq!(system.apply(&Step::Look(0)), Some(vector));
        system.apply(&Step::Line(pin, false));
        system.apply(&Step::End(0));
    }
    system.apply(&Step::Ipi(1, 2));
    assert_eq!(system.apply(&Step::Look(2)), Some(IPI));
    assert!(system.apics[2].isr().contains(IPI) && !system.apics[2].tmr().contains(IPI));
}
