use std::collections::VecDeque;

use parking_lot::Mutex;
use sys::tap::HEADER;
use vm_memory::{Bytes, GuestAddress};

use super::super::testing::{Ring, agree, go, memory, tasklet};
use super::pacing::{LINGER, STREAM};
use super::pair::{BUDGET, MAX_PACKET, NUM_BUFFERS};
use super::*;

pub(super) const MAC_ADDRESS: [u8; 6] = [2, 1, 2, 3, 4, 5];
const BUFFERS: u64 = 0x4_0000;
const SENT: u64 = 0x2_0000;
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// A cable whose other end is the test.
#[derive(Default)]
pub(super) struct Cable {
    pub incoming: Mutex<VecDeque<Vec<u8>>>,
    pub sent: Mutex<Vec<Vec<u8>>>,
    offloads: Mutex<Option<Offloads>>,
    refuses: Mutex<bool>,
    /// What it was last told of packets for it.
    pub attached: Mutex<Option<bool>>,
}

impl Backend for Cable {
    fn receive(&self, packet: &mut [u8]) -> io::Result<usize> {
        let next = self.incoming.lock().pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        packet[..next.len()].copy_from_slice(&next);
        Ok(next.len())
    }

    fn send(&self, packet: &[u8]) -> io::Result<()> {
        if *self.refuses.lock() {
            return Err(io::Error::other("no carrier"));
        }
        self.sent.lock().push(packet.to_vec());
        Ok(())
    }

    fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        *self.offloads.lock() = Some(offloads);
        Ok(())
    }

    fn set_attached(&self, attached: bool) -> io::Result<()> {
        *self.attached.lock() = Some(attached);
        Ok(())
    }
}

struct Rig {
    cable: Arc<Cable>,
    net: Net,
    common: Common,
    receive: Ring,
    transmit: Ring,
}

impl Rig {
    fn new(features: u64) -> Self {
        let cable = Arc::new(Cable::default());
        let mut net = Net::new("net".into(), MAC_ADDRESS, vec![Arc::clone(&cable) as _]);
        let mut common = Common::new(&net, memory());
        let receive = Ring::new(common.memory(), 0x1_0000, 128);
        let transmit = Ring::new(common.memory(), 0x1_8000, 128);
        agree(&mut common, &mut net, features as u32, 0);
        receive.set_up_in(&mut common, RECEIVE);
        transmit.set_up_in(&mut common, TRANSMIT);
        go(&mut common, &mut net);
        Self { cable, net, common, receive, transmit }
    }

    fn put(&self, at: u64, data: &[u8]) {
        self.common.memory().write_slice(data, GuestAddress(at)).expect("memory");
    }

    fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.common.memory().read_slice(&mut data, GuestAddress(at)).expect("memory");
        data
    }

    /// Offers a buffer to receive into.
    fn buffer(&mut self, number: u64, len: u32) {
        self.receive.chain(&[(BUFFERS + 0x1000 * number, len, true)]);
    }

    /// A packet comes in.
    fn comes(&self, payload: &[u8]) {
        self.cable.incoming.lock().push_back([&[0; HEADER][..], payload].concat());
    }
}

#[test]
fn packets_are_sent_with_their_headers() {
    let mut rig = Rig::new(0);
    rig.put(SENT, &[1; HEADER]);
    rig.put(SENT + 0x100, b"packet");
    rig.transmit.chain(&[(SENT, HEADER as u32, false), (SENT + 0x100, 3, false), (SENT + 0x103, 3, false)]);
    assert_eq!(rig.net.transmit(0, &mut rig.common, 0), Turn::Done);
    assert_eq!(*rig.cable.sent.lock(), [[&[1; 10][..], &[0; 2], b"packet"].concat()]);
    assert_eq!((rig.transmit.used(), rig.common.take_owed().queues), (vec![(0, 0)], 1 << TRANSMIT));
}

#[test]
fn packets_that_are_none_are_dropped_and_given_back() {
    let mut rig = Rig::new(0);
    rig.transmit.chain(&[(SENT, HEADER as u32, false)]);
    rig.transmit.chain(&[(SENT, MAX_PACKET as u32 + 1, false)]);
    rig.transmit.chain(&[(SENT, 100, true)]);
    *rig.cable.refuses.lock() = true;
    rig.transmit.chain(&[(SENT, 100, false)]);
    assert_eq!(rig.net.transmit(0, &mut rig.common, 0), Turn::Done);
    assert_eq!((rig.transmit.used().len(), rig.cable.sent.lock().len()), (4, 0));
    *rig.cable.refuses.lock() = false;
    rig.transmit.chain(&[(SENT, MAX_PACKET as u32, false)]);
    assert_eq!(rig.net.transmit(0, &mut rig.common, 0), Turn::Done);
    assert_eq!(rig.cable.sent.lock()[0].len(), MAX_PACKET);
}

#[test]
fn packets_are_received_into_buffers_in_their_order() {
    let mut rig = Rig::new(0);
    rig.buffer(0, 2048);
    rig.buffer(1, 2048);
    rig.comes(b"first");
    rig.comes(b"second!");
    assert_eq!(rig.net.receive(0, &mut rig.common), Turn::Done);
    assert_eq!(rig.receive.used(), [(0, HEADER as u32 + 5), (1, HEADER as u32 + 7)]);
    assert_eq!(rig.get(BUFFERS, HEADER + 5), [&[0; 10][..], &[1, 0], b"first"].concat());
    assert_eq!(rig.get(BUFFERS + 0x1000 + HEADER as u64, 7), b"second!");
    assert_eq!(rig.common.take_owed().queues, 1 << RECEIVE);
}

