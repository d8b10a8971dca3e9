//! Whatever guest and devices do, every account balances after every step, and what one chip hands on arrives at the next.

use proptest::prelude::*;
use x86::ioapic::{IOREGSEL, IOWIN, PINS, REG_TABLE};
use x86::pic::CASCADE_IRQ;

use super::{Account, ApicLedger, Pending, Posts, Source};
use crate::Message;
use crate::bus::{ApicBus, Kicks};
use crate::ioapic::IoApic;
use crate::lapic::{Config, Effect, LocalApic, LocalSource, Now};
use crate::pic::{PicPair, PicPort};

const CPUS: usize = 3;
/// Pins of the I/O APIC that the steps drive; the 8259A pair drives pin 0.
const DRIVEN: u8 = 4;

#[derive(Debug, Clone)]
enum Step {
    Line(u8, bool),
    PicLine(u8, bool),
    PicWrite(PicPort, u8),
    PicRead(PicPort),
    PicAcknowledge,
    PicReset,
    /// Pin, half, any value.
    Entry(u8, bool, u32),
    IoApicReset,
    /// Ends the damping, and tries again.
    IoApicExpire,
    Msi(u32),
    /// A vCPU looks, and takes an interrupt if it may.
    Look(usize),
    End(usize),
    /// Any register of a local APIC, any value.
    Register(usize, u32, u32),
    Base(usize, u64),
    Init(usize),
    Timer(usize, u64),
    Lint(usize, bool),
    Raise(usize, LocalSource),
    TakeNmi(usize),
}

fn port() -> impl Strategy<Value = PicPort> {
    use PicPort::{ElcrMaster, ElcrSlave, MasterCommand, MasterData, SlaveCommand, SlaveData};
    prop::sample::select(vec![MasterCommand, MasterData, SlaveCommand, SlaveData, ElcrMaster, ElcrSlave])
}

/// Bytes that make something happen: ICW1 to ICW4, EOIs, polls, masks, and any other.
fn pic_byte() -> impl Strategy<Value = u8> {
    let likely = vec![0x11, 0x19, 0x20, 0x20, 0x60, 0xa0, 0x0c, 0x68, 0x00, 0xff, 0x01, 0x03, 0x13, 0x04, 0x02];
    prop_oneof![3 => prop::sample::select(likely), 1 => any::<u8>()]
}

