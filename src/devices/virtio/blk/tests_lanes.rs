//! Lanes on real work queues. Waits are for messages, with a limit.

use std::io as std_io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bottom_half::{Config, QueueKind, ThreadPort};
use parking_lot::Mutex;
use vm_memory::GuestAddress;

use super::super::queue::Buffer;
use super::super::testing::memory;
use super::request::{Action, Request};
use super::*;

const LIMIT: Duration = Duration::from_secs(60);

/// A disk whose first sector takes until it is told to go on.
struct Slow {
    said: Sender<u64>,
    go_on: Mutex<Receiver<()>>,
}

impl Storage for Slow {
    fn bytes(&self) -> u64 {
        1 << 20
    }

    fn block_size(&self) -> u32 {
        512
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn id(&self) -> &[u8] {
        b""
    }

    fn read(&self, offset: u64, _data: &mut [u8]) -> std_io::Result<()> {
        let _ = self.said.send(offset);
        if offset == 0 {
            let _ = self.go_on.lock().recv_timeout(LIMIT);
        }
        Ok(())
    }

    fn write(&self, _offset: u64, _data: &[u8]) -> std_io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> std_io::Result<()> {
        Ok(())
    }

    fn discard(&self, _offset: u64, _len: u64) -> std_io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, _offset: u64, _len: u64, _unmap: bool) -> std_io::Result<()> {
        Ok(())
    }
}

fn read(sector: u64) -> Request {
    let buffer = |len| Buffer { address: GuestAddress(0x1000), len };
    let action = Action::Read { offset: sector * SECTOR, data: vec![buffer(512)] };
    Request { head: sector as u16, status: buffer(1), action }
}

/// Others come in one at a time, and each lane but the blocked one serves them.
#[test]
fn a_request_does_not_wait_behind_anothers_io() {
    let (system, owners) = System::new(Config::default(), vec![Arc::new(ThreadPort::default())]).expect("threads");
    let (said, says) = channel();
    let (go, go_on) = channel();
    let io = Arc::new(Io::new("slow".into(), Arc::new(Slow { said, go_on: Mutex::new(go_on) })));
    let complete = Arc::new(Tasklet::new(&system, owners[0].cpu(), |_: &Softirq<'_>| ()));
    let queue = system.queue("disk", QueueKind::Unbound);
    let lanes = Lanes::new(&io, memory(), &queue, 2, &complete);
    for sector in 0..100 {
        io.add(read(sector));
        lanes.queue(1);
        assert_eq!(says.recv_timeout(LIMIT), Ok(sector * SECTOR));
    }
    go.send(()).expect("it waits");
    queue.flush(&bottom_half::Process::of_thread());
    assert_eq!(io.take_done().0.len(), 100);
    drop((lanes, queue));
    system.shutdown(None).expect("nothing runs");
}

/// A machine's end, and a reset, wait for what a lane is in, but not for ever.
#[test]
fn a_disk_that_does_not_answer_is_named_by_who_waits_for_it() {
    let (system, owners) = System::new(Config::default(), vec![Arc::new(ThreadPort::default())]).expect("threads");
    let (said, says) = channel();
    let (go, go_on) = channel();
    let io = Arc::new(Io::new("slow".into(), Arc::new(Slow { said, go_on: Mutex::new(go_on) })));
    let complete = Arc::new(Tasklet::new(&system, owners[0].cpu(), |_: &Softirq<'_>| ()));
    let queue = system.queue("disk 7", QueueKind::Unbound);
    let lanes = Lanes::new(&io, memory(), &queue, 1, &complete);
    io.add(read(0));
    io.add(read(1));
    lanes.queue(2);
    assert_eq!(says.recv_timeout(LIMIT), Ok(0));
    drop((lanes, queue));
    let stuck = system.shutdown(Some(Duration::ZERO)).expect_err("it is in its I/O");
    assert!(stuck.to_string().contains("disk 7"), "{stuck}");
    go.send(()).expect("it waits");
    system.shutdown(None).expect("it has ended");
}
