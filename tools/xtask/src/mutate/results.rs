//! What the results of `tophalf stress` say of a fault.

use std::fmt;

use serde_json::Value;

#[cfg(test)]
mod tests;

/// Whether a fault was found.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// A test found it.
    Found(Failure),
    /// No test failed.
    Survived,
    /// Tests did not get to their end, and none said that something was wrong: how each of them ended.
    Unreported(Vec<String>),
    /// The test that failed with it fails without it, too.
    Unfit(Failure),
}

/// A test that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The test.
    pub test: String,
    /// Who judged it.
    pub judge: Judge,
    /// Why, the first line.
    pub why: String,
}

/// Who judged that a test has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// The test.
    Test,
    /// The guest kernel, which gave up.
    Guest,
    /// A limit of the suite.
    Limit,
    /// Nobody: the machine was gone.
    Nobody,
}

/// What a run of some tests tells.
#[derive(Debug, PartialEq)]
pub enum Run {
    /// Nothing failed.
    Clean,
    /// The first failure.
    Failed(Failure),
    /// There are no results.
    NoResults,
}

impl Verdict {
    /// A test found the fault.
    pub fn is_found(&self) -> bool {
        matches!(self, Self::Found(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(failure) => write!(f, "found by {failure}"),
            Self::Survived => f.write_str("SURVIVED: no test finds it"),
            Self::Unreported(how) => {
                write!(f, "NOT REPORTED: no test says that something is wrong; {}", how.join("; "))
            }
            Self::Unfit(failure) => write!(f, "NOT JUDGED: without the fault, too, {failure}"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { test, judge, why } = self;
        write!(f, "{test} ({judge}: {why})")
    }
}

impl fmt::Display for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Test => "check",
            Self::Guest => "guest kernel",
            Self::Limit => "limit",
            Self::Nobody => "no report",
        })
    }
}

/// Reads what `tophalf stress --json FILE` has written.
pub fn read(json: &str) -> Run {
    let json: Value = serde_json::from_str(json).unwrap_or_default();
    let Some(tests) = json["tests"].as_array() else { return Run::NoResults };
    match tests.iter().find(|test| !matches!(test["outcome"].as_str(), Some("passed" | "known" | "skipped"))) {
        Some(test) => failure(test).map_or(Run::NoResults, Run::Failed),
        None => Run::Clean,
    }
}

fn failure(test: &Value) -> Option<Failure> {
    let judge = match test["judge"].as_str()? {
        "test" => Judge::Test,
        "guest" => Judge::Guest,
        "limit" => Judge::Limit,
        "nobody" => Judge::Nobody,
        _ => return None,
    };
    let why = test["why"].as_str()?.lines().next().unwrap_or_default().to_owned();
    Some(Failure { test: test["name"].as_str()?.to_owned(), judge, why })
}
