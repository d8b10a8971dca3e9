//! What holds whatever the guest does.

use std::collections::BTreeSet;

use proptest::prelude::*;
use x86::apic::{TriggerMode, reg};
use x86::msr::IA32_TSC_DEADLINE;

use super::tests::*;
use super::*;

/// Anything that can happen to a local APIC.
#[derive(Debug, Clone)]
enum Step {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    ReadMsr(u32),
    WriteMsr(u32, u64),
    WriteBase(u64),
    Post(u8, bool),
    Lint(usize, bool),
    PostLint0(bool),
    Acknowledge,
    Cr8(u8),
    Expire(u64),
    Init,
}

fn register() -> impl Strategy<Value = u64> {
    prop_oneof![0..0x1000u64, (0..0x40u64).prop_map(|n| n * 16)]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        any::<u8>().prop_map(u64::from),
        (0..64u32).prop_map(|bit| 1 << bit),
        any::<u32>().prop_map(u64::from)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let number = prop_oneof![0x800..0x900u32, Just(IA32_TSC_DEADLINE), any::<u32>()];
    let base =
        prop_oneof![any::<u64>(), (0..4u64).prop_map(|bits| 0xfee0_0000 | bits << 10), Just(0xfee0_0000 | ENABLE)];
    prop_oneof![
        3 => (register(), 0..17usize).prop_map(|(at, size)| Step::Read(at, size)),
        2 => (register(), prop::collection::vec(any::<u8>(), 0..17)).prop_map(|(at, data)| Step::Write(at, data)),
        6 => (register(), value()).prop_map(|(at, v)| Step::Write(at & !0xf, (v as u32).to_le_bytes().to_vec())),
        3 => number.clone().prop_map(Step::ReadMsr),
        6 => (number, value()).prop_map(|(number, v)| Step::WriteMsr(number, v)),
        1 => base.prop_map(Step::WriteBase),
        6 => (any::<u8>(), any::<bool>()).prop_map(|(vector, level)| Step::Post(vector, level)),
        2 => (0..2usize, any::<bool>()).prop_map(|(pin, level)| Step::Lint(pin, level)),
        1 => any::<bool>().prop_map(Step::PostLint0),
        6 => Just(Step::Acknowledge),
        1 => any::<u8>().prop_map(Step::Cr8),
        3 => any::<u64>().prop_map(Step::Expire),
        1 => Just(Step::Init),
    ]
}

fn trigger(level: bool) -> TriggerMode {
    if level { LEVEL } else { EDGE }
}

fn apply(apic: &mut LocalApic, mailbox: &Mailbox, now: u64, step: &Step) {
    match step {
        Step::Read(at, size) => apic.read_mmio(now, *at, &mut vec![0; *size]),
        Step::Write(at, data) => {
            let _ = apic.write_mmio(now, *at, data);
        }
        Step::ReadMsr(number) => {
            let _ = apic.read_msr(now, *number);
        }
        Step::WriteMsr(number, value) => {
            let _ = apic.write_msr(now, *number, *value);
        }
        Step::WriteBase(value) => {
            let _ = apic.write_base(*value);
        }
        Step::Post(vector, level) => {
            let _ = mailbox.post(*vector, trigger(*level));
            let _ = apic.collect(mailbox);
        }
        Step::Lint(pin, level) => apic.set_lint(*pin, *level),
        Step::PostLint0(level) => {
            let _ = mailbox.post_lint0(*level);
            let _ = apic.collect(mailbox);
        }
        Step::Acknowledge => {
            let _ = apic.acknowledge();
        }
        Step::Cr8(class) => apic.set_cr8(*class),
        Step::Expire(tsc) => apic.expire(Now { ns: now, tsc: *tsc }),
        Step::Init => apic.init(),
    }
}

fn check(apic: &LocalApic) {
    for set in [apic.irr(), apic.isr()] {
        assert!((0..16).all(|vector| !set.contains(vector)), "an illegal vector was accepted");
    }
    if apic.mode() == Mode::Disabled {
        assert!(apic.irr().is_empty() && apic.isr().is_empty() && apic.next_deadline().is_none());
        assert_eq!(apic.address(), Address::DISABLED);
    }
    if let Some(vector) = apic.deliverable() {
        assert!(!apic.blocked_by_tpr());
        assert!(vector >> 4 > apic.ppr() >> 4 && vector >> 4 > apic.cr8());
        assert!((vector..=255).skip(1).all(|higher| !apic.irr().contains(higher)));
        assert!(apic.isr().highest().is_none_or(|in_service| in_service >> 4 < vector >> 4));
    }
    assert!(apic.ppr() >> 4 >= apic.cr8());
    if let Some(Deadline::Tsc(tsc)) = apic.next_deadline() {
        assert_ne!(tsc, 0);
    }
}