/// Values of a redirection entry's low half or an ICR: legal and illegal vectors, all modes, masked or not.
fn command() -> impl Strategy<Value = u32> {
    let vector = prop_oneof![8 => 0x30..0x38u32, 1 => 0..16u32];
    let mode = prop_oneof![6 => Just(0u32), 6 => 0..8u32];
    (vector, mode, any::<bool>(), any::<bool>(), prop::bool::weighted(0.2), 0..4u32).prop_map(
        |(vector, mode, logical, level, masked, shorthand)| {
            let flags = u32::from(logical) << 11 | u32::from(level) << 15 | u32::from(masked) << 16;
            vector | mode << 8 | flags | 1 << 14 | shorthand << 18
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let cpu = || 0..CPUS;
    let to = || prop::sample::select(vec![0u32, 1, 2, 7, 0xff]);
    let register = prop_oneof![
        // TPR, SVR, ICR high and low, timer, LINT0, LINT1, error, thermal, perf, initial count, ESR
        prop::sample::select(vec![0x320u32, 0x350, 0x360, 0x370, 0x330, 0x340, 0x300])
            .prop_flat_map(|r| (Just(r), command())),
        (Just(0x310u32), to().prop_map(|to| to << 24)),
        (Just(0x80u32), any::<u8>().prop_map(u32::from)),
        (Just(0xf0u32), any::<bool>().prop_map(|on| 0xff | u32::from(on) << 8)),
        (Just(0x380u32), 0..1000u32),
        (Just(0x280u32), Just(0)),
    ];
    let sources = vec![LocalSource::CorrectedMachineCheck, LocalSource::Thermal, LocalSource::PerformanceCounter];
    prop_oneof![
        8 => (1..=DRIVEN, any::<bool>()).prop_map(|(pin, level)| Step::Line(pin, level)),
        8 => (0..16u8, any::<bool>()).prop_map(|(input, level)| Step::PicLine(input, level)),
        8 => (port(), pic_byte()).prop_map(|(port, value)| Step::PicWrite(port, value)),
        2 => port().prop_map(Step::PicRead),
        6 => Just(Step::PicAcknowledge),
        1 => prop::sample::select(vec![Step::PicReset, Step::IoApicReset, Step::IoApicExpire]),
        6 => (0..=DRIVEN, command()).prop_map(|(pin, value)| Step::Entry(pin, false, value)),
        2 => (0..=DRIVEN, to()).prop_map(|(pin, to)| Step::Entry(pin, true, to << 24)),
        4 => command().prop_map(Step::Msi),
        12 => cpu().prop_map(Step::Look),
        8 => cpu().prop_map(Step::End),
        12 => (cpu(), register).prop_map(|(cpu, (register, value))| Step::Register(cpu, register, value)),
        1 => (cpu(), any::<bool>()).prop_map(|(cpu, on)| Step::Base(cpu, 0xfee0_0000 | u64::from(on) << 11)),
        1 => cpu().prop_map(Step::Init),
        3 => (cpu(), 0..5000u64).prop_map(|(cpu, now)| Step::Timer(cpu, now)),
        3 => (cpu(), any::<bool>()).prop_map(|(cpu, level)| Step::Lint(cpu, level)),
        2 => (cpu(), prop::sample::select(sources)).prop_map(|(cpu, source)| Step::Raise(cpu, source)),
        2 => cpu().prop_map(Step::TakeNmi),
    ]
}

struct System {
    bus: ApicBus,
    apics: Vec<LocalApic>,
    ioapic: IoApic,
    pic: PicPair,
    /// What the I/O APIC and MSIs have put into mailboxes.
    posts: Posts,
    msi: Account,
    /// NMIs that the vCPUs took out of their mailboxes.
    nmis: u64,
}

impl System {
    fn new() -> Self {
        let config = |id| Config { id, bsp: id == 0, x2apic: true, tsc_deadline: true, cmci: true, physical_bits: 40 };
        let mut apics: Vec<_> = (0..CPUS as u32).map(|id| LocalApic::new(config(id))).collect();
        for apic in &mut apics {
            let _ = apic.enter_virtual_wire_mode();
        }
        let bus = ApicBus::new(apics.iter().map(LocalApic::address).collect());
        let (ioapic, pic) = (IoApic::new(0), PicPair::new());
        Self { bus, apics, ioapic, pic, posts: Posts::default(), msi: Account::default(), nmis: 0 }
    }

    fn with_ioapic(&mut self, change: impl FnOnce(&mut IoApic, &mut dyn crate::MessageSink)) {
        let (bus, mut kicks) = (&self.bus, Kicks::new());
        change(&mut self.ioapic, &mut |message: &Message| bus.send(message, &mut kicks));
        self.posts.add(&kicks.take_posts());
    }

    fn with_pic(&mut self, change: impl FnOnce(&mut PicPair)) {
        change(&mut self.pic);
        let output = self.pic.output();
        let _ = self.bus.mailboxes()[0].post_lint0(output);
        self.with_ioapic(|ioapic, sink| ioapic.set_line(0, output, sink));
    }

    fn effect(&mut self, cpu: usize, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Ipi(ipi) => self.bus.send_ipi(&mut self.apics[cpu], cpu, &ipi, &mut Kicks::new()),
            Effect::Eoi(vector) => self.with_ioapic(|ioapic, sink| ioapic.eoi(0, vector, sink)),
            Effect::Readdressed => {
                self.bus.readdress(cpu, self.apics[cpu].address());
                self.with_ioapic(|ioapic, sink| ioapic.destinations_changed(sink));
            }
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Line(pin, level) => self.with_ioapic(|ioapic, sink| ioapic.set_line(pin, level, sink)),
            Step::PicLine(input, level) => self.with_pic(|pic| pic.set_line(input, level)),
            Step::PicWrite(port, value) => self.with_pic(|pic| pic.write(port, value)),
            Step::PicRead(port) => self.with_pic(|pic| {
                let _ = pic.read(port);
            }),
            Step::PicAcknowledge => self.with_pic(|pic| {
                let _ = pic.acknowledge();
            }),
            Step::PicReset => self.with_pic(PicPair::reset),
            Step::Entry(pin, high, value) => self.with_ioapic(|ioapic, sink| {
                ioapic.write(0, IOREGSEL, &[REG_TABLE + 2 * pin + u8::from(high)], sink);
                ioapic.write(0, IOWIN, &value.to_le_bytes(), sink);
            }),
            Step::IoApicReset => self.ioapic.reset(),
            Step::IoApicExpire => self.with_ioapic(|ioapic, sink| {
                ioapic.expire(u64::MAX, sink);
                ioapic.destinations_changed(sink);
            }),
            Step::Msi(data) => {
                self.msi.asserted += 1;
                match Message::from_msi(0xfee0_0000 | u64::from(data >> 18 & 3) << 12, data) {
                    None => self.msi.dropped.malformed += 1,
                    Some(message) => {
                        let mut kicks = Kicks::new();
                        let accepted = self.bus.send(&message, &mut kicks);
                        self.msi.count(accepted);
                        self.posts.add(&kicks.take_posts());
                    }
                }
            }
            Step::Look(cpu) => {
                self.nmis += u64::from(self.apics[cpu].collect(&self.bus.mailboxes()[cpu]).nmis);
                let _ = self.apics[cpu].acknowledge();
            }
            Step::End(cpu) => {
                let effect = self.apics[cpu].eoi();
                self.effect(cpu, effect);
            }
            Step::Register(cpu, register, value) => {
                let effect = self.apics[cpu].write_mmio(0, register.into(), &value.to_le_bytes());
                self.effect(cpu, effect);
            }
            Step::Base(cpu, value) => {
                if let Ok(effect) = self.apics[cpu].write_base(value) {
                    self.effect(cpu, effect);
                }
            }
            Step::Init(cpu) => {
                self.apics[cpu].init();
                self.effect(cpu, Effect::Readdressed);
            }
            Step::Timer(cpu, ns) => self.apics[cpu].expire(Now { ns, tsc: ns }),
            Step::Lint(cpu, level) => self.apics[cpu].set_lint(1, level),
            Step::Raise(cpu, source) => self.apics[cpu].raise(source),
            Step::TakeNmi(cpu) => {
                let _ = (self.apics[cpu].take_nmi(), self.apics[cpu].take_init());
            }
        }
    }

    /// What does not balance.
    fn imbalances(&self) -> Vec<(String, i128)> {
        let mut all = vec![("MSI".to_owned(), self.msi.difference(0))];
        for pin in 0..PINS as u8 {
            let account = self.ioapic.counters(pin).expect("a pin").account;
            all.push((format!("pin {pin}"), account.difference(self.ioapic.is_pending(pin).into())));
        }
        let mut delivered = 0;
        for input in (0..16).filter(|&input| input != CASCADE_IRQ) {
            let (account, pending) = self.pic.account(input).expect("an input");
            delivered += account.delivered;
            all.push((format!("IRQ {input}"), account.difference(pending.into())));
        }
        let cycles = self.pic.cycles();
        let acknowledged = i128::from(cycles.run + cycles.polled) - i128::from(delivered + cycles.spurious);
        all.push(("acknowledge cycles".to_owned(), acknowledged));
        for (cpu, apic) in self.apics.iter().enumerate() {
            let own = apic.ledger().imbalances(apic.pending());
            all.extend(own.into_iter().map(|(name, difference)| (format!("vCPU {cpu} {name}"), difference)));
        }
        let mut posts = self.posts;
        self.apics.iter().for_each(|apic| posts.add(&apic.ledger().posts));
        let taken = |apic: &LocalApic| apic.ledger().sources.of(Source::Mailbox).asserted;
        let waiting = |mailbox: &crate::mailbox::Mailbox| mailbox.waiting();
        let (requests, nmis) = self.bus.mailboxes().iter().map(waiting).fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        let arrived = self.apics.iter().map(taken).sum::<u64>() + requests;
        all.push(("posts to mailboxes".to_owned(), i128::from(posts.requests) - i128::from(arrived)));
        all.push(("NMIs to mailboxes".to_owned(), i128::from(posts.nmis) - i128::from(self.nmis + nmis)));
        all.retain(|(_, difference)| *difference != 0);
        all
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_account_balances_after_every_step(steps in prop::collection::vec(step(), 1..200)) {
        let mut system = System::new();
        for step in steps {
            let what = format!("{step:?}");
            system.apply(step);
            prop_assert_eq!(system.imbalances(), vec![], "after {}", what);
        }
    }
}

#[test]
fn an_increment_left_out_is_noticed_wherever_it_is() {
    let mut apic = ApicLedger::default();
    for source in Source::ALL {
        *apic.source(source) = Account { asserted: 5, delivered: 3, merged: 1, ..Account::default() };
        apic.source(source).dropped.masked = 1;
        apic.requests.asserted += 3;
    }
    apic.events = 1;
    apic.requests.asserted -= 1;
    apic.requests.delivered = apic.requests.asserted - 2;
    apic.in_service =
        Account { asserted: apic.requests.delivered, delivered: apic.requests.delivered - 1, ..Account::default() };
    apic.nmis = Account { asserted: 3, delivered: 1, merged: 1, ..Account::default() };
    apic.ipis = Account { asserted: 2, delivered: 2, ..Account::default() };
    let pending = Pending { requests: 2, in_service: 1, nmis: 1 };
    assert_eq!(apic.imbalances(pending), []);

    let forget: [fn(&mut ApicLedger); 12] = [
        |l| l.source(Source::Timer).asserted -= 1,
        |l| l.source(Source::Timer).delivered -= 1,
        |l| l.source(Source::Timer).merged -= 1,
        |l| l.source(Source::Timer).dropped.masked -= 1,
        |l| l.events -= 1,
        |l| l.requests.asserted -= 1,
        |l| l.requests.delivered -= 1,
        |l| l.in_service.asserted -= 1,
        |l| l.in_service.delivered -= 1,
        |l| l.nmis.asserted -= 1,
        |l| l.nmis.merged -= 1,
        |l| l.ipis.delivered -= 1,
    ];
    for (number, forget) in forget.into_iter().enumerate() {
        let mut broken = apic;
        forget(&mut broken);
        assert_ne!(broken.imbalances(pending), [], "increment {number}");
    }
}

#[test]
fn a_difference_says_what_is_missing_and_what_was_made_up() {
    let account = Account { asserted: 10, delivered: 6, merged: 1, ..Account::default() };
    assert_eq!(account.difference(3), 0);
    assert_eq!(account.difference(0), 3, "three are missing");
    assert_eq!(account.difference(5), -2, "two were made up");
}
