//! A disk that keeps what is written in a cache and loses that with the power: what the driver was told is on the disk is there.

use std::io as std_io;
use std::sync::atomic::{AtomicBool, Ordering};

use bottom_half::Process;
use parking_lot::Mutex;
use vm_memory::{Bytes, GuestAddress};

use super::super::queue::Buffer;
use super::super::testing::{Ring, agree, go, memory};
use super::tests::{DATA, HEADER, RING, STATUS};
use super::*;

const SECTORS: u64 = 64;

/// The disk.
struct Volatile {
    /// What a loss of power leaves.
    kept: Mutex<Vec<u8>>,
    cache: Mutex<Vec<u8>>,
    /// A flush does nothing: what the tests must find.
    forgets: AtomicBool,
}

impl Volatile {
    fn new() -> Arc<Self> {
        let bytes = || Mutex::new(vec![0; (SECTORS * SECTOR) as usize]);
        Arc::new(Self { kept: bytes(), cache: bytes(), forgets: AtomicBool::new(false) })
    }

    /// What is there when the power comes back: the first byte of each sector.
    fn after_a_cut(&self) -> Vec<u8> {
        self.kept.lock().iter().step_by(SECTOR as usize).copied().collect()
    }
}

impl Storage for Volatile {
    fn bytes(&self) -> u64 {
        SECTORS * SECTOR
    }

    fn block_size(&self) -> u32 {
        SECTOR as u32
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn id(&self) -> &[u8] {
        b""
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> std_io::Result<()> {
        data.copy_from_slice(&self.cache.lock()[offset as usize..][..data.len()]);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std_io::Result<()> {
        self.cache.lock()[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> bool {
        self.write(offset, data).is_ok()
    }

    fn flush(&self) -> std_io::Result<()> {
        if !self.forgets.load(Ordering::Relaxed) {
            self.kept.lock().copy_from_slice(&self.cache.lock());
        }
        Ok(())
    }

    fn discard(&self, _offset: u64, _len: u64) -> std_io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> std_io::Result<()> {
        self.write(offset, &vec![0; len as usize])
    }
}

struct Rig {
    disk: Arc<Volatile>,
    blk: Blk,
    common: Common,
    ring: Ring,
}

impl Rig {
    fn new(features: u64) -> Self {
        let disk = Volatile::new();
        let mut blk = Blk::new("disk".into(), Arc::clone(&disk) as _);
        let mut common = Common::new(&blk, memory());
        let ring = Ring::new(common.memory(), RING, 64);
        agree(&mut common, &mut blk, features as u32, 0);
        ring.set_up_in(&mut common, REQUESTS);
        go(&mut common, &mut blk);
        Self { disk, blk, common, ring }
    }

    fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.common.memory().write_obj(value, GuestAddress(at)).expect("memory");
    }

    /// Makes request `n` available, with a sector of data if it is a write.
    fn offer(&mut self, n: u64, kind: u32, sector: u64, byte: u8) {
        let header = HEADER + 0x2000 + 16 * n;
        self.put(header, kind);
        self.put(header + 8, sector);
        self.put(STATUS + n, 0xee_u8);
        let data = DATA + SECTOR * n;
        self.common.memory().write_slice(&[byte; SECTOR as usize], GuestAddress(data)).expect("memory");
        let mut chain = vec![(header, 16, false)];
        if kind == 1 {
            chain.push((data, SECTOR as u32, false));
        }
        chain.push((STATUS + n, 1, true));
        self.ring.chain(&chain);
    }

    /// Everything to its end; true if all of `count` requests have gone well.
    fn finish(&mut self, count: u64) -> bool {
        while self.blk.submit(&mut self.common) {}
        let (memory, mut buffer) = (self.common.memory().clone(), vec![0; 4096]);
        while self.blk.io.run_next(0, &memory, &mut buffer, &Process::of_thread()) {}
        self.blk.complete(&mut self.common);
        self.ring.used();
        (0..count).all(|n| memory.read_obj::<u8>(GuestAddress(STATUS + n)).is_ok_and(|status| status == result::OK))
    }
}

/// Writes a record to each sector and has it flushed; how many of those that were answered a cut then loses.
fn lost_records(rig: &mut Rig) -> usize {
    let mut lost = 0;
    for n in 0..SECTORS {
        let byte = n as u8 + 1;
        rig.offer(0, 1, n, byte);
        assert!(rig.finish(1));
        rig.offer(0, 4, 0, 0);
        assert!(rig.finish(1));
        lost += usize::from(rig.disk.after_a_cut()[n as usize] != byte);
    }
    lost
}

#[test]
fn what_was_written_before_an_answered_flush_survives_a_loss_of_power() {
    let mut rig = Rig::new(FLUSH);
    assert_eq!(lost_records(&mut rig), 0);
    // What has not been flushed may be lost, or this disk would prove nothing.
    rig.offer(0, 1, 0, 99);
    assert!(rig.finish(1));
    assert_eq!(rig.disk.after_a_cut()[0], 1);
}

#[test]
fn a_flush_that_does_nothing_would_be_found() {
    let mut rig = Rig::new(FLUSH);
    rig.disk.forgets.store(true, Ordering::Relaxed);
    assert_eq!(lost_records(&mut rig), SECTORS as usize);
}

#[test]
fn without_flushes_every_answered_write_survives_a_loss_of_power() {
    let mut rig = Rig::new(0);
    for round in 0..4 {
        for n in 0..8 {
            rig.offer(n, 1, 8 * round + n, 7);
        }
        assert!(rig.finish(8));
        assert_eq!(rig.disk.after_a_cut()[..8 * (round as usize + 1)], vec![7; 8 * (round as usize + 1)]);
    }
}

/// A write that has to be on the disk is not tried in a softirq, however fast the disk would take it.
#[test]
fn a_durable_write_is_not_answered_from_the_cache() {
    let disk = Volatile::new();
    let io = Io::new("disk".into(), Arc::clone(&disk) as _);
    let buffer = |address, len| Buffer { address: GuestAddress(address), len };
    for (durable, tried) in [(false, io::Tried::Done), (true, io::Tried::WouldWait)] {
        let action = request::Action::Write { offset: 0, data: vec![buffer(DATA, SECTOR as u32)], durable };
        io.add_untried(request::Request { head: 0, status: buffer(STATUS, 1), action });
        assert_eq!(io.try_next(&memory(), &mut [0; 4096]), tried);
    }
}
