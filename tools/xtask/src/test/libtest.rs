//! Reads what Rust's test programs print.

/// The reason that marks a test as one for a later step: not skipped, only not yet run.
pub const LATER: &str = "needs real KVM: run by cargo xtask test";

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
}

impl Tally {
    /// Takes one line.
    pub fn line(&mut self, line: &str) {
        if line.starts_with("running ") && (line.ends_with(" tests") || line.ends_with(" test")) {
            self.begun += 1;
        } else if let Some((_, result)) = parse_test(line) {
            // With a reason the line reads "ignored, REASON".
            self.later += u64::from(result.strip_prefix("ignored, ") == Some(LATER));
        } else if let Some(fields) = line.strip_prefix("test result: ") {
            self.ended += 1;
            self.passed += field(fields, "passed");
            self.failed += field(fields, "failed");
            self.ignored += field(fields, "ignored");
        }
    }

    /// The sum. Tests left for a later step are not counted; a program that began and never summed up, because it
    /// crashed, counts as one failure.
    pub fn count(&self) -> Count {
        Count {
            passed: self.passed,
            failed: self.failed + self.begun.saturating_sub(self.ended),
            skipped: self.ignored.saturating_sub(self.later),
        }
    }
}

/// Splits "test NAME ... RESULT".
pub fn parse_test(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.split_once(" ... ")
}

fn field(fields: &str, name: &str) -> u64 {
    let number = |part: &str| part.trim().strip_suffix(name)?.trim().rsplit(' ').next()?.parse().ok();
    fields.split(';').find_map(number).unwrap_or(0)
}

#[cfg(test)]
mod tests;
