//! From a chain to a request (VIRTIO 1.2, section "Device Operation" of the block device): header, data, status byte.
//!
//! A chain without room for a status can't be answered: that breaks the device. Everything else that is wrong is answered
//! with an error status.

use vm_memory::GuestAddress;

use super::super::Memory;
use super::super::queue::{Broken, Buffer, Chain, read, total, write};
use super::storage::Storage;
use super::{MAX_RANGE_SECTORS, MAX_RANGES, SECTOR, result};

/// Bytes of the header: type, reserved, sector.
const HEADER: u64 = 16;
/// Bytes of a range of discard and write zeroes: sector, number of sectors, flags.
const RANGE: usize = 16;
/// Write zeroes: the space may be given up.
const UNMAP: u32 = 1 << 0;
/// Bytes of the answer to get-id.
const ID_BYTES: u64 = 20;

const TYPE_READ: u32 = 0;
const TYPE_WRITE: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;
const TYPE_DISCARD: u32 = 11;
const TYPE_WRITE_ZEROES: u32 = 13;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Disk to memory.
    Read { offset: u64, data: Vec<Buffer> },
    /// Memory to disk; `durable`: the answer means that it is on the disk.
    Write { offset: u64, data: Vec<Buffer>, durable: bool },
    /// Everything to the disk.
    Flush,
    /// Ranges that nobody needs, offsets and lengths.
    Discard { ranges: Vec<(u64, u64)>, durable: bool },
    /// Ranges that are to be zero, with whether the space may be given up.
    WriteZeroes { ranges: Vec<(u64, u64, bool)>, durable: bool },
}

/// A request for a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What the used ring is to say.
    pub head: u16,
    /// Where the status goes.
    pub status: Buffer,
    /// What is to be done.
    pub action: Action,
}

/// What became of a chain.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Something to do.
    Request(Request),
    /// Nothing: the answer is known.
    Answered { status: Buffer, result: u8 },
}

/// Reads a chain's header; `durable`: the driver can't flush, so that writes are to be on the disk when they are answered.
pub fn parse(chain: &Chain, memory: &Memory, storage: &dyn Storage, durable: bool) -> Result<Parsed, Broken> {
    let (out, into) = (chain.readable(), chain.writable());
    let (into, status) = split_status(into).ok_or_else(|| Broken("a request without room for its status".into()))?;
    let answer = |result| Ok(Parsed::Answered { status, result });
    let request = |action| Ok(Parsed::Request(Request { head: chain.head(), status, action }));

    let mut header = [0; HEADER as usize];
    if read(memory, out, 0, &mut header) < header.len() {
        return answer(result::IO_ERROR);
    }
    let [kind, _, low, high] = [0, 4, 8, 12].map(|at| dword(&header, at));
    let sector = u64::from(high) << 32 | u64::from(low);
    let out = skip(out, HEADER);
    let read_only = storage.is_read_only();
    match kind {
        TYPE_READ => match extent(sector, total(&into), storage) {
            Some(offset) => request(Action::Read { offset, data: into }),
            None => answer(result::IO_ERROR),
        },
        TYPE_WRITE => match extent(sector, total(&out), storage) {
            Some(offset) if !read_only => request(Action::Write { offset, data: out, durable }),
            _ => answer(result::IO_ERROR),
        },
        TYPE_FLUSH => request(Action::Flush),
        TYPE_GET_ID => {
            let mut id = [0; ID_BYTES as usize];
            for (byte, value) in id.iter_mut().zip(storage.id()) {
                *byte = *value;
            }
            let fits = total(&into) >= ID_BYTES && write(memory, &into, 0, &id) == id.len();
            answer(if fits { result::OK } else { result::IO_ERROR })
        }
        TYPE_DISCARD | TYPE_WRITE_ZEROES if read_only => answer(result::IO_ERROR),
        TYPE_DISCARD => match ranges(&out, memory, storage, 0) {
            Ok(ranges) => {
                let ranges = ranges.into_iter().map(|(offset, len, _)| (offset, len)).collect();
                request(Action::Discard { ranges, durable })
            }
            Err(result) => answer(result),
        },
        TYPE_WRITE_ZEROES => match ranges(&out, memory, storage, UNMAP) {
            Ok(ranges) => request(Action::WriteZeroes { ranges, durable }),
            Err(result) => answer(result),
        },
        _ => answer(result::UNSUPPORTED),
    }
}

/// The last byte to be written is the status; what is before it is data.
fn split_status(into: &[Buffer]) -> Option<(Vec<Buffer>, Buffer)> {
    let last = into.iter().rposition(|buffer| buffer.len > 0)?;
    let mut data = into[..=last].to_vec();
    let buffer = data.last_mut()?;
    buffer.len -= 1;
    let address = GuestAddress(buffer.address.0 + u64::from(buffer.len));
    Some((data, Buffer { address, len: 1 }))
}

/// What is behind the first `bytes`.
fn skip(buffers: &[Buffer], mut bytes: u64) -> Vec<Buffer> {
    let rest = buffers.iter().map(|buffer| {
        let skipped = bytes.min(buffer.len.into());
        bytes -= skipped;
        Buffer { address: GuestAddress(buffer.address.0 + skipped), len: buffer.len - skipped as u32 }
    });
    rest.filter(|buffer| buffer.len > 0).collect()
}

/// Where `len` bytes from `sector` on start, if the disk has all of them, and they are sectors.
fn extent(sector: u64, len: u64, storage: &dyn Storage) -> Option<u64> {
    let offset = sector.checked_mul(SECTOR)?;
    let end = offset.checked_add(len)?;
    (len.is_multiple_of(SECTOR) && end <= storage.bytes()).then_some(offset)
}

/// Ranges with their flag; the status if there is something wrong with them. Flags other than `known` are not supported.
fn ranges(out: &[Buffer], memory: &Memory, storage: &dyn Storage, known: u32) -> Result<Vec<(u64, u64, bool)>, u8> {
    let bytes = total(out);
    let count = bytes / RANGE as u64;
    if !bytes.is_multiple_of(RANGE as u64) || count == 0 || count > MAX_RANGES.into() {
        return Err(result::IO_ERROR);
    }
    let mut data = vec![0; bytes as usize];
    if read(memory, out, 0, &mut data) < data.len() {
        return Err(result::IO_ERROR);
    }
    data.chunks_exact(RANGE)
        .map(|range| {
            let [low, high, sectors, flags] = [0, 4, 8, 12].map(|at| dword(range, at));
            if flags & !known != 0 {
                return Err(result::UNSUPPORTED);
            }
            let len = u64::from(sectors) * SECTOR;
            let offset = extent(u64::from(high) << 32 | u64::from(low), len, storage);
            let offset = offset.filter(|_| sectors <= MAX_RANGE_SECTORS).ok_or(result::IO_ERROR)?;
            Ok((offset, len, flags & UNMAP != 0))
        })
        .collect()
}

fn dword(bytes: &[u8], at: usize) -> u32 {
    bytes.iter().skip(at).take(4).rev().fold(0, |bits, &byte| bits << 8 | u32::from(byte))
}
