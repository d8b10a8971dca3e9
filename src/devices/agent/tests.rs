use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use irqchip::line::{LineTarget, Msi, MsiTarget, Wire};
use parking_lot::Mutex;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use x86::agent::*;

use super::{Agent, AgentHost, Event, Injected, Moment, Tally};
use crate::testing::Clock;

const RAM: usize = 1 << 20;
const BLOCK: u64 = 0x1000;
const TEXT: u64 = 0x2000;
const COUNTER: u64 = 0x3000;

/// The machine round the agent: everything that happens, in order; the time; and whether the TSC offset is unknown.
#[derive(Default)]
struct World(Mutex<Vec<String>>, AtomicU64, AtomicBool);

impl World {
    fn note(&self, what: String) {
        self.0.lock().push(what);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

impl AgentHost for World {
    fn event(&self, event: Event) {
        self.note(serde_json::to_string(&event).unwrap());
    }

    fn nmi(&self, apic_id: u32) -> bool {
        self.note(format!("nmi {apic_id}"));
        apic_id == 0
    }

    fn injected(&self, apic_id: u32, what: Injected) -> Option<u64> {
        match (apic_id, what) {
            (1, Injected::Vector(0x30)) => Some(7),
            (1, Injected::Nmi) => Some(8),
            _ => None,
        }
    }

    fn halts(&self, apic_id: u32) -> Option<(u64, u64)> {
        (apic_id == 2).then_some((5, 4))
    }

    /// A TSC of 3 GHz that is always 100 ns after the request or expiry at hand.
    fn moment(&self) -> Moment {
        let ns = self.1.load(Ordering::Relaxed) + 100;
        Moment { tsc: 3 * ns, is_guests: !self.2.load(Ordering::Relaxed), ns, hz: 3_000_000_000 }
    }

    fn tally(&self) -> Tally {
        Tally { exits: 1, kicks: 2, ioctls: 3, system_calls: 4 }
    }
}

impl LineTarget for World {
    fn set_level(&self, gsi: u8, level: bool) {
        self.note(format!("line {gsi} {}", u8::from(level)));
    }
}

impl MsiTarget for World {
    fn send(&self, address: u64, data: u32) {
        self.note(format!("msi {address:#x} {data:#x}"));
    }
}

struct Rig {
    agent: Agent<GuestMemoryMmap>,
    memory: GuestMemoryMmap,
    world: Arc<World>,
    clock: Arc<Clock>,
}

impl Rig {
    fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
        let world = Arc::new(World::default());
        let clock = Arc::new(Clock::default());
        let wires = (0..24).map(|gsi| Wire::new(gsi, world.clone())).collect();
        let agent = Agent::new(memory.clone(), wires, Msi::new(world.clone()), world.clone(), clock.clone());
        Self { agent, memory, world, clock }
    }

    /// Writes a request, has it carried out, gives status and replies.
    fn ask(&self, now: u64, op: u32, args: [u64; 5]) -> (Status, [u64; 2]) {
        let mut block = [0u8; REQUEST_SIZE];
        block[..4].copy_from_slice(&op.to_le_bytes());
        block[4..8].fill(0xaa);
        for (i, arg) in args.iter().enumerate() {
            block[8 + 8 * i..16 + 8 * i].copy_from_slice(&arg.to_le_bytes());
        }
        self.memory.write_slice(&block, GuestAddress(BLOCK)).unwrap();
        self.agent.write(now, 0, &(BLOCK as u32).to_le_bytes());
        self.memory.read_slice(&mut block, GuestAddress(BLOCK)).unwrap();
        let answer = Request::from_bytes(&block);
        (Status::from_bits(answer.status).expect("an answer"), answer.reply)
    }

    fn raise(&self, now: u64, source: Source, schedule: Schedule, rest: [u64; 4]) -> (Status, u64) {
        let what = u64::from(source as u8) | u64::from(schedule as u8) << 8;
        let [target, nanos, events, counter] = rest;
        let (status, [handle, _]) = self.ask(now, Op::Raise as u32, [what, target, nanos, events, counter]);
        (status, handle)
    }

    fn counter(&self) -> u64 {
        self.memory.read_obj(GuestAddress(COUNTER)).unwrap()
    }
}

#[test]
fn the_ports_say_who_they_are() {
    let rig = Rig::new();
    let mut data = [0; 4];
    rig.agent.read(0, &mut data);
    assert_eq!(u32::from_le_bytes(data), SIGNATURE);
    rig.agent.read(4, &mut data);
    assert_eq!(u32::from_le_bytes(data), VERSION);
    for (offset, len) in [(0, 1), (1, 4), (4, 2), (7, 1)] {
        let mut data = vec![0; len];
        rig.agent.read(offset, &mut data);
        assert_eq!(data, vec![0xff; len], "{offset}, {len}");
    }
}

#[test]
fn reports_reach_the_host_as_they_are() {
    let rig = Rig::new();
    rig.memory.write_slice("1\u{e9}\n2".as_bytes(), GuestAddress(TEXT)).unwrap();
    let requests = [
        (Op::Log, [TEXT, 5, 0, 0, 0], r#"{"event":"log","text":"1é\n2"}"#),
        (Op::Panic, [TEXT, 1, 0, 0, 0], r#"{"event":"panic","text":"1"}"#),
        (Op::Begin, [3, 0, 0, 0, 0], r#"{"event":"begin","index":3}"#),
        (Op::Complete, [0, u64::MAX, 9, 0, 0], r#"{"event":"complete","outcome":"passed","text":""}"#),
        (Op::Complete, [1, TEXT, 1, 0, 0], r#"{"event":"complete","outcome":"failed","text":"1"}"#),
        (Op::Complete, [2, TEXT, 1, 0, 0], r#"{"event":"complete","outcome":"skipped","text":"1"}"#),
        (Op::Measure, [TEXT, 1, u64::MAX, 0, 0], r#"{"event":"measure","name":"1","value":18446744073709551615}"#),
        (
            Op::Count,
            [3, 4, 3, 1, 0],
            r#"{"event":"count","kind":"self-ipi","sent":4,"delivered":3,"merged":1,"spurious":0}"#,
        ),
    ];
    for (op, args, expected) in requests {
        assert_eq!(rig.ask(0, op as u32, args), (Status::Done, [0, 0]), "{op:?}");
        assert_eq!(rig.world.take(), [expected]);
    }
}

#[test]
fn a_text_is_cut_off_and_must_be_in_memory() {
    let rig = Rig::new();
    assert_eq!(rig.ask(0, Op::Log as u32, [TEXT, u64::MAX, 0, 0, 0]).0, Status::Done);
    let [log] = &rig.world.take()[..] else { panic!("one report") };
    assert_eq!(log.matches("\\u0000").count(), TEXT_MAX);
    for (address, len) in [(RAM as u64 - 1, 2), (u64::MAX, 2), (RAM as u64, 1)] {
        assert_eq!(rig.ask(0, Op::Log as u32, [address, len, 0, 0, 0]).0, Status::BadArgument);
    }
    assert!(rig.world.take().is_empty());
}

#[test]
fn a_request_that_is_nowhere_is_dropped_and_one_that_is_nonsense_answered() {
    let rig = Rig::new();
    for address in [BLOCK as u32 + 8, RAM as u32, u32::MAX, u32::MAX - 63] {
        rig.agent.write(0, 0, &address.to_le_bytes());
    }
    rig.agent.write(0, 0, &[0x10, 0]);
    rig.agent.write(0, 4, &(BLOCK as u32).to_le_bytes());
    assert_eq!(rig.ask(0, 0, [0; 5]).0, Status::NoSuchOp);
    assert_eq!(rig.ask(0, 99, [0; 5]).0, Status::NoSuchOp);
    for (op, args) in [
        (Op::Complete, [3, 0, 0, 0, 0]),
        (Op::Count, [8, 0, 0, 0, 0]),
        (Op::Raise, [0; 5]),
        (Op::Raise, [0x0001, 24, 0, 1, 0]),
        (Op::Raise, [0x0001, u64::MAX, 0, 1, 0]),
        (Op::Raise, [0x0001, 4, 0, 0, 0]),
        (Op::Raise, [0x0001, 4, 0, EVENTS_AT_ONCE_MAX + 1, 0]),
        (Op::Raise, [0x0101, 4, 1, EVENTS_AT_ONCE_MAX + 1, 0]),
        (Op::Raise, [0x0201, 4, PERIOD_MIN - 1, 1, 0]),
        (Op::Raise, [0x1_0001, 4, 0, 1, 0]),
        (Op::Raise, [0x0001, 4, 0, 1, COUNTER + 4]),
        (Op::Raise, [0x0001, 4, 0, 1, RAM as u64]),
        (Op::Raise, [0x0004, 1 << 32, 0, 1, 0]),
        (Op::Stop, [1, 0, 0, 0, 0]),
        (Op::Query, [u64::MAX, 0, 0, 0, 0]),
        (Op::Acknowledge, [0; 5]),
        (Op::SetLine, [24, 1, 0, 0, 0]),
        (Op::SetLine, [3, 2, 0, 0, 0]),
        (Op::Injected, [1, 0x101, 0, 0, 0]),
        (Op::Injected, [u64::MAX, 0x30, 0, 0, 0]),
        (Op::Halts, [1 << 32, 0, 0, 0, 0]),
    ] {
        assert_eq!(rig.ask(0, op as u32, args).0, Status::BadArgument, "{op:?} {args:x?}");
    }
    assert!(rig.world.take().is_empty());
    assert_eq!(rig.clock.armed(), None);
}

#[test]
fn what_is_asked_for_now_has_happened_when_the_request_is_done() {
    let rig = Rig::new();
    assert_eq!(rig.raise(0, Source::Pulse, Schedule::Now, [4, 0, 2, COUNTER]), (Status::Done, 1));
    assert_eq!(rig.world.take(), ["line 4 1", "line 4 0", "line 4 1", "line 4 0"]);
    assert_eq!(rig.counter(), 2);
    let message = 0xfee0_0000 << 32 | 0x41;
    assert_eq!(rig.raise(0, Source::Msi, Schedule::Now, [message, 0, 1, 0]), (Status::Done, 2));
    assert_eq!(rig.world.take(), ["msi 0xfee00000 0x41"]);
    assert_eq!(rig.raise(0, Source::Nmi, Schedule::Now, [3, 0, 2, 0]), (Status::Done, 3));
    assert_eq!(rig.world.take(), ["nmi 3", "nmi 3"]);
    assert_eq!(rig.clock.armed(), None);
    for (handle, sent) in [(1, 2), (2, 1), (3, 2)] {
        assert_eq!(rig.ask(0, Op::Query as u32, [handle, 0, 0, 0, 0]), (Status::Done, [sent, 0]));
    }
}

#[test]
fn a_level_stays_up_until_it_is_acknowledged_and_merges_what_comes_meanwhile() {
    let rig = Rig::new();
    rig.raise(0, Source::Level, Schedule::Now, [9, 0, 3, 0]);
    assert_eq!(rig.world.take(), ["line 9 1"]);
    assert_eq!(rig.ask(0, Op::Acknowledge as u32, [1, 0, 0, 0, 0]), (Status::Done, [3, 2]));
    assert_eq!(rig.world.take(), ["line 9 0"]);

    // The agent's own hold on the same wire keeps it up.
    assert_eq!(rig.ask(0, Op::SetLine as u32, [9, 1, 0, 0, 0]).0, Status::Done);
    rig.raise(0, Source::Level, Schedule::Now, [9, 0, 1, 0]);
    assert_eq!(rig.ask(0, Op::Stop as u32, [2, 0, 0, 0, 0]), (Status::Done, [1, 0]));
    assert_eq!(rig.world.take(), ["line 9 1"]);
    assert_eq!(rig.ask(0, Op::SetLine as u32, [9, 0, 0, 0, 0]).0, Status::Done);
    assert_eq!(rig.world.take(), ["line 9 0"]);
}

#[test]
fn a_rate_is_kept_and_late_events_follow_each_with_its_number() {
    let rig = Rig::new();
    rig.raise(10_000, Source::Pulse, Schedule::Every, [5, 1_000, 4, COUNTER]);
    assert!(rig.world.take().is_empty());
    assert_eq!(rig.clock.take(), Some(11_000));
    rig.agent.expire(11_000);
    assert_eq!((rig.world.take().len(), rig.counter()), (2, 1));
    assert_eq!(rig.clock.take(), Some(12_000));
    // The main loop was late for two of them.
    rig.agent.expire(13_500);
    assert_eq!((rig.world.take().len(), rig.counter()), (4, 3));
    assert_eq!(rig.clock.take(), Some(14_000));
    rig.agent.expire(14_000);
    assert_eq!((rig.world.take().len(), rig.counter()), (2, 4));
    assert_eq!(rig.clock.take(), None);
    assert_eq!(rig.ask(0, Op::Query as u32, [1, 0, 0, 0, 0]), (Status::Done, [4, 0]));
}

#[test]
fn a_stopped_stream_raises_nothing_more() {
    let rig = Rig::new();
    rig.raise(0, Source::Level, Schedule::Every, [5, 1_000, 1_000, 0]);
    rig.agent.expire(1_000);
    assert_eq!(rig.world.take(), ["line 5 1"]);
    assert_eq!(rig.ask(1_500, Op::Stop as u32, [1, 0, 0, 0, 0]), (Status::Done, [1, 0]));
    assert_eq!(rig.world.take(), ["line 5 0"]);
    assert_eq!(rig.clock.armed(), None);
    rig.agent.expire(5_000);
    assert!(rig.world.take().is_empty());
}

#[test]
fn a_flood_leaves_room_for_others() {
    let rig = Rig::new();
    let later = [4, 1_000, EVENTS_AT_ONCE_MAX, 0];
    rig.raise(0, Source::Pulse, Schedule::After, later);
    rig.raise(0, Source::Pulse, Schedule::After, [5, 1_000, 1, 0]);
    assert_eq!(rig.clock.take(), Some(1_000));
    rig.agent.expire(1_000);
    let noted = rig.world.take();
    assert!(noted.len() < 1_000 && noted.iter().any(|note| note == "line 5 1"), "{}", noted.len());
    // The rest is due at once.
    assert_eq!(rig.clock.armed(), Some(1_000));
    for _ in 2..STREAMS_MAX {
        assert_eq!(rig.raise(0, Source::Pulse, Schedule::After, later).0, Status::Done);
    }
    assert_eq!(rig.raise(0, Source::Pulse, Schedule::After, later).0, Status::Busy);
    assert_eq!(rig.ask(0, Op::Stop as u32, [1, 0, 0, 0, 0]).0, Status::Done);
    assert_eq!(rig.raise(0, Source::Pulse, Schedule::After, later).0, Status::Done);
}

#[test]
fn what_the_host_counts_is_told_if_it_is_known() {
    let rig = Rig::new();
    let ask = |op: Op, a, b| rig.ask(0, op as u32, [a, b, 0, 0, 0]);
    assert_eq!(ask(Op::Injected, 1, 0x30), (Status::Done, [7, 0]));
    assert_eq!(ask(Op::Injected, 1, INJECTED_NMI), (Status::Done, [8, 0]));
    assert_eq!(ask(Op::Injected, 0, 0x30).0, Status::Unsupported);
    assert_eq!(ask(Op::Halts, 2, 0), (Status::Done, [5, 4]));
    assert_eq!(ask(Op::Halts, 0, 0).0, Status::Unsupported);
}

/// The times are those of the seed whatever the guest does, and the slots say them in the guest's own TSC.
#[test]
fn drawn_events_say_when_they_were_due() {
    const EVENTS: u64 = 500;
    let times = |seed: u64| {
        let rig = Rig::new();
        let what = Source::Msi as u64 | (Schedule::Drawn as u64) << 8 | seed << 32;
        let (status, [handle, _]) = rig.ask(1_000, Op::Raise as u32, [what, 7, 10_000, EVENTS, COUNTER]);
        assert_eq!(status, Status::Done);
        let slot = |n: u64| -> (u64, u64) {
            let at = COUNTER + 16 * (n + 1);
            (rig.memory.read_obj(GuestAddress(at)).unwrap(), rig.memory.read_obj(GuestAddress(at + 8)).unwrap())
        };
        // The host wakes late each time, and finds up to three events due.
        let (mut now, mut raised) = (1_000, 0);
        while raised < EVENTS {
            now += 20_000;
            rig.world.1.store(now, Ordering::Relaxed);
            rig.agent.expire(now);
            let until = rig.ask(now, Op::Query as u32, [handle, 0, 0, 0, 0]).1[0];
            for n in raised..until {
                let (due, sent) = slot(n);
                assert_eq!(sent, 3 * (now + 100), "event {n}");
                assert!(due <= 3 * now && due.is_multiple_of(3), "event {n} was due at {due}");
            }
            if until < EVENTS {
                assert_eq!(slot(until), (0, 0), "an event that was not raised yet");
            }
            assert_eq!(rig.counter(), until);
            raised = until;
        }
        assert_eq!(rig.world.take().len() as u64, EVENTS);
        (0..EVENTS).map(|n| slot(n).0 / 3).collect::<Vec<_>>()
    };
    let first = times(5);
    let distances: Vec<u64> = [1_000].iter().chain(&first).zip(&first).map(|(a, b)| b - a).collect();
    assert!(distances.iter().all(|distance| (5_000..15_000).contains(distance)), "{distances:?}");
    let mean = distances.iter().sum::<u64>() / EVENTS;
    assert!((9_500..10_500).contains(&mean), "mean {mean}");
    assert_eq!(first, times(5), "the same seed");
    assert_ne!(first, times(6), "another seed");
}

/// Looks what the guest can see at the moment of a message: the counter, and whether its event has a slot.
struct Looker {
    memory: GuestMemoryMmap,
    seen: Mutex<Vec<(u64, bool)>>,
}

impl MsiTarget for Looker {
    fn send(&self, _: u64, _: u32) {
        let count: u64 = self.memory.read_obj(GuestAddress(COUNTER)).unwrap();
        let raised: u64 = self.memory.read_obj(GuestAddress(COUNTER + 16 * count + 8)).unwrap();
        self.seen.lock().push((count, raised != 0));
    }
}

/// Whoever gets the interrupt of a drawn event finds it counted, whatever the time is by either clock.
#[test]
fn a_drawn_event_is_counted_before_it_is_raised() {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
    let looker = Arc::new(Looker { memory: memory.clone(), seen: Mutex::default() });
    let (world, clock) = (Arc::new(World::default()), Arc::new(Clock::default()));
    let agent = Agent::new(memory.clone(), Vec::new(), Msi::new(looker.clone()), world.clone(), clock.clone());
    let rig = Rig { agent, memory, world, clock };
    let what = Source::Msi as u64 | (Schedule::Drawn as u64) << 8;
    assert_eq!(rig.ask(0, Op::Raise as u32, [what, 7, 10_000, 3, COUNTER]).0, Status::Done);
    rig.agent.expire(100_000);
    assert_eq!(*looker.seen.lock(), [(1, true), (2, true), (3, true)]);
}

/// An acknowledge covers the events that it counts: all that found the line up. The next one raises it anew.
#[test]
fn an_acknowledge_says_which_drawn_events_it_covers() {
    let rig = Rig::new();
    let what = Source::Level as u64 | (Schedule::Drawn as u64) << 8;
    let (status, [handle, _]) = rig.ask(0, Op::Raise as u32, [what, 5, 10_000, 4, COUNTER]);
    assert_eq!(status, Status::Done);
    // At least one is due by then, since none comes after more than 15 us, and at most three, since none comes after less than 5.
    rig.agent.expire(19_999);
    assert_eq!(rig.world.take(), ["line 5 1"]);
    let (_, [covered, merged]) = rig.ask(0, Op::Acknowledge as u32, [handle, 0, 0, 0, 0]);
    assert_eq!((merged, rig.counter()), (covered - 1, covered));
    assert!((1..=3).contains(&covered), "{covered}");
    assert_eq!(rig.world.take(), ["line 5 0"]);
    rig.agent.expire(60_000);
    assert_eq!(rig.world.take(), ["line 5 1"], "the next one raises it anew");
    assert_eq!(rig.ask(0, Op::Acknowledge as u32, [handle, 0, 0, 0, 0]), (Status::Done, [4, 2]));
}

#[test]
fn drawn_events_need_slots_and_a_known_tsc() {
    let rig = Rig::new();
    let what = Source::Msi as u64 | (Schedule::Drawn as u64) << 8;
    let ask = |rest: [u64; 4]| rig.ask(0, Op::Raise as u32, [what, rest[0], rest[1], rest[2], rest[3]]).0;
    assert_eq!(ask([7, 10_000, 1, 0]), Status::BadArgument, "no slots");
    assert_eq!(ask([7, 10_000, 2, RAM as u64 - 32]), Status::BadArgument, "slots that end outside RAM");
    assert_eq!(ask([7, 10_000, 1, u64::MAX - 7]), Status::BadArgument, "slots that wrap");
    assert_eq!(ask([7, PERIOD_MIN - 1, 1, COUNTER]), Status::BadArgument, "too fast");
    assert_eq!(ask([7, u64::MAX, 1, COUNTER]), Status::BadArgument, "a distance without end");
    assert_eq!(ask([7, 10_000, EVENTS_AT_ONCE_MAX + 1, COUNTER]), Status::BadArgument, "too many");
    let seeded_pulse = Source::Pulse as u64 | 1 << 32;
    assert_eq!(rig.ask(0, Op::Raise as u32, [seeded_pulse, 1, 0, 1, 0]).0, Status::BadArgument, "a seed of nothing");
    rig.world.2.store(true, Ordering::Relaxed);
    assert_eq!(ask([7, 10_000, 1, COUNTER]), Status::Unsupported, "an unknown TSC offset");
    assert_eq!(rig.ask(0, Op::Clock as u32, [0; 5]).0, Status::Unsupported, "an unknown TSC offset");
}

#[test]
fn samples_clock_and_tally_are_reported() {
    let rig = Rig::new();
    rig.memory.write_slice(b"latency", GuestAddress(TEXT)).unwrap();
    for (n, word) in [7u64, 0, (-3i64).cast_unsigned(), 1_000].into_iter().enumerate() {
        rig.memory.write_obj(word, GuestAddress(COUNTER + 8 * n as u64)).unwrap();
    }
    let ask = |count, at| rig.ask(0, Op::Samples as u32, [TEXT, 7, at, count, 0]).0;
    assert_eq!(ask(2, COUNTER), Status::Done);
    assert_eq!(ask(0, COUNTER), Status::Done);
    assert_eq!(ask(2, RAM as u64 - 16), Status::BadArgument);
    assert_eq!(ask(SAMPLES_MAX + 1, COUNTER), Status::BadArgument);
    assert_eq!(ask(u64::MAX, COUNTER), Status::BadArgument);
    assert_eq!(rig.ask(0, Op::Clock as u32, [0; 5]), (Status::Done, [300, 100]));
    assert_eq!(rig.ask(0, Op::Tally as u32, [0; 5]).0, Status::Done);
    assert_eq!(
        rig.world.take(),
        [
            r#"{"event":"samples","name":"latency","samples":[[7,0],[-3,1000]]}"#,
            r#"{"event":"samples","name":"latency","samples":[]}"#,
            r#"{"event":"clock","tsc":300,"ns":100}"#,
            r#"{"event":"tally","exits":1,"kicks":2,"ioctls":3,"system_calls":4}"#,
        ]
    );
}
