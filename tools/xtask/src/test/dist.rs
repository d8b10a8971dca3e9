//! The step that makes what users get, and tries it in a fresh Debian.

use anyhow::Result;

use super::libtest::Count;
use super::step::{Report, say};
use crate::{dist, failure};

/// Makes the package, installs it in a tree, and counts what was tried.
///
/// # Errors
/// When something does not build.
pub fn run() -> Result<Report> {
    say("dist", "building");
    let made = dist::make()?;
    let checks = match dist::check(&made) {
        Ok(checks) => checks,
        // Making it is a test as well.
        Err(error) if failure::is_missing(&error) => {
            let reason = Some(format!("{error:#}"));
            return Ok(Report { count: Count { passed: 1, failed: 0, skipped: 1 }, reason, ..Report::default() });
        }
        Err(error) => return Err(error),
    };
    let mut report = Report { count: Count::one(true), ..Report::default() };
    for (what, good) in checks {
        report.count += Count::one(good);
        let word = if good { "ok" } else { "FAILED" };
        say("dist", format_args!("{what}: {word}"));
        report.output.push(format!("{what}: {word}"));
    }
    Ok(report)
}
