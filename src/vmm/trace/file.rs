//! The file: a header, then slots. The header says how many there are once the trace has ended, so a file without it, or with
//! less, is told.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use super::event::{SLOT_BYTES, Slot};

/// What the file begins with.
pub const MAGIC: [u8; 8] = *b"TOPHALFT";
/// The form that this program writes, and the only one it reads.
pub const VERSION: u32 = 2;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is being written, or its writer was killed.
    Open,
    /// It has all there was.
    Complete,
    /// It could not be written any further: the error's number.
    EndedEarly(i32),
}

/// The file's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// How far it has come.
    pub state: State,
    /// How many slots it has, once it has ended.
    pub slots: u64,
    /// How many records were lost because a ring was full, or the file had ended early.
    pub lost: u64,
    /// CLOCK_MONOTONIC at the start, in ns.
    pub start: u64,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let (state, errno) = match self.state {
            State::Open => (0, 0),
            State::Complete => (1, 0),
            State::EndedEarly(errno) => (2, errno),
        };
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        for (at, word) in [VERSION, SLOT_BYTES as u32, state, errno as u32].into_iter().enumerate() {
            out[8 + at * 4..][..4].copy_from_slice(&word.to_le_bytes());
        }
        for (at, word) in [self.slots, self.lost, self.start].into_iter().enumerate() {
            out[24 + at * 8..][..8].copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// The header after its magic and version were looked at; `None` if it makes no sense.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let state = match word(16) {
            0 => State::Open,
            1 => State::Complete,
            2 => State::EndedEarly(word(20) as i32),
            _ => return None,
        };
        (word(12) as usize == SLOT_BYTES).then(|| Self { state, slots: long(24), lost: long(32), start: long(40) })
    }
}

/// A trace that is being written.
pub struct Output {
    /// None once it can't be written any more.
    file: Option<File>,
    header: Header,
    buffer: Vec<u8>,
}

impl Output {
    /// Begins a trace in `file`, which is empty.
    pub fn new(mut file: File, start: u64) -> io::Result<Self> {
        let header = Header { state: State::Open, slots: 0, lost: 0, start };
        file.write_all(&header.encode())?;
        Ok(Self { file: Some(file), header, buffer: Vec::new() })
    }

    /// Writes slots. An error ends the trace, and is given once.
    pub fn write(&mut self, slots: &[Slot]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            self.header.lost += slots.len() as u64;
            return Ok(());
        };
        self.buffer.clear();
        self.buffer.extend(slots.iter().flatten().flat_map(|word| word.to_le_bytes()));
        let written = file.write_all(&self.buffer);
        match written {
            Ok(()) => self.header.slots += slots.len() as u64,
            Err(ref e) => {
                self.header.lost += slots.len() as u64;
                // The first error is the one to tell of.
                let _ = self.end(State::EndedEarly(e.raw_os_error().unwrap_or(0)));
            }
        }
        written
    }

    /// Ends the trace; `lost` records were not written because there was no room in a ring.
    pub fn finish(&mut self, lost: u64) -> io::Result<()> {
        self.header.lost += lost;
        self.end(State::Complete)
    }

    /// The header takes no new room, so this works on a full disk. What was written of a slot in vain is cut off.
    fn end(&mut self, state: State) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        self.header.state = state;
        let length = HEADER_BYTES as u64 + self.header.slots * SLOT_BYTES as u64;
        file.set_len(length)?;
        file.write_all_at(&self.header.encode(), 0)
    }
}
