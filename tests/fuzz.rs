//! Fuzzing with seeded bytes, half of them new in each run: whatever guest, devices, user and files do, nothing panics or
//! overflows, memory and log stay bounded. A failure prints its seed and the shortest way there, as a test to paste.
//!
//! - `TOPHALF_REFERENCE_OPS`: how many operations (default 300,000), half from a fixed seed and half from a new one.
//! - `TOPHALF_REFERENCE_SEED`: all from this seed, to see a failure again.
//!
//! tools/fuzz has the same for libFuzzer.

#[path = "fuzz/mod.rs"]
mod fuzz;
mod reference_common;

use std::alloc::System;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use fuzz::boot::Boot;
use fuzz::machine::Machine;
use fuzz::op::{BYTES, Op, Target};
use fuzz::states::States;
use fuzz::virtio::Virtio;
use reference_common::{Random, Rig, Sights, drive, replay};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What a target may hold in heap memory: room for every bounded queue, and none for one that is not.
const MOST_BYTES: usize = 1 << 20;
/// Lines that a target may log in its life, whatever is done to it.
const MOST_LINES: u64 = 100;

static LINES: AtomicU64 = AtomicU64::new(0);

/// Counts what the program would write with `-vv`: all but the trace of single accesses.
struct Counter;

impl log::Log for Counter {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Debug
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            LINES.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps where a caught panic was, instead of printing it: shrinking meets it again and again.
fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| if CATCHING.get() { CAUGHT.set(info.to_string()) } else { print(info) }));
        // Another logger would be a bug of this file.
        log::set_logger(&Counter).expect("the first logger");
        log::set_max_level(log::LevelFilter::Debug);
    });
}

/// One test at a time: heap and log belong to the process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    prepare();
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A target whose panics, memory and lines are looked at.
struct Watched<T> {
    target: T,
    heap: Region<'static, System>,
    steps: u64,
    last: Op,
}

impl<T: Target> Rig for Watched<T> {
    type Op = Op;
    const EPISODE: u64 = T::LIFE;
    const SIGHTS: &'static [&'static str] = T::SIGHTS;

    fn new() -> Self {
        LINES.store(0, Ordering::Relaxed);
        let heap = Region::new(ALLOCATOR);
        Self { target: T::new(), heap, steps: 0, last: Op([0; BYTES]) }
    }

    /// Random bytes; or those of the operation before with one of them changed; or with a value that is all the same.
    fn invent(&mut self, random: &mut Random) -> Op {
        let mut op = Op(std::array::from_fn(|_| random.byte()));
        if random.chance(1, 8) {
            op.0[4..].fill(random.one_of(&[0x00, 0x01, 0x7f, 0x80, 0xff]));
        } else if random.chance(1, 8) {
            let at = random.below(BYTES as u64) as usize;
            (op, self.last.0[at]) = (self.last, op.0[at]);
        }
        self.last = op;
        op
    }

    fn step(&mut self, op: &Op) -> Result<(), String> {
        CATCHING.set(true);
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| self.target.step(op)));
        CATCHING.set(false);
        outcome.unwrap_or_else(|_| Err(CAUGHT.take()))?;
        self.steps += 1;
        if self.steps.is_multiple_of(64) {
            let change = self.heap.change();
            let held = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
            fuzz::op::check(held < MOST_BYTES, || format!("{held} bytes of heap after {} operations", self.steps))?;
        }
        let lines = LINES.load(Ordering::Relaxed);
        fuzz::op::check(lines <= MOST_LINES, || format!("{lines} lines in the log"))
    }

    fn size(op: &Op) -> u64 {
        T::size(op)
    }

    fn simpler(op: &Op) -> Vec<Op> {
        op.simpler()
    }

    fn sights(&self, seen: &mut Sights) {
        for (sight, count) in self.target.sights() {
            *seen.entry(sight).or_default() += count;
        }
    }
}

#[test]
fn whatever_a_guest_does_to_the_machine() {
    let _alone = alone();
    drive::<Watched<Machine>>();
}

#[test]
fn whatever_is_in_a_kernels_headers() {
    let _alone = alone();
    drive::<Watched<Boot>>();
}

#[test]
fn whatever_is_in_a_snapshot_of_the_chips() {
    let _alone = alone();
    drive::<Watched<States>>();
}

#[test]
fn whatever_a_driver_does_to_virtio_devices() {
    let _alone = alone();
    drive::<Watched<Virtio>>();
}

/// A target that does each thing wrong that the others must not.
struct Wrong(Vec<u8>);

impl Target for Wrong {
    const SIGHTS: &'static [&'static str] = &[];

    fn new() -> Self {
        Self(Vec::new())
    }

    fn step(&mut self, op: &Op) -> Result<(), String> {
        match op.kind(4) {
            0 => {}
            1 => drop([0_u8; 4].get(usize::from(op.place())).expect("a place below 4")),
            2 => self.0.resize(self.0.len() + 0x1_0000, 0),
            _ => log::info!("a line"),
        }
        Ok(())
    }

    fn sights(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// The watch sees a panic, a heap that grows and a log that floods, and nothing else.
#[test]
fn the_watch_is_awake() {
    let _alone = alone();
    let run = |op: [u8; 2], times: usize| {
        let mut bytes = [0; BYTES];
        bytes[..2].copy_from_slice(&op);
        let mut rig = Watched::<Wrong>::new();
        (0..times).find_map(|_| rig.step(&Op(bytes)).err())
    };
    assert_eq!(run([0, 0], 1000), None);
    assert_eq!(run([1, 3], 1000), None);
    assert!(run([1, 4], 1).is_some_and(|what| what.contains("a place below 4")));
    assert!(run([2, 0], 64).is_some_and(|what| what.contains("bytes of heap")));
    assert_eq!(run([3, 0], MOST_LINES as usize), None);
    assert!(run([3, 0], MOST_LINES as usize + 1).is_some_and(|what| what.contains("lines in the log")));
    // And a failure can be replayed.
    replay::<Watched<Wrong>>(&[Op([0; BYTES])]);
}
