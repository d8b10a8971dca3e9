//! Traces for viewers: Chrome JSON and Perfetto protobuf, both made of one timeline.
//!
//! A timeline has a track for each vCPU (its thread), for the I/O APIC, for the 8259A pair, and for each other thread. Slices
//! on a track are one in the other or apart; what goes from one to another is a flow.

mod chrome;
mod perfetto;
#[cfg(test)]
mod tests;
mod timeline;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::{Recording, Story};
use crate::Error;
pub use timeline::{Slice, Timeline, Track};

/// The form of a trace file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// This program's own.
    Native,
    /// The JSON that `chrome://tracing` and Perfetto read.
    Chrome,
    /// Perfetto's protobuf.
    Perfetto,
}

impl Format {
    /// By the name's extension: `.json` is Chrome's, `.pftrace` and `.perfetto-trace` are Perfetto's, others our own.
    pub fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Self::Chrome,
            Some("pftrace" | "perfetto-trace") => Self::Perfetto,
            _ => Self::Native,
        }
    }
}

/// Reads the native trace at `from` and writes it to `to` in another format.
///
/// # Errors
///
/// It can't be read (a usage error), or written.
pub fn convert(from: &Path, to: &Path, format: Format) -> Result<(), Error> {
    let story = Story::of(&Recording::read(from)?);
    write(&story, to, format)
}

/// Writes `story` to `path`, in a format that is not ours.
///
/// # Errors
///
/// It can't be written; or our own format is asked for, which is not made of stories.
pub fn write(story: &Story, path: &Path, format: Format) -> Result<(), Error> {
    let timeline = Timeline::of(story);
    let written = File::create(path).and_then(|file| {
        let mut out = BufWriter::new(file);
        match format {
            Format::Chrome => chrome::write(&timeline, &mut out)?,
            Format::Perfetto => perfetto::write(&timeline, &mut out)?,
            Format::Native => return Err(std::io::Error::other("a native trace is not an export")),
        }
        out.flush()
    });
    written.map_err(|e| Error::Usage(format!("{} can't be written: {e}; give another file", path.display())))
}
