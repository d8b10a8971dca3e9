//! Requests that are tried without waiting first, in each place, and those that a lane gets after all.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use bottom_half::{Config, CpuOwner, QueueKind, ThreadPort};
use parking_lot::Mutex;
use vm_memory::{Bytes, GuestAddress};

use super::super::queue::{Buffer, Queue};
use super::super::testing::{Ring, agree, go, memory};
use super::tests::{BYTES, DATA, HEADER, RING, Ram, STATUS};
use super::*;

/// No device answers so.
const NO_STATUS: u8 = 0xee;

/// Device and common state under a lock, as a transport has them.
struct Transport(Mutex<(Blk, Common)>);

impl Serve<Blk> for Transport {
    fn serve(&self, work: &mut dyn FnMut(&mut Blk, &mut Common)) {
        let (blk, common) = &mut *self.0.lock();
        work(blk, common);
    }
}

struct Rig {
    disk: Arc<Ram>,
    device: Arc<Transport>,
    ring: Ring,
    system: System,
    owner: CpuOwner,
    queue: WorkQueue,
}

/// A driver of a disk whose page cache has what `cached` says.
fn rig(first: Home, cached: bool) -> Rig {
    let disk = Ram::cached(cached);
    let mut blk = Blk::new("disk".into(), Arc::clone(&disk) as _);
    let memory = memory();
    let mut common = Common::new(&blk, memory.clone());
    let ring = Ring::new(&memory, RING, 64);
    agree(&mut common, &mut blk, FLUSH as u32, 0);
    ring.set_up_in(&mut common, REQUESTS);
    go(&mut common, &mut blk);
    let device = Arc::new(Transport(Mutex::new((blk, common))));
    let (system, mut owners) = System::new(Config::default(), vec![Arc::new(ThreadPort::default())]).expect("threads");
    let queue = system.queue("disk", QueueKind::Unbound);
    let owner = owners.remove(0);
    attach(&device, &Places { cpu: (&system, owner.cpu()), queue: &queue, lanes: 2, first });
    Rig { disk, device, ring, system, owner, queue }
}

impl Rig {
    /// Makes a request available: number `n`, to its own status byte.
    fn offer(&mut self, n: u64, kind: u32, sector: u64, data: Option<(u32, bool)>) {
        let header = HEADER + 0x1000 + 16 * n;
        let state = self.device.0.lock();
        state.1.memory().write_obj(kind, GuestAddress(header)).expect("memory");
        state.1.memory().write_obj(sector, GuestAddress(header + 8)).expect("memory");
        state.1.memory().write_obj(NO_STATUS, GuestAddress(STATUS + n)).expect("memory");
        drop(state);
        let mut chain = vec![(header, 16, false)];
        chain.extend(data.map(|(len, writable)| (DATA + 0x1000 * n, len, writable)));
        chain.push((STATUS + n, 1, true));
        self.ring.chain(&chain);
    }

    /// The driver notifies; everything runs to its end. Gives statuses of `count` requests.
    fn run(&mut self, count: usize) -> Vec<u8> {
        /// Only a device that has lost a request takes that long.
        const LIMIT: Duration = Duration::from_secs(60);
        self.owner.top_half(|_| self.device.serve(&mut |blk, _| blk.notify(REQUESTS)));
        let begun = Instant::now();
        // More than once: on a busy host the softirqs' time is up early, and their thread has the rest.
        while !self.has_answered(count) && begun.elapsed() < LIMIT {
            self.queue.flush(&bottom_half::Process::of_thread());
            // What the lanes have completed.
            self.owner.top_half(|_| ());
            thread::yield_now();
        }
        assert!(self.has_answered(count), "all are given back: {:?}", self.statuses(count));
        self.statuses(count)
    }

    fn has_answered(&self, count: usize) -> bool {
        !self.statuses(count).contains(&NO_STATUS)
            && self.device.0.lock().1.queue(REQUESTS).map(Queue::outstanding) == Some(0)
    }