#[test]
fn a_packet_waits_for_a_buffer() {
    let mut rig = Rig::new(0);
    rig.comes(b"early");
    assert_eq!(rig.net.receive(0, &mut rig.common), Turn::Done);
    assert_eq!((rig.receive.used_flags(), rig.cable.incoming.lock().len()), (0, 0), "it is to be told of a buffer");
    rig.buffer(0, 2048);
    assert_eq!(rig.net.receive(0, &mut rig.common), Turn::Done);
    assert_eq!(rig.receive.used(), [(0, HEADER as u32 + 5)]);
}

#[test]
fn a_long_packet_is_spread_over_merged_buffers() {
    let payload: Vec<u8> = (0..3000u32).map(|n| n as u8).collect();
    let mut rig = Rig::new(MERGEABLE);
    rig.buffer(0, 1024);
    rig.buffer(1, 1024);
    rig.comes(&payload);
    assert_eq!(rig.net.receive(0, &mut rig.common), Turn::Done);
    assert_eq!(rig.receive.used(), [], "not enough of them yet");
    rig.buffer(2, 1024);
    assert_eq!(rig.net.receive(0, &mut rig.common), Turn::Done);
    assert_eq!(rig.receive.used(), [(0, 1024), (1, 1024), (2, 3012 - 2048)]);
    let got = [rig.get(BUFFERS, 1024), rig.get(BUFFERS + 0x1000, 1024), rig.get(BUFFERS + 0x2000, 964)].concat();
    assert_eq!((got[NUM_BUFFERS], &got[HEADER..]), (3, &payload[..]));
    // A driver that does not merge gets what fits, or nothing.
    let mut rig = Rig::new(0);
    rig.buffer(0, 1024);
    rig.buffer(1, 4096);
    rig.comes(&payload);
    rig.comes(b"short");
    assert_eq!(rig.net.receive(0, &mut rig.common), Turn::Done);
    assert_eq!(rig.receive.used(), [(0, 0), (1, HEADER as u32 + 5)]);
}

#[test]
fn offloads_are_those_that_the_driver_takes() {
    let rig = Rig::new(GUEST_CSUM | GUEST_TSO4);
    let expected = Offloads { checksum: true, tso4: true, tso6: false, ecn: false };
    assert_eq!(*rig.cable.offloads.lock(), Some(expected));
    let mut config = [0xff; 12];
    rig.net.read_config(0, &mut config);
    assert_eq!(config, [2, 1, 2, 3, 4, 5, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn turns_have_a_budget() {
    let mut rig = Rig::new(0);
    for n in 0..BUDGET as u64 + 1 {
        rig.buffer(n % 16, 64);
        rig.comes(b"packet");
        rig.transmit.chain(&[(SENT, 64, false)]);
    }
    assert_eq!((rig.net.receive(0, &mut rig.common), rig.net.receive(0, &mut rig.common)), (Turn::Again, Turn::Done));
    assert_eq!(
        (rig.net.transmit(0, &mut rig.common, 0), rig.net.transmit(0, &mut rig.common, 0)),
        (Turn::Again, Turn::Done)
    );
    assert_eq!((rig.receive.used().len(), rig.cable.sent.lock().len()), (BUDGET + 1, BUDGET + 1));
}

/// Red when: a stream's batches are notified of one by one, nobody looks at the queue again, or the driver is not asked to notify at its end.
#[test]
fn a_stream_is_looked_at_again_without_notifications() {
    let (system, tasklet) = tasklet();
    let cpu = &system.cpus()[0];
    let mut rig = Rig::new(0);
    let runner = || Runner::Softirq(Arc::clone(&tasklet));
    let linger = Timer::precise(cpu, |_| None);
    rig.net.pairs[0].handles = Some(Handles { receive: runner(), transmit: runner(), linger });
    // Far from this system's own clock: nothing expires meanwhile.
    let start = u64::MAX / 2;
    let send = |rig: &mut Rig, n: u64, packets: usize| {
        (0..packets).for_each(|_| _ = rig.transmit.chain(&[(SENT, 64, false)]));
        let now = start + LINGER * n;
        assert_eq!(rig.net.transmit(0, &mut rig.common, now), Turn::Done);
        assert_eq!(rig.transmit.used().len(), packets, "sent at once");
        let asked = rig.transmit.used_flags() == 0;
        (asked, rig.net.pairs[0].handles.as_ref().is_some_and(|handles| handles.linger.is_pending()))
    };
    // Before the first there was nothing to be close to.
    let first = 1 + u64::from(STREAM);
    assert!((1..first).all(|n| send(&mut rig, n, 1) == (true, false)));
    assert_eq!(send(&mut rig, first, 1), (false, true));
    assert_eq!(cpu.next_deadline(), Some(start + (first + 1) * LINGER));
    assert_eq!(send(&mut rig, first + 1, 3), (false, true));
    assert!(rig.net.pairs[0].handles.as_ref().is_some_and(|handles| handles.linger.cancel()));
    assert_eq!(send(&mut rig, first + 2, 0), (true, false), "the stream's end");
    // Something that may be an answer ends it, too.
    let again = first + 3;
    assert!((again..again + 3).all(|n| send(&mut rig, n, 1) == (true, false)));
    rig.buffer(0, 2048);
    rig.comes(b"answer");
    assert_eq!(rig.net.receive(0, &mut rig.common), Turn::Done);
    assert_eq!(send(&mut rig, again + 3, 1), (true, false));
}

#[test]
fn nothing_is_received_before_and_after_the_drivers_life() {
    let mut rig = Rig::new(0);
    rig.buffer(0, 64);
    rig.common.write_status(0, &mut rig.net);
    rig.comes(b"late");
    assert_eq!(rig.net.receive(0, &mut rig.common), Turn::Done);
    assert_eq!(rig.cable.incoming.lock().len(), 1);
}
