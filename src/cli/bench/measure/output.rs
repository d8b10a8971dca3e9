//! The files that a run writes. They are opened before it, so that one that can't be written is known at once.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use vmm::Error;

use super::gather::Gathered;
use crate::cli::bench::results::{Results, Table};
use crate::cli::outcome;

/// Where the results go, besides the table.
pub struct Outputs {
    json: Option<(PathBuf, File)>,
    json_on_stdout: bool,
    hist: Option<(PathBuf, File)>,
}

impl Outputs {
    /// Opens the files, which are made anew; `-` is standard output.
    ///
    /// # Errors
    ///
    /// A usage error for one that can't be made.
    pub fn open(json: Option<&Path>, hist: Option<&Path>) -> Result<Self, Error> {
        let create = |path: &Path| File::create(path).map(|file| (path.to_owned(), file)).map_err(|e| bad(path, &e));
        let json_on_stdout = json == Some(Path::new("-"));
        Ok(Self {
            json: json.filter(|_| !json_on_stdout).map(create).transpose()?,
            json_on_stdout,
            hist: hist.map(create).transpose()?,
        })
    }

    /// Standard output has the results, and room for nothing else.
    pub fn on_stdout(&self) -> bool {
        self.json_on_stdout
    }

    /// Writes them.
    pub fn write(&self, results: &Results, gathered: &Gathered) -> Result<(), Error> {
        let json = serde_json::to_string_pretty(results)
            .map_err(|e| Error::host("the results can't be written as JSON", e))?
            + "\n";
        if self.json_on_stdout {
            outcome::say(&json);
        }
        if let Some((path, mut file)) = self.json.as_ref().map(|(path, file)| (path, file)) {
            file.write_all(json.as_bytes()).map_err(|e| bad(path, &e))?;
        }
        if let Some((path, file)) = &self.hist {
            interval_log(file, gathered).map_err(|e| bad(path, &e))?;
        }
        Ok(())
    }
}

/// A line for each round of each row, tagged `kind:mode`; the interval's start is the round's number.
fn interval_log(file: &File, gathered: &Gathered) -> io::Result<()> {
    let (mut file, mut serializer) = (BufWriter::new(file), V2DeflateSerializer::new());
    {
        let mut writer = IntervalLogWriterBuilder::new()
            .add_comment("latencies in ns; the start of an interval is the round's number")
            .begin_log_with(&mut file, &mut serializer)?;
        for (table, mode, kind, rounds) in gathered.histograms() {
            let table = match table {
                Table::Best => "",
                Table::SameCpuid => ":same-cpuid",
                Table::Traced => ":traced",
            };
            let name = format!("{kind}:{}{table}", mode.name());
            // Fails for names with commas or blanks, which these have not.
            let Some(tag) = Tag::new(&name) else { continue };
            for (number, histogram) in rounds {
                let start = Duration::from_secs((*number).into());
                writer
                    .write_histogram(histogram, start, Duration::from_secs(1), Some(tag))
                    .map_err(|e| io::Error::other(format!("{e:?}")))?;
            }
        }
    }
    file.flush()
}

fn bad(path: &Path, error: &io::Error) -> Error {
    Error::Usage(format!("{} can't be written: {error}; give another file", path.display()))
}