/// A local APIC as the manual tells it, with sets of numbers: no words, no bits.
#[derive(Default)]
struct Naive {
    irr: BTreeSet<u8>,
    isr: BTreeSet<u8>,
    level: BTreeSet<u8>,
    tpr: u8,
}

impl Naive {
    fn accept(&mut self, vector: u8, level: bool) {
        if vector >= 16 {
            self.irr.insert(vector);
            if level {
                self.level.insert(vector)
            } else {
                self.level.remove(&vector)
            };
        }
    }

    fn acknowledge(&mut self) -> Option<u8> {
        let request = *self.irr.last()?;
        let priority = self.isr.last().map_or(0, |vector| vector / 16).max(self.tpr / 16);
        (request / 16 > priority).then(|| {
            self.irr.remove(&request);
            self.isr.insert(request);
            request
        })
    }

    fn eoi(&mut self) -> Effect {
        match self.isr.pop_last() {
            Some(vector) if self.level.contains(&vector) => Effect::Eoi(vector),
            _ => Effect::None,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_access_and_no_event_breaks_the_apic(
        steps in prop::collection::vec((0..5_000_000u64, step()), 1..200),
        cmci in any::<bool>(),
        tsc_deadline in any::<bool>(),
    ) {
        let mut apic = LocalApic::new(Config { cmci, tsc_deadline, ..config() });
        let mailbox = Mailbox::default();
        let mut now = 0;
        for (time, step) in &steps {
            now += time;
            apply(&mut apic, &mailbox, now, step);
            check(&apic);
        }
        prop_assert!(!mailbox.is_pending());
    }

    #[test]
    fn priorities_are_those_of_a_naive_model(
        steps in prop::collection::vec((0..5u8, any::<u8>(), any::<bool>()), 1..300),
    ) {
        let (mut apic, mut naive) = (xapic(), Naive::default());
        for (what, value, level) in steps {
            match what {
                0 => {
                    post(&mut apic, value, trigger(level));
                    naive.accept(value, level);
                }
                1 => {
                    apic.accept(value, trigger(level));
                    naive.accept(value, level);
                }
                2 => prop_assert_eq!(apic.acknowledge(), naive.acknowledge()),
                3 => {
                    let before = apic.isr().len();
                    prop_assert_eq!(write(&mut apic, reg::EOI, value.into()), naive.eoi());
                    prop_assert_eq!(apic.isr().len(), before.saturating_sub(1), "exactly one ends");
                }
                _ => {
                    let _ = write(&mut apic, reg::TPR, value.into());
                    naive.tpr = value;
                }
            }
            prop_assert_eq!(apic.isr().highest(), naive.isr.last().copied());
            prop_assert_eq!(apic.irr().highest(), naive.irr.last().copied());
        }
    }

    #[test]
    fn no_request_is_lost_and_none_is_invented(vectors in prop::collection::btree_set(16..=255u8, 0..60)) {
        let mut apic = xapic();
        let mailbox = Mailbox::default();
        for &vector in &vectors {
            let _ = mailbox.post(vector, trigger(vector % 3 == 0));
        }
        let _ = apic.collect(&mailbox);
        let mut delivered = Vec::new();
        while let Some(vector) = apic.acknowledge() {
            let ended = apic.eoi();
            prop_assert_eq!(ended, if vector % 3 == 0 { Effect::Eoi(vector) } else { Effect::None });
            delivered.push(vector);
        }
        prop_assert!(delivered.into_iter().eq(vectors.into_iter().rev()), "each once, highest first");
    }

    #[test]
    fn a_periodic_timer_fires_on_its_grid_and_never_twice_for_one_period(
        period in 100_000..5_000_000u32,
        looks in prop::collection::vec(0..20_000_000u64, 1..100),
    ) {
        let mut apic = xapic();
        let _ = write(&mut apic, reg::LVT_TIMER, 0x2_00ec);
        let _ = write(&mut apic, reg::TIMER_DIVIDE, 0b1011);
        let _ = write(&mut apic, reg::TIMER_INITIAL, period);
        let (mut now, mut periods) = (0, 0);
        for time in looks {
            now += time;
            apic.expire(Now { ns: now, tsc: 0 });
            let fired = apic.acknowledge().is_some();
            let _ = apic.eoi();
            prop_assert_eq!(fired, now / u64::from(period) > periods);
            periods = now / u64::from(period);
            prop_assert_eq!(apic.next_deadline(), Some(Deadline::At((periods + 1) * u64::from(period))));
        }
    }
}
