//! What is to be run: tests, modes, vCPUs.

use std::fmt::Write;

use vmm::Error;
use vmm::protocol::words;
use vmm::test_record::{Modes, Needs, TestRecord};

#[cfg(test)]
mod tests;

/// From here on a name that does not exist is taken for a slip of one that does.
const ALIKE: f64 = 0.7;

/// Where the interrupt controllers live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All in this program.
    User,
    /// The local APICs in KVM.
    Split,
    /// All in KVM.
    Kernel,
}

impl Mode {
    /// From its name.
    ///
    /// # Errors
    ///
    /// A usage error that names them all.
    pub fn parse(name: &str) -> Result<Self, Error> {
        let mode = [Self::User, Self::Split, Self::Kernel].into_iter().find(|mode| mode.name() == name);
        mode.ok_or_else(|| Error::Usage(format!("{name:?} is no mode; give --irqchip user, split or kernel")))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => words::USER,
            Self::Split => words::SPLIT,
            Self::Kernel => words::KERNEL,
        }
    }

    /// Its bit in a test's record.
    pub fn bit(self) -> Modes {
        match self {
            Self::User => Modes::USER,
            Self::Split => Modes::SPLIT,
            Self::Kernel => Modes::KERNEL,
        }
    }
}

/// How a test came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every check held.
    Passed,
    /// A check failed, or the guest or the machine did.
    Failed,
    /// It can't run here.
    Skipped,
    /// It failed where it is known to.
    Known,
}

/// One run of one test.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The test.
    pub test: &'a TestRecord<u64>,
    /// The mode.
    pub mode: Mode,
    /// vCPUs of its machine.
    pub cpus: u32,
}

impl Job<'_> {
    /// What the test's own verdict means in this mode.
    pub fn judge(&self, passed: bool) -> Verdict {
        let known = Modes::from_bits_retain(self.test.known_modes).contains(self.mode.bit());
        match (passed, known) {
            (true, false) => Verdict::Passed,
            (false, true) => Verdict::Known,
            _ => Verdict::Failed,
        }
    }
}

/// Everything that is to be run.
pub struct Plan<'a> {
    tests: Vec<&'a TestRecord<u64>>,
    modes: Vec<Mode>,
    cpus: u32,
    /// The seed of the first round.
    pub seed: u64,
}

impl<'a> Plan<'a> {
    /// Selects from `tests` those that match one of `patterns` (all if there are none).
    ///
    /// # Errors
    ///
    /// A usage error for a pattern that matches nothing, naming the nearest test if one is near, and when none of the tests is for these
    /// modes.
    pub fn new(
        tests: &'a [TestRecord<u64>],
        patterns: &[String],
        modes: Vec<Mode>,
        cpus: u32,
        seed: u64,
    ) -> Result<Self, Error> {
        for pattern in patterns {
            if !tests.iter().any(|test| matches(pattern, test.name())) {
                let scored = tests.iter().map(|test| (strsim::jaro_winkler(pattern, test.name()), test.name()));
                let hint = match scored.max_by(|(a, _), (b, _)| a.total_cmp(b)) {
                    Some((alike, nearest)) if alike >= ALIKE => format!("did you mean {nearest:?}? "),
                    _ => String::new(),
                };
                return Err(Error::Usage(format!(
                    "no test is called {pattern:?}; {hint}'tophalf stress --list' names all"
                )));
            }
        }
        let wanted = |test: &TestRecord<u64>| {
            patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, test.name()))
        };
        let plan = Self { tests: tests.iter().filter(|test| wanted(test)).collect(), modes, cpus, seed };
        if plan.jobs().next().is_none() {
            let modes: Vec<_> = plan.modes.iter().map(|mode| mode.name()).collect();
            let modes = modes.join(",");
            return Err(Error::Usage(format!("none of these tests runs with --irqchip {modes}; give other modes")));
        }
        Ok(plan)
    }

    /// Every run of a round, mode by mode.
    pub fn jobs(&self) -> impl Iterator<Item = Job<'a>> {
        self.modes.iter().flat_map(move |&mode| {
            let here = move |test: &TestRecord<u64>| Modes::from_bits_retain(test.modes).contains(mode.bit());
            self.tests.iter().filter(move |test| here(test)).map(move |&test| Job {
                test,
                mode,
                cpus: self.cpus.max(test.cpus.into()),
            })
        })
    }

    /// The tests with what they need, one a line.
    pub fn list(&self) -> String {
        let mut list = String::new();
        for test in &self.tests {
            let rows: Vec<String> = test.row_numbers().map(|row| format!("C{row}")).collect();
            let mut needs: Vec<String> = test.needed().iter_names().map(|(name, _)| name.to_lowercase()).collect();
            if test.cpus > 1 {
                needs.insert(0, format!("{} CPUs", test.cpus));
            }
            if test.needed().contains(Needs::PROCESSOR) {
                needs.retain(|need| need != "processor");
                needs.push("a processor for ring 0".into());
            }
            // Writing to a string does not fail.
            let _ = writeln!(list, "{:48} {:16} {}", test.name(), rows.join(" "), needs.join(", "));
        }
        list
    }
}

/// `pattern` is a name, or has one or more `*` for any text.
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(head) else { return false };
    rest.char_indices().map(|(at, _)| &rest[at..]).chain([""]).any(|rest| matches(tail, rest))
}
