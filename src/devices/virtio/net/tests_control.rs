//! Several pairs of queues, and the control queue.

use bottom_half::{Config, Process, ThreadPort};
use parking_lot::Mutex;
use sys::tap::HEADER;
use vm_memory::{Bytes, GuestAddress};

use super::super::testing::{Ring, agree, go, memory};
use super::tests::{Cable, MAC_ADDRESS};
use super::*;

const COMMAND: u64 = 0x2_0000;
const ANSWER: u64 = 0x2_1000;
const BUFFERS: u64 = 0x4_0000;
/// What no answer is.
const NO_ANSWER: u8 = 0xee;

struct Rig {
    cables: Vec<Arc<Cable>>,
    net: Net,
    common: Common,
    rings: Vec<Ring>,
    control: usize,
}

impl Rig {
    /// A device with three pairs and a driver that agrees to these features; `control` is where it expects the control queue.
    fn new(features: u64, control: usize) -> Self {
        let cables: Vec<_> = (0..3).map(|_| Arc::new(Cable::default())).collect();
        let backends = cables.iter().map(|cable| Arc::clone(cable) as _).collect();
        let mut net = Net::new("net".into(), MAC_ADDRESS, backends);
        let mut common = Common::new(&net, memory());
        let queues = common.queue_count();
        let rings: Vec<_> =
            (0..queues).map(|n| Ring::new(common.memory(), 0x8_0000 + 0x4000 * u64::from(n), 16)).collect();
        agree(&mut common, &mut net, features as u32, 0);
        for (ring, queue) in rings.iter().zip(0..) {
            ring.set_up_in(&mut common, queue);
        }
        go(&mut common, &mut net);
        Self { cables, net, common, rings, control }
    }

    fn with_pairs() -> Self {
        Self::new(CONTROL | MULTIQUEUE, 6)
    }

    /// What the device answers to a command in these buffers: place, length, writable.
    fn chain(&mut self, command: &[u8], buffers: &[(u64, u32, bool)]) -> (u8, Vec<(u32, u32)>) {
        let memory = self.common.memory();
        memory.write_slice(command, GuestAddress(COMMAND)).expect("memory");
        memory.write_obj(NO_ANSWER, GuestAddress(ANSWER)).expect("memory");
        self.rings[self.control].chain(buffers);
        assert_eq!(self.net.serve_control(&mut self.common), Turn::Done);
        let answer = self.common.memory().read_obj(GuestAddress(ANSWER)).expect("memory");
        (answer, self.rings[self.control].used())
    }

    /// The same as a driver would.
    fn command(&mut self, command: &[u8]) -> u8 {
        let (answer, used) = self.chain(command, &[(COMMAND, command.len() as u32, false), (ANSWER, 1, true)]);
        assert_eq!(used.len(), 1);
        assert_eq!(used[0].1, 1, "the answer is a byte");
        answer
    }

    fn set_pairs(&mut self, pairs: u16) -> u8 {
        let [low, high] = pairs.to_le_bytes();
        self.command(&[4, 0, low, high])
    }

    /// A packet comes to each queue of the interface; which pairs bring theirs to the driver.
    fn pairs_that_receive(&mut self) -> Vec<usize> {
        for (pair, cable) in self.cables.iter().enumerate() {
            cable.incoming.lock().push_back(vec![0; HEADER + 1]);
            self.rings[2 * pair].chain(&[(BUFFERS, 2048, true)]);
            assert_eq!(self.net.receive(pair, &mut self.common), Turn::Done);
        }
        (0..3).filter(|&pair| !self.rings[2 * pair].used().is_empty()).collect()
    }
}

#[test]
fn the_driver_says_how_many_pairs_it_uses() {
    let mut rig = Rig::with_pairs();
    let mut config = [0; 12];
    rig.net.read_config(0, &mut config);
    assert_eq!(config[6..], [1, 0, 3, 0, 0, 0]);
    assert_eq!(rig.pairs_that_receive(), [0], "one, to begin with");
    assert_eq!(rig.set_pairs(3), 0);
    assert_eq!(rig.common.take_owed().queues, 1 << 6 | 1, "the answer has an interrupt of its own");
    assert_eq!(rig.pairs_that_receive(), [0, 1, 2]);
    let owed = rig.common.take_owed().queues;
    assert_eq!(owed, 1 << 4 | 1 << 2 | 1, "and so has each queue");
    assert_eq!(rig.set_pairs(2), 0);
    assert_eq!(rig.pairs_that_receive(), [0, 1]);
}

