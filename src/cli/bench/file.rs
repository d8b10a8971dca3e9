//! Result files: reading, writing, joining.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use vmm::Error;

use super::results::{FORMAT, Host, Results, VERSION};
use super::statistics;
use crate::cli::outcome;

#[cfg(test)]
mod tests;

/// More than a file of many hosts has: a round of one row is about 2 KB.
const MAX_BYTES: u64 = 1 << 30;

/// What a file of any version says of itself.
#[derive(Deserialize)]
struct Head {
    format: Option<String>,
    version: Option<u32>,
}

/// Reads a result file. An error is one line that says whether it is cut short, of another version, damaged, or not ours.
pub fn read(path: &Path) -> Result<Results, Error> {
    let shown = path.display();
    let unreadable =
        |e: std::io::Error| Error::Usage(format!("{shown} can't be read: {e}; give a file of 'bench --json'"));
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::Usage(format!("{shown} is larger than 1 GiB; give a file of 'bench --json'")));
    }
    parse(&bytes).map_err(|problem| Error::Usage(format!("{shown} {problem}")))
}

/// Writes a result file; `-` is standard output.
pub fn write(path: &Path, results: &Results) -> Result<(), Error> {
    let json =
        serde_json::to_string_pretty(results).map_err(|e| Error::host("the results can't be written as JSON", e))?;
    if path == Path::new("-") {
        outcome::say(&(json + "\n"));
        return Ok(());
    }
    std::fs::write(path, json + "\n")
        .map_err(|e| Error::Usage(format!("{} can't be written: {e}; give another file", path.display())))
}

/// All hosts and runs of the files, each once; a host's runs in the order they were made.
pub fn merge(files: impl IntoIterator<Item = Results>) -> Results {
    let mut hosts: Vec<Host> = Vec::new();
    for host in files.into_iter().flat_map(|file| file.hosts) {
        match hosts.iter_mut().find(|known| known.fingerprint == host.fingerprint) {
            Some(known) => {
                let new: Vec<_> = host.runs.into_iter().filter(|run| !known.runs.contains(run)).collect();
                known.runs.extend(new);
            }
            None => hosts.push(host),
        }
    }
    for host in &mut hosts {
        host.runs.sort_by_key(|run| run.started);
    }
    Results { format: FORMAT.to_owned(), version: VERSION, hosts }
}

fn parse(bytes: &[u8]) -> Result<Results, String> {
    let head: Head = serde_json::from_slice(bytes).map_err(|e| match () {
        () if bytes.trim_ascii().is_empty() => "is empty; run 'bench --json' again".to_owned(),
        // Only what begins as ours can be ours, cut short.
        () if begins_as_ours(bytes) && is_at_end(&e, bytes) => {
            let line = e.line();
            format!("is cut short: it ends in line {line} where more must follow; copy it again, or run 'bench --json' again")
        }
        () if begins_as_ours(bytes) => format!("is damaged: {e}; run 'bench --json' again"),
        () => "is no result file: it is not JSON of ours; give a file of 'bench --json'".to_owned(),
    })?;
    if head.format.as_deref() != Some(FORMAT) {
        return Err(format!("is no result file: its \"format\" is not {FORMAT:?}; give a file of 'bench --json'"));
    }
    match head.version {
        Some(VERSION) => {}
        Some(other) => {
            return Err(format!(
                "has version {other} of the format, and this program reads version {VERSION}; read it with the program that wrote it"
            ));
        }
        None => return Err("is damaged: it has no version; run 'bench --json' again".to_owned()),
    }
    let results = serde_json::from_slice(bytes).map_err(|e| format!("is damaged: {e}; run 'bench --json' again"))?;
    check(&results).map_err(|problem| format!("is damaged: {problem}; run 'bench --json' again"))?;
    Ok(results)
}

fn begins_as_ours(bytes: &[u8]) -> bool {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    let dense: String = head.chars().filter(|c| !c.is_whitespace()).collect();
    let start = format!("{{\"format\":\"{FORMAT}\"");
    dense.starts_with(&start) || start.starts_with(&dense)
}

/// The error is that there is no more: a number that ends with its point is "invalid", not "cut short", to the parser.
fn is_at_end(error: &serde_json::Error, bytes: &[u8]) -> bool {
    let last_line = bytes.rsplit(|byte| *byte == b'\n').next().unwrap_or(bytes);
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
    error.is_eof() || error.line() == lines && error.column() >= last_line.len()
}

/// What the schema does not say: every histogram can be decoded, and names are names.
fn check(results: &Results) -> Result<(), String> {
    let rows = results.hosts.iter().flat_map(|host| &host.runs).flat_map(|run| &run.rows);
    for row in rows {
        for name in [&row.kind, &row.mode] {
            let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
            if !good {
                return Err(format!("{name:?} is no name of a kind or mode"));
            }
        }
        for round in &row.rounds {
            statistics::decode(&round.histogram)
                .map_err(|e| format!("{}/{}, round {}: {e}", row.mode, row.kind, round.number))?;
        }
    }
    Ok(())
}
