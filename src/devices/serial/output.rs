//! What the guest has sent and the main loop has not yet written out.

use std::collections::VecDeque;
use std::io::{self, Write};

/// Bytes held at most.
pub(super) const CAPACITY: usize = 64 * 1024;
/// At this many, the transmitter reports itself busy. What is left is room for what is on its way when the guest
/// finds out: each vCPU may have seen an empty transmitter and write a FIFO's worth.
pub(super) const HIGH_WATER: usize = CAPACITY - 4096;
/// At this many, a busy transmitter is ready again.
pub(super) const LOW_WATER: usize = CAPACITY / 4;

/// A bounded queue of sent bytes.
#[derive(Default)]
pub(super) struct Output {
    bytes: VecDeque<u8>,
    dropped: u64,
}

impl Output {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Copies the oldest bytes, as many as fit; they stay.
    pub(super) fn peek(&self, into: &mut [u8]) -> usize {
        let (first, second) = self.bytes.as_slices();
        let mut copied = 0;
        for part in [first, second] {
            let n = part.len().min(into.len() - copied);
            into[copied..copied + n].copy_from_slice(&part[..n]);
            copied += n;
        }
        copied
    }

    /// Forgets the `count` oldest bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.bytes.drain(..count.min(self.bytes.len()));
    }
}

/// How the chip sends: never blocks, never fails; a byte without room is lost and counted.
impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let kept = data.len().min(CAPACITY - self.bytes.len());
        self.bytes.extend(&data[..kept]);
        self.dropped += (data.len() - kept) as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
