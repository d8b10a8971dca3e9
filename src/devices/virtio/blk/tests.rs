//! The device with its lanes run by hand, one request at a time.

use std::io as std_io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bottom_half::Process;
use parking_lot::Mutex;
use vm_memory::{Bytes, GuestAddress};

use super::super::queue::Queue;
use super::super::testing::{Ring, agree, go, memory};
use super::super::{Memory, status};
use super::*;

pub(super) const BYTES: u64 = 64 << 10;
/// Where a driver of these tests has things.
pub(super) const RING: u64 = 0x1_0000;
pub(super) const HEADER: u64 = 0x100;
pub(super) const DATA: u64 = 0x2_0000;
pub(super) const STATUS: u64 = 0x200;

/// A disk in memory.
pub(super) struct Ram {
    pub bytes: Mutex<Vec<u8>>,
    read_only: bool,
    pub fails: AtomicBool,
    pub flushes: AtomicUsize,
    /// What is below this needs no waiting.
    pub cached_up_to: AtomicU64,
    /// Reads and writes that were to be done without waiting.
    pub tried: AtomicUsize,
    /// All others.
    pub calls: AtomicUsize,
}

impl Ram {
    pub fn new(read_only: bool) -> Arc<Self> {
        let bytes = (0..BYTES).map(|at| (at / SECTOR) as u8).collect();
        Arc::new(Self {
            bytes: Mutex::new(bytes),
            read_only,
            fails: AtomicBool::new(false),
            flushes: AtomicUsize::new(0),
            cached_up_to: AtomicU64::new(0),
            tried: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
        })
    }

    /// One of which all needs no waiting, or nothing.
    pub fn cached(all: bool) -> Arc<Self> {
        let this = Self::new(false);
        this.cached_up_to.store(if all { BYTES } else { 0 }, Ordering::Relaxed);
        this
    }

    fn tries(&self, offset: u64) -> bool {
        self.tried.fetch_add(1, Ordering::Relaxed);
        offset < self.cached_up_to.load(Ordering::Relaxed)
    }

    fn part<R>(&self, offset: u64, len: usize, f: impl FnOnce(&mut [u8]) -> R) -> std_io::Result<R> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(std_io::Error::other("broken"));
        }
        let mut bytes = self.bytes.lock();
        let part = bytes.get_mut(offset as usize..offset as usize + len);
        part.map(f).ok_or_else(|| std_io::ErrorKind::UnexpectedEof.into())
    }
}

impl Storage for Ram {
    fn bytes(&self) -> u64 {
        BYTES
    }

    fn block_size(&self) -> u32 {
        512
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn id(&self) -> &[u8] {
        b"a disk"
    }

    fn try_read(&self, offset: u64, data: &mut [u8]) -> bool {
        self.tries(offset) && self.part(offset, data.len(), |part| data.copy_from_slice(part)).is_ok()
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> bool {
        self.tries(offset) && self.part(offset, data.len(), |part| part.copy_from_slice(data)).is_ok()
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> std_io::Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.part(offset, data.len(), |part| data.copy_from_slice(part))
    }

    fn write(&self, offset: u64, data: &[u8]) -> std_io::Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.part(offset, data.len(), |part| part.copy_from_slice(data))
    }

    fn flush(&self) -> std_io::Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.part(0, 0, |_| ())
    }

    fn discard(&self, offset: u64, len: u64) -> std_io::Result<()> {
        self.part(offset, len as usize, |part| part.fill(0xdd))
    }

    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> std_io::Result<()> {
        self.part(offset, len as usize, |part| part.fill(0))
    }
}

/// A driver.
pub(super) struct Rig {
    pub(super) disk: Arc<Ram>,
    pub(super) blk: Blk,
    pub(super) common: Common,
    pub(super) ring: Ring,
    memory: Memory,
}

impl Rig {
    pub(super) fn new(read_only: bool, features: u64) -> Self {
        let disk = Ram::new(read_only);
        let mut blk = Blk::new("disk".into(), Arc::clone(&disk) as _);
        let memory = memory();
        let mut common = Common::new(&blk, memory.clone());
        let ring = Ring::new(&memory, RING, 64);
        agree(&mut common, &mut blk, features as u32, 0);
        ring.set_up_in(&mut common, REQUESTS);
        go(&mut common, &mut blk);
        assert!(common.is_running());
        Self { disk, blk, common, ring, memory }
    }

