//! `tophalf audit`: whether the ledgers in a file of `--stats` balance.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use vmm::stats::{FORMAT, Moment, Snapshot, VERSION};

use super::outcome;

/// Exit code for a ledger that does not balance.
const UNBALANCED: u8 = 1;

/// What to audit.
#[derive(Debug, Args)]
pub struct AuditArguments {
    /// A file that 'tophalf run --stats' has written
    file: PathBuf,
}

/// What every version of the file says of itself.
#[derive(Deserialize)]
struct Header {
    format: String,
    version: u32,
}

/// Audits each line of the file. 0: all balance; 1: some do not, named on stdout; 2: it is no such file, or cut short.
pub fn audit(arguments: &AuditArguments) -> ExitCode {
    match read(&arguments.file) {
        Err(message) => outcome::of_error(&vmm::Error::Usage(message)),
        Ok(snapshots) => {
            let (text, balanced) = report(&snapshots);
            outcome::say(&text);
            if balanced { ExitCode::SUCCESS } else { ExitCode::from(UNBALANCED) }
        }
    }
}

fn read(path: &Path) -> Result<Vec<Snapshot>, String> {
    let name = path.display();
    let bytes =
        fs::read(path).map_err(|e| format!("{name} can't be read: {e}; name a file of 'tophalf run --stats'"))?;
    parse(&bytes).map_err(|why| format!("{name} {why}"))
}

/// The snapshots in the file, one a line; at least one.
fn parse(bytes: &[u8]) -> Result<Vec<Snapshot>, String> {
    const NOT_OURS: &str = "is no file of 'tophalf run --stats'; name one that is";
    const CUT: &str = "is cut short: its last line has no end; let the machine end by itself, and its disk have room";
    let text = std::str::from_utf8(bytes).map_err(|_| NOT_OURS)?;
    let whole = text.ends_with('\n');
    let mut snapshots = Vec::new();
    let lines = text.lines().count();
    for (number, line) in text.lines().enumerate() {
        let header: Header = match serde_json::from_str(line) {
            Ok(header) => header,
            Err(_) if number + 1 == lines && !whole && line.starts_with("{\"format\":\"tophalf-stats\"") => {
                return Err(CUT.to_owned());
            }
            Err(_) => return Err(NOT_OURS.to_owned()),
        };
        if header.format != FORMAT {
            return Err(NOT_OURS.to_owned());
        }
        if header.version != VERSION {
            return Err(format!(
                "has version {} and this program reads version {VERSION}; use the tophalf that wrote it",
                header.version
            ));
        }
        let snapshot =
            serde_json::from_str(line).map_err(|e| format!("is damaged in line {}: {e}; write it anew", number + 1))?;
        snapshots.push(snapshot);
    }
    match (snapshots.is_empty(), whole) {
        (true, _) => Err("is empty: the machine has not ended, or had no room to write; wait for its end".to_owned()),
        (_, false) => Err(CUT.to_owned()),
        _ => Ok(snapshots),
    }
}

/// What there is to say, and whether all balance.
fn report(snapshots: &[Snapshot]) -> (String, bool) {
    let (mut text, mut balanced) = (String::new(), true);
    for (number, snapshot) in snapshots.iter().enumerate() {
        for imbalance in snapshot.imbalances() {
            balanced = false;
            text.push_str(&format!("line {}, machine {}: {imbalance}\n", number + 1, snapshot.machine));
        }
    }
    if balanced {
        let ends = snapshots.iter().filter(|snapshot| snapshot.moment == Moment::End).count();
        let end = snapshots.last().and_then(|snapshot| snapshot.ends.clone());
        let where_to = end.map_or_else(String::new, |end| format!("; it ends {end}"));
        let lines = snapshots.len();
        text = format!("the ledger balances: {lines} of {lines} lines, {ends} at the end of a machine{where_to}\n");
    }
    (text, balanced)
}

#[cfg(test)]
mod tests;
