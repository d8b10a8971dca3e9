//! Reading a trace back.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::event::{Event, Record, SLOT_BYTES, Slot};
use super::file::{HEADER_BYTES, Header, MAGIC, State, VERSION};
use crate::Error;

/// A trace that was read.
#[derive(Debug)]
pub struct Recording {
    /// In the order of their times.
    pub records: Vec<Record>,
    /// CLOCK_MONOTONIC at its start, in ns.
    pub start: u64,
    /// How many records were lost for want of room.
    pub lost: u64,
    /// The error that ended the trace before the machine's end, if one did.
    pub ended_early: Option<String>,
}

impl Recording {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// A usage error of one line: it can't be read, is none of ours, of another version, cut short, or damaged.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let name = path.display();
        let refused = |why: String| Error::Usage(why);
        let unreadable = |e: io::Error| refused(format!("the trace {name} can't be read: {e}; give another file"));
        let mut bytes = Vec::new();
        File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(unreadable)?;
        if !bytes.starts_with(&MAGIC[..bytes.len().clamp(1, MAGIC.len())]) {
            return Err(refused(format!(
                "{name} is no native trace of tophalf; give a file that 'tophalf run --trace FILE' has written \
                 (exports, .json and .pftrace, are for trace viewers)"
            )));
        }
        let cut = |what: &str| {
            refused(format!("the trace {name} is cut short: {what}; trace again, and let tophalf end by itself"))
        };
        let Some((head, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(cut("it ends in its header"));
        };
        let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        if version != VERSION {
            return Err(refused(format!(
                "the trace {name} is of version {version}, and this tophalf reads version {VERSION}; \
                 read it with the one that wrote it"
            )));
        }
        let damaged = |at: usize| refused(format!("the trace {name} is damaged at byte {at}; trace again"));
        let header = Header::decode(head).ok_or_else(|| damaged(8))?;
        if header.state == State::Open {
            return Err(cut("its writer has not ended, or was killed"));
        }
        let whole = (body.len() / SLOT_BYTES) as u64;
        if whole < header.slots {
            return Err(cut(&format!("{whole} of {} slots are there", header.slots)));
        }
        let slots: Vec<Slot> = body.chunks_exact(SLOT_BYTES).take(header.slots as usize).map(slot).collect();
        let mut records = decode(&slots).map_err(|at| damaged(HEADER_BYTES + at * SLOT_BYTES))?;
        records.sort_by_key(|record| record.stamp);
        let ended_early = match header.state {
            State::EndedEarly(errno) => Some(io::Error::from_raw_os_error(errno).to_string()),
            State::Open | State::Complete => None,
        };
        let told = records.iter().map(|record| if let Event::Dropped { records } = record.event { records } else { 0 });
        let lost = told.sum::<u64>().max(header.lost);
        Ok(Self { records, start: header.start, lost, ended_early })
    }
}

/// The records of `slots`; on an error, which slot begins none. A record that the end of a trace has cut is left out.
fn decode(slots: &[Slot]) -> Result<Vec<Record>, usize> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < slots.len() {
        match Record::decode(&slots[at..]) {
            Some((record, used)) => {
                records.extend(parts(record).into_iter().flatten());
                at += used;
            }
            None if slots.len() - at < 3 && Record::is_cut(&slots[at..]) => break,
            None => return Err(at),
        }
    }
    Ok(records)
}

/// A stay in the guest is two records: in, and out. Any other one is itself.
fn parts(record: Record) -> [Option<Record>; 2] {
    let Event::Stayed { vcpu, exit, entered } = record.event else { return [Some(record), None] };
    let entered = Record { stamp: entered, event: Event::Entered { vcpu }, ..record };
    [Some(entered), Some(Record { event: Event::Left { vcpu, exit }, ..record })]
}

fn slot(bytes: &[u8]) -> Slot {
    std::array::from_fn(|word| u64::from_le_bytes(std::array::from_fn(|byte| bytes[word * 8 + byte])))
}