    pub(super) fn put(&self, at: u64, data: &[u8]) {
        self.memory.write_slice(data, GuestAddress(at)).expect("memory");
    }

    fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.read_slice(&mut data, GuestAddress(at)).expect("memory");
        data
    }

    pub(super) fn header(&self, kind: u32, sector: u64) {
        self.put(HEADER, &kind.to_le_bytes());
        self.put(HEADER + 8, &sector.to_le_bytes());
        self.put(STATUS, &[0xee]);
    }

    /// Makes a request available: its data, to be written or read.
    fn offer(&mut self, kind: u32, sector: u64, data: Option<(u32, bool)>) {
        self.header(kind, sector);
        let mut chain = vec![(HEADER, 16, false)];
        chain.extend(data.map(|(len, writable)| (DATA, len, writable)));
        chain.push((STATUS, 1, true));
        self.ring.chain(&chain);
    }

    pub(super) fn run_lanes(&self) -> usize {
        let mut buffer = vec![0; 4096];
        let run = || self.blk.io.run_next(0, &self.memory, &mut buffer, &Process::of_thread());
        std::iter::repeat_with(run).take_while(|ran| *ran).count()
    }

    /// The driver begins anew, with clean rings.
    pub(super) fn restart(&mut self, features: u64) {
        self.common.write_status(0, &mut self.blk);
        self.put(RING, &[0; 0x3000]);
        agree(&mut self.common, &mut self.blk, features as u32, 0);
        self.ring = Ring::new(&self.memory, RING, 64);
        self.ring.set_up_in(&mut self.common, REQUESTS);
        go(&mut self.common, &mut self.blk);
    }

    /// A request to its end: status and used length.
    pub(super) fn request(&mut self, kind: u32, sector: u64, data: Option<(u32, bool)>) -> (u8, u32) {
        self.offer(kind, sector, data);
        self.finish()
    }

    fn finish(&mut self) -> (u8, u32) {
        assert!(!self.blk.submit(&mut self.common));
        self.run_lanes();
        self.blk.complete(&mut self.common);
        assert!(!self.common.take_owed().config, "the device is broken");
        let used = self.ring.used();
        assert_eq!(used.len(), 1);
        (self.get(STATUS, 1)[0], used[0].1)
    }
}

#[test]
fn the_configuration_says_how_large_the_disk_is() {
    let rig = Rig::new(false, FLUSH);
    let mut config = [0xff; 64];
    rig.blk.read_config(0, &mut config);
    assert_eq!(u64::from_le_bytes(config[..8].try_into().expect("eight bytes")), BYTES / SECTOR);
    assert_eq!((config[12], config[20..24].to_vec(), config[56], config[60]), (254, vec![0, 2, 0, 0], 1, 0));
    rig.blk.read_config(u64::MAX, &mut config);
    assert_eq!(config, [0; 64]);
    assert_eq!(rig.blk.features() & (READ_ONLY | DISCARD), DISCARD);
    assert_eq!(Rig::new(true, 0).blk.features() & (READ_ONLY | DISCARD), READ_ONLY);
}

#[test]
fn sectors_are_read_and_written() {
    let mut rig = Rig::new(false, FLUSH);
    assert_eq!(rig.request(0, 3, Some((1024, true))), (result::OK, 1025));
    assert_eq!(rig.get(DATA, 1024), [[3; 512], [4; 512]].concat());
    rig.put(DATA, &[0x55; 512]);
    assert_eq!(rig.request(1, 5, Some((512, false))), (result::OK, 1));
    assert_eq!(rig.disk.bytes.lock()[4 * 512..7 * 512], [[4; 512], [0x55; 512], [6; 512]].concat());
    assert_eq!(rig.disk.flushes.load(Ordering::Relaxed), 0);
    assert_eq!(rig.request(4, 0, None), (result::OK, 1));
    assert_eq!(rig.disk.flushes.load(Ordering::Relaxed), 1);
}

#[test]
fn a_request_longer_than_a_lanes_buffer_is_done_in_pieces() {
    let mut rig = Rig::new(false, FLUSH);
    assert_eq!(rig.request(0, 0, Some((BYTES as u32, true))), (result::OK, BYTES as u32 + 1));
    assert_eq!(rig.get(DATA, BYTES as usize), *rig.disk.bytes.lock());
}

