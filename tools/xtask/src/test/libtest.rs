//! Reads what Rust's test programs print.

/// The reason that marks a test as one for a later step: not skipped, only not yet run.
pub const LATER: &str = "needs real KVM: run by cargo xtask test";

/// How a test says that it can't do its work here; behind it comes why. For Rust it has passed.
const SKIPPED: &str = "SKIPPED: ";
/// The argument with which a test program prints what tests say that pass.
pub const SHOW: &str = "--show-output";

/// How many tests went how.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that did not run.
    pub skipped: u64,
}

impl Count {
    /// One thing that passed or failed.
    pub fn one(passed: bool) -> Self {
        Self { passed: passed.into(), failed: (!passed).into(), skipped: 0 }
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Adds up the lines of one or more test programs.
#[derive(Default)]
pub struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    later: u64,
    begun: u64,
    ended: u64,
    /// Of the program that has begun and not summed up yet.
    so_far: Count,
    /// It prints what passed tests have said.
    shows: bool,
    /// The test whose words come next has already said that it did not do its work.
    has_said: bool,
    /// Tests that said so, and why, each reason once.
    gave_up: u64,
    reasons: Vec<String>,
}

impl Tally {
    /// Takes one line.
    pub fn line(&mut self, line: &str) {
        if line.starts_with("running ") && (line.ends_with(" tests") || line.ends_with(" test")) {
            self.begun += 1;
            self.so_far = Count::default();
        } else if let Some((_, result)) = parse_test(line) {
            // With a reason the line reads "ignored, REASON".
            self.later += u64::from(result.strip_prefix("ignored, ") == Some(LATER));
            match result {
                "ok" => self.so_far.passed += 1,
                "FAILED" => self.so_far.failed += 1,
                _ => {}
            }
        } else if let Some(fields) = line.strip_prefix("test result: ") {
            self.ended += 1;
            self.shows = false;
            self.passed += field(fields, "passed");
            self.failed += field(fields, "failed");
            self.ignored += field(fields, "ignored");
        } else if line == "successes:" || line == "failures:" {
            self.shows = line == "successes:";
        } else if line.starts_with("---- ") {
            self.has_said = false;
        } else if let Some(reason) = line.strip_prefix(SKIPPED).filter(|_| self.shows && !self.has_said) {
            self.has_said = true;
            self.gave_up += 1;
            if !self.reasons.iter().any(|known| known == reason) {
                self.reasons.push(reason.to_owned());
            }
        }
    }

    /// Why tests did not do their work, if they said so.
    pub fn why(&self) -> Option<String> {
        (!self.reasons.is_empty()).then(|| self.reasons.join("; "))
    }

    /// A program has begun, and not summed up.
    pub fn is_running(&self) -> bool {
        self.begun > self.ended
    }

    /// The program was stopped, through no fault of its own, and won't sum up: what its tests have said counts.
    pub fn stopped(&mut self) {
        self.passed += self.so_far.passed;
        self.failed += self.so_far.failed;
        self.so_far = Count::default();
        self.ended = self.begun;
    }

    /// The sum. Tests left for a later step are not counted, those that said that they did not do their work are skipped; a program that
    /// began and never summed up, because it crashed, counts as one failure.
    pub fn count(&self) -> Count {
        Count {
            passed: self.passed.saturating_sub(self.gave_up),
            failed: self.failed + self.begun.saturating_sub(self.ended),
            skipped: self.ignored.saturating_sub(self.later) + self.gave_up,
        }
    }
}

/// Splits "test NAME ... RESULT".
pub fn parse_test(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.split_once(" ... ")
}

/// Lines kept of what one failed test printed.
const SHOWN: usize = 60;

/// What the failed tests of all programs printed, and their names: the parts of the output between "failures:" and the result, each
/// test's cut to its first lines, where the reason is.
pub fn failures(output: &[String]) -> Vec<&str> {
    let mut within = false;
    let mut shown = 0;
    let mut kept = Vec::new();
    for line in output.iter().map(String::as_str) {
        match line {
            "failures:" => (within, shown) = (true, 0),
            _ if line.starts_with("test result: ") => within = false,
            _ if line.starts_with("---- ") => shown = 0,
            _ => {}
        }
        if within && shown < SHOWN {
            kept.push(line);
            shown += 1;
        }
    }
    kept
}

/// What one failed test of Rust's printed.
pub fn story<'a>(output: &'a [String], test: &str) -> impl Iterator<Item = &'a str> {
    let heading = format!("---- {test} stdout ----");
    let lines = output.iter().map(String::as_str).skip_while(move |line| *line != heading).skip(1);
    lines.take_while(|line| !line.starts_with("---- ") && *line != "failures:")
}

/// The names of the tests that failed: of Rust's test programs, and of the guest kernel's ("MODE FAILED TIME s NAME: WHY").
pub fn failed(output: &[String]) -> Vec<&str> {
    output.iter().filter_map(|line| failed_test(line)).collect()
}

fn failed_test(line: &str) -> Option<&str> {
    if let Some((name, "FAILED")) = parse_test(line) {
        return Some(name);
    }
    let mut words = line.split_whitespace();
    let name = words.nth(1).filter(|word| *word == "FAILED").and_then(|_| words.nth(2))?;
    Some(name.trim_end_matches(':'))
}

fn field(fields: &str, name: &str) -> u64 {
    let number = |part: &str| part.trim().strip_suffix(name)?.trim().rsplit(' ').next()?.parse().ok();
    fields.split(';').find_map(number).unwrap_or(0)
}

#[cfg(test)]
mod tests;
