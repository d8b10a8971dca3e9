//! What the reference drivers share: seeds, the count of operations, the run, the shrinking and the printing.
//!
//! A driver is a [`Rig`]: the program's chip and a reference model side by side. It makes up the next operation, runs
//! it on both and says where they differ. The run is cut into episodes, each with chips just made, so that a divergence
//! has a short history; this history is shrunk and printed as a test to paste.
//!
//! - `TOPHALF_REFERENCE_OPS`: how many operations (default [`Rig::OPERATIONS`]), half from a fixed seed and half from a new one.
//! - `TOPHALF_REFERENCE_SEED`: all from this seed, to see a divergence again.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Debug;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

const FIXED_SEED: u64 = 0x8259_a082_0930_aa00;
/// From this many operations on, a sight that was never seen means that the generator is blind to it.
const ENOUGH_TO_SEE: u64 = 200_000;

/// SplitMix64: small, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence that `seed` gives.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end
    }

    /// True `times` times in `of`.
    pub fn chance(&mut self, times: u64, of: u64) -> bool {
        self.below(of) < times
    }

    /// Eight random bits.
    pub fn byte(&mut self) -> u8 {
        self.bits() as u8
    }

    /// One of `choices`, which are not none.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// How often a driver saw what it is there to see.
pub type Sights = BTreeMap<&'static str, u64>;

/// The program's chip and the reference, side by side.
pub trait Rig: Sized {
    /// One operation, with all that it depends on.
    type Op: Clone + Debug;

    /// How many operations a run has unless the environment says otherwise.
    const OPERATIONS: u64 = 300_000;
    /// How many operations an episode has.
    const EPISODE: u64;
    /// The function that replays operations, where what a divergence prints is pasted.
    const REPLAY: &'static str = "replay";
    /// What a run must have seen, or the generator is blind.
    const SIGHTS: &'static [&'static str];

    /// Both just powered on.
    fn new() -> Self;
    /// Makes up the next operation; may look at the reference to find a telling one.
    fn invent(&mut self, random: &mut Random) -> Self::Op;
    /// Runs `op` on both; the error says where they differ.
    fn step(&mut self, op: &Self::Op) -> Result<(), String>;
    /// For how many operations `op` stands.
    fn size(_op: &Self::Op) -> u64 {
        1
    }
    /// Smaller operations that may do instead of `op`.
    fn simpler(_op: &Self::Op) -> Vec<Self::Op> {
        Vec::new()
    }
    /// Adds what this episode saw.
    fn sights(&self, _seen: &mut Sights) {}
}

/// Where program and reference differ, and the shortest way there.
#[derive(Debug)]
pub struct Divergence<Op> {
    /// The seed of the run.
    pub seed: u64,
    /// The operations, shrunk; the last one shows the difference.
    pub ops: Vec<Op>,
    /// What differs.
    pub what: String,
}

impl<Op: Debug> Divergence<Op> {
    /// The report: the seed and a test to paste, which calls `replay`.
    pub fn report(&self, replay: &str) -> String {
        let mut text = format!("seed {:#x} (TOPHALF_REFERENCE_SEED={}): {}\n\n", self.seed, self.seed, self.what);
        let _ = write!(text, "#[test]\nfn what_the_seed_found() {{\n    {replay}(&[\n");
        for op in &self.ops {
            let _ = writeln!(text, "        {op:?},");
        }
        text.push_str("    ]);\n}\n");
        text
    }
}

/// Runs the driver for as many operations as the environment says; a divergence fails the test.
pub fn drive<R: Rig>() {
    let operations = number("TOPHALF_REFERENCE_OPS").unwrap_or(R::OPERATIONS);
    let seeds = match number("TOPHALF_REFERENCE_SEED") {
        Some(seed) => vec![seed],
        None => vec![FIXED_SEED, new_seed()],
    };
    let mut seen = Sights::new();
    for seed in &seeds {
        if let Err(divergence) = run::<R>(*seed, operations / seeds.len() as u64, &mut seen) {
            panic!("program and reference differ, {}", divergence.report(R::REPLAY));
        }
    }
    println!("{operations} operations, seeds {seeds:x?}, seen: {seen:?}");
    if operations >= ENOUGH_TO_SEE && seeds.len() > 1 {
        for sight in R::SIGHTS {
            assert!(seen.get(sight).is_some_and(|count| *count > 0), "never seen: {sight}, seeds {seeds:x?}");
        }
    }
}

/// At least `operations` operations from `seed`, in episodes.
pub fn run<R: Rig>(seed: u64, operations: u64, seen: &mut Sights) -> Result<(), Box<Divergence<R::Op>>> {
    let mut random = Random::new(seed);
    let mut done = 0;
    let mut ops = Vec::new();
    while done < operations {
        let end = (done + R::EPISODE).min(operations);
        let mut rig = R::new();
        ops.clear();
        while done < end {
            let op = rig.invent(&mut random);
            done += R::size(&op);
            ops.push(op);
            let last = ops.len() - 1;
            if rig.step(&ops[last]).is_err() {
                let ops = shrink::<R>(ops);
                let what = outcome::<R>(&ops).map_or_else(|| "does not happen again".to_owned(), |(_, what)| what);
                return Err(Box::new(Divergence { seed, ops, what }));
            }
        }
        rig.sights(seen);
    }
    Ok(())
}

/// Runs `ops` on fresh chips; fails where program and reference differ.
pub fn replay<R: Rig>(ops: &[R::Op]) {
    if let Some((at, what)) = outcome::<R>(ops) {
        panic!("operation {at}, {:?}: {what}", ops[at]);
    }
}

/// Where `ops` first diverge, if they do.
fn outcome<R: Rig>(ops: &[R::Op]) -> Option<(usize, String)> {
    let mut rig = R::new();
    ops.iter().enumerate().find_map(|(at, op)| rig.step(op).err().map(|what| (at, what)))
}

/// Delta debugging: leaves out what is not needed and simplifies what is left, as long as either helps.
fn shrink<R: Rig>(mut ops: Vec<R::Op>) -> Vec<R::Op> {
    loop {
        let before = ops.len();
        ops = simplify::<R>(leave_out::<R>(ops));
        if ops.len() == before {
            return leave_out::<R>(ops);
        }
    }
}

/// Leaves out ever smaller pieces as long as the rest still diverges.
fn leave_out<R: Rig>(mut ops: Vec<R::Op>) -> Vec<R::Op> {
    let mut piece = ops.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        let mut smaller = false;
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + piece).min(ops.len()));
            if let Some((end, _)) = outcome::<R>(&fewer) {
                fewer.truncate(end + 1);
                ops = fewer;
                smaller = true;
            } else {
                at += piece;
            }
        }
        if piece > 1 {
            piece = piece.div_ceil(2);
        } else if !smaller {
            return ops;
        }
    }
    ops
}

/// Makes single operations simpler as long as the whole still diverges.
fn simplify<R: Rig>(mut ops: Vec<R::Op>) -> Vec<R::Op> {
    for at in 0..ops.len() {
        while let Some(simpler) = R::simpler(&ops[at]).into_iter().find_map(|op| {
            let mut changed = ops.clone();
            changed[at] = op;
            outcome::<R>(&changed).is_some().then_some(changed)
        }) {
            ops = simpler;
        }
    }
    ops
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    let digits = text.replace('_', "");
    let parsed = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    Some(parsed.unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn new_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64)
}