#[test]
fn data_may_be_scattered_over_any_buffers() {
    let mut rig = Rig::new(false, FLUSH);
    rig.header(0, 1);
    // The header in two, the data in three, and the status behind the last of them.
    rig.ring.chain(&[
        (HEADER, 7, false),
        (HEADER + 7, 9, false),
        (DATA, 1, true),
        (DATA + 0x800, 510, true),
        (DATA + 1, 2, true),
    ]);
    rig.blk.submit(&mut rig.common);
    rig.run_lanes();
    rig.blk.complete(&mut rig.common);
    assert_eq!(rig.ring.used(), [(0, 513)]);
    assert_eq!((rig.get(DATA, 3), rig.get(DATA + 0x800, 510)), (vec![1, 1, result::OK], vec![1; 510]));
}

#[test]
fn without_flushes_a_write_is_on_the_disk_when_it_is_answered() {
    let mut rig = Rig::new(false, 0);
    assert_eq!(rig.request(1, 0, Some((512, false))), (result::OK, 1));
    assert_eq!(rig.disk.flushes.load(Ordering::Relaxed), 1);
}

#[test]
fn the_id_is_given() {
    let mut rig = Rig::new(false, FLUSH);
    assert_eq!(rig.request(8, 0, Some((20, true))).0, result::OK);
    assert_eq!(rig.get(DATA, 20), b"a disk\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(rig.request(8, 0, Some((19, true))).0, result::IO_ERROR);
}

#[test]
fn ranges_are_discarded_and_zeroed() {
    let mut rig = Rig::new(false, FLUSH);
    let range = |sector: u64, sectors: u32, flags: u32| {
        [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
    };
    rig.put(DATA, &[range(1, 1, 0), range(3, 2, 0)].concat());
    assert_eq!(rig.request(11, 0, Some((32, false))), (result::OK, 1));
    rig.put(DATA, &range(7, 1, 1));
    assert_eq!(rig.request(13, 0, Some((16, false))), (result::OK, 1));
    let firsts: Vec<u8> = rig.disk.bytes.lock().chunks(512).take(9).map(|sector| sector[511]).collect();
    assert_eq!(firsts, [0, 0xdd, 2, 0xdd, 0xdd, 5, 6, 0, 8]);
    // What is not to be.
    for (kind, data, result) in [
        (11, range(1, 1, 1), result::UNSUPPORTED),
        (13, range(1, 1, 2), result::UNSUPPORTED),
        (13, range(BYTES / SECTOR, 1, 0), result::IO_ERROR),
        (13, range(u64::MAX, 1, 0), result::IO_ERROR),
        (11, range(1, u32::MAX, 0), result::IO_ERROR),
        (11, vec![0; 15], result::IO_ERROR),
        (11, vec![0; 16 * 17], result::IO_ERROR),
    ] {
        rig.put(DATA, &data);
        assert_eq!(rig.request(kind, 0, Some((data.len() as u32, false))).0, result, "{kind} {data:?}");
    }
    assert_eq!(rig.request(11, 0, None).0, result::IO_ERROR);
}

#[test]
fn what_the_disk_does_not_have_is_an_error_for_the_guest() {
    let mut rig = Rig::new(false, FLUSH);
    let last = BYTES / SECTOR - 1;
    for (kind, sector, len) in [(0, last, 1024), (0, last + 1, 512), (0, u64::MAX, 512), (1, 1 << 55, 512), (0, 0, 511)]
    {
        assert_eq!(rig.request(kind, sector, Some((len, kind == 0))).0, result::IO_ERROR, "{kind} {sector} {len}");
    }
    assert_eq!(rig.request(0, last, Some((512, true))).0, result::OK);
    assert_eq!(rig.request(99, 0, None).0, result::UNSUPPORTED);
    // A header that is too short.
    rig.ring.chain(&[(HEADER, 15, false), (STATUS, 1, true)]);
    assert_eq!(rig.finish().0, result::IO_ERROR);
}

#[test]
fn a_read_only_disk_is_not_written() {
    let mut rig = Rig::new(true, FLUSH);
    for kind in [1, 11, 13] {
        assert_eq!(rig.request(kind, 0, Some((512, false))).0, result::IO_ERROR);
    }
    assert_eq!(rig.request(0, 0, Some((512, true))).0, result::OK);
    assert_eq!(*rig.disk.bytes.lock(), *Ram::new(true).bytes.lock());
}

#[test]
fn a_disk_that_fails_gives_errors_and_goes_on() {
    let mut rig = Rig::new(false, FLUSH);
    rig.disk.fails.store(true, Ordering::Relaxed);
    for (kind, data) in [(0, Some((512, true))), (1, Some((512, false))), (4, None)] {
        assert_eq!(rig.request(kind, 0, data), (result::IO_ERROR, 1));
    }
    rig.disk.fails.store(false, Ordering::Relaxed);
    assert_eq!(rig.request(0, 0, Some((512, true))).0, result::OK);
    // It has shrunk.
    rig.disk.bytes.lock().truncate(1024);
    assert_eq!(rig.request(0, 4, Some((512, true))).0, result::IO_ERROR);
}

#[test]
fn a_chain_without_room_for_a_status_breaks_the_device() {
    let mut rig = Rig::new(false, FLUSH);
    rig.ring.chain(&[(HEADER, 16, false), (STATUS, 0, true)]);
    rig.blk.submit(&mut rig.common);
    assert_eq!(rig.common.status() & status::NEEDS_RESET, status::NEEDS_RESET);
    assert_eq!((rig.run_lanes(), rig.ring.used()), (0, vec![]));
    assert!(rig.common.take_owed().config);
}

#[test]
fn a_turn_has_a_budget_and_asks_for_another() {
    let mut rig = Rig::new(false, FLUSH);
    for _ in 0..BUDGET {
        // All of the same chain: the driver's descriptors are not the device's business.
        rig.header(4, 0);
        rig.ring.describe(RING, 0, (HEADER, 16), 1, 1);
        rig.ring.describe(RING, 1, (STATUS, 1), 2, 0);
        rig.ring.offer(0);
    }
    assert!(rig.blk.submit(&mut rig.common), "there may be more");
    assert!(!rig.blk.submit(&mut rig.common));
    assert_eq!(rig.run_lanes(), BUDGET);
    rig.blk.complete(&mut rig.common);
    assert_eq!(rig.ring.used().len(), BUDGET);
    assert_eq!(rig.common.queue(REQUESTS).map(Queue::outstanding), Some(0));
}

/// A lane is in the middle of a request when the driver resets the device: nothing of it reaches guest memory any more, and
/// the next life's requests wait for its end.
#[test]
fn a_reset_does_not_wait_and_nothing_comes_after_it() {
    let mut rig = Rig::new(false, FLUSH);
    rig.offer(0, 3, Some((512, true)));
    rig.offer(0, 4, Some((512, true)));
    rig.blk.submit(&mut rig.common);
    // The disk's lock holds the first request up.
    let (entered, has_entered) = std::sync::mpsc::channel();
    let disk = Arc::clone(&rig.disk);
    let held = disk.bytes.lock();
    let (io, memory) = (Arc::clone(&rig.blk.io), rig.memory.clone());
    let lane = std::thread::spawn(move || {
        let _ = entered.send(());
        assert!(io.run_next(0, &memory, &mut [0; 4096], &Process::of_thread()));
        assert!(!io.run_next(0, &memory, &mut [0; 4096], &Process::of_thread()), "the second was forgotten");
    });
    has_entered.recv().expect("the lane runs");
    while rig.blk.io.waiting() == 2 {
        std::thread::yield_now();
    }
    rig.common.write_status(0, &mut rig.blk);
    assert!(rig.blk.io.is_draining());
    // The next life.
    rig.put(DATA, &[0xaa; 512]);
    rig.put(STATUS, &[0xee]);
    agree(&mut rig.common, &mut rig.blk, FLUSH as u32, 0);
    rig.ring = Ring::new(&rig.memory, RING + 0x4000, 64);
    rig.ring.set_up_in(&mut rig.common, REQUESTS);
    go(&mut rig.common, &mut rig.blk);
    rig.offer(1, 9, Some((512, false)));
    rig.blk.submit(&mut rig.common);
    assert_eq!(rig.blk.io.waiting(), 0, "not before the old one has ended");
    drop(held);
    lane.join().expect("the lane ends");
    assert_eq!(rig.get(DATA, 512), [0xaa; 512], "guest memory is not touched");
    assert!(rig.blk.complete(&mut rig.common), "submission is to go on");
    assert_eq!(rig.ring.used(), []);
    assert_eq!(rig.finish(), (result::OK, 1));
    assert_eq!(rig.disk.bytes.lock()[9 * 512], 0xaa);
}