#[test]
fn each_pair_sends_by_its_own_queue_of_the_interface() {
    let mut rig = Rig::with_pairs();
    assert_eq!(rig.set_pairs(2), 0);
    rig.rings[3].chain(&[(BUFFERS, HEADER as u32 + 1, false)]);
    assert_eq!(rig.net.transmit(1, &mut rig.common, 0), Turn::Done);
    let sent: Vec<_> = rig.cables.iter().map(|cable| cable.sent.lock().len()).collect();
    assert_eq!((sent, rig.rings[3].used().len()), (vec![0, 1, 0], 1));
}

#[test]
fn a_command_that_is_none_changes_nothing() {
    let mut rig = Rig::with_pairs();
    assert_eq!(rig.set_pairs(2), 0);
    for command in [
        &[4, 0, 0, 0][..], // none
        &[4, 0, 4, 0],     // more than there are
        &[4, 0, 1, 0x80],  // more than there can be
        &[4, 1, 1, 0],     // receive-side scaling
        &[4, 2, 1, 0],
        &[0, 0, 1, 0], // promiscuous
        &[0xff, 0xff, 1, 0],
        &[4, 0, 1], // cut short
        &[4],
    ] {
        assert_eq!(rig.command(command), 1, "{command:?}");
        assert_eq!(rig.net.active(), 2, "{command:?}");
    }
    let good = [4, 0, 3, 0];
    // Nothing to read; then nothing to write the answer to.
    assert_eq!(rig.chain(&good, &[(ANSWER, 1, true)]).0, 1);
    assert_eq!(rig.chain(&good, &[(COMMAND, 4, false), (ANSWER, 0, true)]).0, NO_ANSWER);
    let (answer, used) = rig.chain(&good, &[(COMMAND, 4, false)]);
    assert_eq!((answer, used[0].1), (NO_ANSWER, 0));
    assert_eq!(rig.net.active(), 2);
    // In parts, and with more behind it, it is one.
    let parts = [(COMMAND, 1, false), (COMMAND + 1, 2, false), (COMMAND + 3, 40, false), (ANSWER, 4, true)];
    assert_eq!(rig.chain(&good, &parts).0, 0);
    assert_eq!(rig.net.active(), 3);
}

#[test]
fn the_next_driver_begins_with_one_pair() {
    let mut rig = Rig::with_pairs();
    assert_eq!(rig.set_pairs(3), 0);
    rig.common.write_status(0, &mut rig.net);
    agree(&mut rig.common, &mut rig.net, CONTROL as u32 | MULTIQUEUE as u32, 0);
    go(&mut rig.common, &mut rig.net);
    assert_eq!(rig.net.active(), 1);
}

#[test]
fn without_several_pairs_the_control_queue_is_behind_the_first() {
    let mut rig = Rig::new(CONTROL, 2);
    assert_eq!(rig.set_pairs(2), 1, "it has not agreed to several");
    assert_eq!(rig.net.active(), 1);
    // Nor has this one agreed to a control queue.
    let mut rig = Rig::new(MULTIQUEUE, 6);
    let (answer, used) = rig.chain(&[4, 0, 2, 0], &[(COMMAND, 4, false), (ANSWER, 1, true)]);
    assert_eq!((answer, used), (NO_ANSWER, vec![]));
    // A device with one pair has none of it.
    let single = Net::new("net".into(), MAC_ADDRESS, vec![Arc::new(Cable::default()) as _]);
    assert_eq!((single.features() & (CONTROL | MULTIQUEUE), single.queues().len()), (0, 2));
}

/// A device in a lock of its own, as a transport has it.
struct Locked(Mutex<(Net, Common)>);

impl Serve<Net> for Locked {
    fn serve(&self, work: &mut dyn FnMut(&mut Net, &mut Common)) {
        let (net, common) = &mut *self.0.lock();
        work(net, common);
    }
}

/// Red when: the interface goes on spreading packets over queues that nobody looks at.
#[test]
fn the_interface_hears_which_queues_are_used() {
    let Rig { cables, net, common, rings, .. } = Rig::with_pairs();
    let device = Arc::new(Locked(Mutex::new((net, common))));
    let (system, owners) = System::new(Config::default(), vec![Arc::new(ThreadPort::default())]).expect("threads");
    let receives = attach(&device, (&system, owners[0].cpu()), Home::Softirq);
    assert_eq!(receives.len(), 3);
    let attached = || cables.iter().map(|cable| *cable.attached.lock()).collect::<Vec<_>>();
    for (pairs, expected) in [(2, [None, Some(true), Some(false)]), (3, [None, Some(true), Some(true)])] {
        device.serve(&mut |net, _| net.activate(pairs));
        flush(&device);
        assert_eq!(attached(), expected);
    }
    drop(rings);
    system.shutdown(None).expect("nothing blocks");
}

/// Waits for the item that tells the interface.
fn flush(device: &Locked) {
    let steer = device.0.lock().0.steer.clone().expect("there are several pairs");
    steer.flush(&Process::of_thread());
}