    fn statuses(&self, count: usize) -> Vec<u8> {
        let mut statuses = vec![0; count];
        self.device.0.lock().1.memory().read_slice(&mut statuses, GuestAddress(STATUS)).expect("memory");
        statuses
    }

    fn end(self) {
        let Self { device, queue, system, .. } = self;
        drop((device, queue));
        system.shutdown(None).expect("nothing runs");
    }
}

fn reads_and_writes(rig: &mut Rig) {
    rig.offer(0, 0, 3, Some((512, true)));
    rig.offer(1, 1, 5, Some((512, false)));
    rig.offer(2, 4, 0, None);
    assert_eq!(rig.run(3), [result::OK; 3]);
    let state = rig.device.0.lock();
    let mut data = [0; 512];
    state.1.memory().read_slice(&mut data, GuestAddress(DATA)).expect("memory");
    assert_eq!(data, [3; 512]);
    drop(state);
    assert_eq!(rig.disk.bytes.lock()[5 * 512..6 * 512], [0; 512], "what was in memory");
    assert_eq!(rig.ring.used().len(), 3);
}

#[test]
fn what_needs_no_waiting_needs_no_lane() {
    for first in [Home::Softirq, Home::Tasklet] {
        let mut rig = rig(first, true);
        reads_and_writes(&mut rig);
        assert_eq!(rig.disk.tried.load(Ordering::Relaxed), 2);
        assert_eq!(rig.disk.calls.load(Ordering::Relaxed), 1, "a flush is for the lanes: {first:?}");
        rig.end();
    }
}

#[test]
fn what_would_wait_is_for_the_lanes() {
    for first in [Home::Softirq, Home::Tasklet] {
        let mut rig = rig(first, false);
        reads_and_writes(&mut rig);
        assert_eq!(rig.disk.tried.load(Ordering::Relaxed), 2, "{first:?}");
        assert_eq!(rig.disk.calls.load(Ordering::Relaxed), 3, "{first:?}");
        rig.end();
    }
}

#[test]
fn a_disk_in_the_work_queue_tries_nothing() {
    let mut rig = rig(Home::WorkQueue, true);
    reads_and_writes(&mut rig);
    assert_eq!((rig.disk.tried.load(Ordering::Relaxed), rig.disk.calls.load(Ordering::Relaxed)), (0, 3));
    rig.end();
}

/// More than a turn's budget, so that turns follow each other.
#[test]
fn every_request_is_answered_though_half_of_them_would_wait() {
    let mut rig = rig(Home::Softirq, true);
    // The second half of the disk is not cached.
    rig.disk.cached_up_to.store(BYTES / 2, Ordering::Relaxed);
    for round in 0..20 {
        for n in 0..16 {
            rig.offer(n, 0, n * (BYTES / SECTOR / 16), Some((512, true)));
        }
        assert_eq!(rig.run(16), [result::OK; 16], "round {round}");
        assert_eq!(rig.ring.used().len(), 16);
    }
    assert_eq!(rig.disk.calls.load(Ordering::Relaxed), 20 * 8);
    rig.end();
}

/// A request of a driver that has reset the device meanwhile is neither tried nor answered.
#[test]
fn a_reset_forgets_what_is_yet_to_be_tried() {
    let disk = Ram::cached(true);
    let io = Io::new("disk".into(), Arc::clone(&disk) as _);
    let memory = memory();
    let buffer = |address, len| Buffer { address: GuestAddress(address), len };
    let action = request::Action::Read { offset: 0, data: vec![buffer(DATA, 512)] };
    io.add_untried(request::Request { head: 0, status: buffer(STATUS, 1), action });
    io.forget();
    assert_eq!(io.try_next(&memory, &mut [0; 4096]), io::Tried::None);
    assert!(!io.is_draining() && io.take_done().0.is_empty());
    assert_eq!(disk.tried.load(Ordering::Relaxed), 0);
}
