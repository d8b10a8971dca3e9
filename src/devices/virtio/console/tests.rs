//! A driver of the console, and the host's end of its ports.

use vm_memory::{Bytes, GuestAddress};

use super::super::queue::Queue;
use super::super::testing::{Ring, agree, go, memory};
use super::super::{Memory, status};
use super::control::Pending;
use super::*;
use crate::traits::ConsoleEnd;

/// Where the driver has messages and data.
const MESSAGES: u64 = 0x8_0000;
const DATA: u64 = 0x9_0000;

struct Rig {
    console: Console,
    common: Common,
    rings: Vec<Ring>,
    /// Buffers that the driver has offered by [`Rig::news`], and those that have come back.
    offered: u64,
    heard: u64,
}

/// A console, and a port with a name.
fn rig(features: u64) -> Rig {
    let mut rig = stopped(vec![None, Some("log".into())]);
    rig.start(features);
    rig
}

/// These ports, whose driver has yet to come.
fn stopped(names: Vec<Option<String>>) -> Rig {
    let console = Console::new(names);
    let common = Common::new(&console, memory());
    Rig { console, common, rings: Vec::new(), offered: 0, heard: 0 }
}

const SMALL: Size = Size { columns: 80, rows: 24 };
const LARGE: Size = Size { columns: 0x184, rows: 0x12b };

impl Rig {
    /// A driver that takes these features comes.
    fn start(&mut self, features: u64) {
        (self.offered, self.heard) = (0, 0);
        // Of the driver before.
        self.put(0x1_0000, &[0; 0x2_0000]);
        let ring = |n: u16| Ring::new(self.common.memory(), 0x1_0000 + 0x4000 * u64::from(n), 32);
        self.rings = (0..self.common.queue_count()).map(ring).collect();
        agree(&mut self.common, &mut self.console, features as u32, 0);
        for (queue, ring) in self.rings.iter().enumerate() {
            ring.set_up_in(&mut self.common, queue as u16);
        }
        go(&mut self.common, &mut self.console);
        assert!(self.common.is_running());
    }

    /// Columns and rows in the configuration.
    fn configured(&self) -> [u8; 4] {
        let mut config = [0; 4];
        self.console.read_config(0, &mut config);
        config
    }

    /// The messages that have come by the control queue, when it has been given `count` more buffers.
    fn news(&mut self, count: u64) -> Vec<Vec<u8>> {
        for _ in 0..count {
            self.offered += 1;
            let at = MESSAGES + 0x100 * self.offered;
            self.ring(CONTROL_RECEIVE).chain(&[(at, 0x100, true)]);
        }
        assert_eq!(self.console.serve_control(&mut self.common), Turn::Done);
        let used = self.ring(CONTROL_RECEIVE).used();
        let first = self.heard + 1;
        self.heard += used.len() as u64;
        used.iter().zip(first..).map(|(&(_, len), n)| self.get(MESSAGES + 0x100 * n, len as usize)).collect()
    }

    /// The port is ready, and these are the events that its driver hears of.
    fn events_of_ready(&mut self, port: u32) -> Vec<u8> {
        self.says(port, 3, 1);
        self.news(4).into_iter().map(|message| message[4]).collect()
    }

    fn memory(&self) -> &Memory {
        self.common.memory()
    }

    fn put(&self, at: u64, data: &[u8]) {
        self.memory().write_slice(data, GuestAddress(at)).expect("memory");
    }

    fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory().read_slice(&mut data, GuestAddress(at)).expect("memory");
        data
    }

    fn ring(&mut self, queue: u16) -> &mut Ring {
        &mut self.rings[usize::from(queue)]
    }

    /// The driver says something by the control queue.
    fn says(&mut self, port: u32, event: u16, value: u16) {
        self.put(MESSAGES, &[&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat());
        self.ring(CONTROL_TRANSMIT).chain(&[(MESSAGES, 8, false)]);
        assert_eq!(self.console.serve_control(&mut self.common), Turn::Done);
    }

    /// What it is told: port, event, and the name behind it. Buffers are offered for `count` messages first.
    fn hears(&mut self, count: u64) -> Vec<(u32, u16, String)> {
        for n in 0..count {
            self.ring(CONTROL_RECEIVE).chain(&[(MESSAGES + 0x100 * (n + 1), 0x100, true)]);
        }
        assert_eq!(self.console.serve_control(&mut self.common), Turn::Done);
        let used = self.ring(CONTROL_RECEIVE).used();
        let message = |(n, (_, len)): (usize, (u32, u32))| {
            let bytes = self.get(MESSAGES + 0x100 * (n as u64 + 1), len as usize);
            let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            assert_eq!((word(2), word(6)), (0, 1));
            (u32::from(word(0)), word(4), String::from_utf8(bytes[8..].to_vec()).expect("text"))
        };
        used.into_iter().enumerate().map(message).collect()
    }

    fn end(&mut self, port: usize) -> End<'_> {
        self.console.end(&mut self.common, port)
    }

    /// The guest sends something, in one chain of these lengths.
    fn sends(&mut self, port: usize, at: u64, lens: &[u32]) {
        let mut next = at;
        let chain: Vec<_> = lens
            .iter()
            .map(|&len| {
                next += u64::from(len);
                (next - u64::from(len), len, false)
            })
            .collect();
        self.ring(transmit_queue(port)).chain(&chain);
    }
}

#[test]
fn queues_come_in_pairs_with_control_behind_the_first() {
    assert_eq!([0, 1, 2, 15].map(receive_queue), [0, 4, 6, 32]);
    assert_eq!([0, 1, 2, 3, 4, 5, 33].map(port_of), [Some(0), Some(0), None, None, Some(1), Some(1), Some(15)]);
    for (ports, queues) in [(1, 2), (2, 6), (MAX_PORTS, 34)] {
        assert_eq!(Console::new(vec![None; ports]).queues().len(), queues);
    }
    assert_eq!(Console::new(vec![Some("name".into())]).queues().len(), 4);
    let mut config = [0xff; 16];
    rig(0).console.read_config(0, &mut config);
    assert_eq!(config, [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn the_driver_hears_of_ports_what_they_are_and_their_names() {
    let mut rig = rig(MULTIPORT);
    assert!(rig.hears(4).is_empty(), "nothing is said to a driver that is not ready");
    rig.says(u32::MAX, 0, 1);
    let used = rig.ring(CONTROL_RECEIVE).used();
    assert_eq!(used.len(), 2, "both ports are there");
    rig.says(0, 3, 1);
    rig.says(1, 3, 1);
    let said: Vec<_> = (1..5).map(|n| rig.get(MESSAGES + 0x100 * n, 11)).collect();
    assert_eq!(said[0][..8], [0, 0, 0, 0, 1, 0, 1, 0]);
    assert_eq!(said[1][..8], [1, 0, 0, 0, 1, 0, 1, 0]);
    assert_eq!(said[2][..8], [0, 0, 0, 0, 4, 0, 1, 0], "a console");
    assert_eq!(said[3][..8], [0, 0, 0, 0, 6, 0, 1, 0], "with somebody at its other end");
    assert_eq!(rig.ring(CONTROL_RECEIVE).used().len(), 2);
    // The rest waits for buffers.
    assert_eq!(rig.hears(3), [(1, 7, "log".into()), (1, 6, String::new())]);
    assert_eq!(rig.common.take_owed().queues, 1 << CONTROL_RECEIVE | 1 << CONTROL_TRANSMIT);
}

#[test]
fn a_driver_that_asks_again_and_again_makes_no_list_longer() {
    let mut rig = rig(MULTIPORT);
    for _ in 0..1000 {
        rig.says(0, 0, 1);
        rig.says(1, 3, 1);
        rig.says(7, 3, 1);
        rig.says(0, 999, 1);
        rig.ring(CONTROL_TRANSMIT).used();
    }
    assert_eq!(rig.hears(20).len(), 4, "two ports, a name, and that it is open");
    assert_eq!(rig.console.ports[1].pending, Pending::default());
}

#[test]
fn a_message_without_room_breaks_the_device() {
    let mut rig = rig(MULTIPORT);
    rig.ring(CONTROL_RECEIVE).chain(&[(MESSAGES, 7, true)]);
    rig.says(0, 0, 1);
    assert_ne!(rig.common.status() & status::NEEDS_RESET, 0);
    let _ = rig.console.serve_control(&mut rig.common);
    assert_eq!((rig.end(0).output_len(), rig.end(0).push_input(b"x")), (0, 0), "and it does nothing more");
}

#[test]
fn output_stays_with_the_driver_until_it_is_written() {
    let mut rig = rig(MULTIPORT);
    rig.put(DATA, b"hello, world");
    rig.sends(0, DATA, &[5, 2]);
    rig.sends(0, DATA + 7, &[5]);
    let mut data = [0; 4];
    assert_eq!((rig.end(0).output_len(), rig.end(0).peek_output(&mut data)), (7, 4));
    assert_eq!(&data, b"hell");
    assert!(rig.ring(TRANSMIT_0).used().is_empty());
    rig.end(0).consume_output(4);
    assert_eq!(rig.end(0).peek_output(&mut data), 3);
    assert_eq!(&data[..3], b"o, ");
    rig.end(0).consume_output(3);
    assert_eq!(rig.ring(TRANSMIT_0).used(), [(0, 0)]);
    assert_eq!(rig.common.take_owed().queues, 1 << TRANSMIT_0);
    assert_eq!(rig.end(0).peek_output(&mut data), 4);
    assert_eq!(&data, b"worl");
    rig.end(0).consume_output(5);
    assert_eq!((rig.ring(TRANSMIT_0).used(), rig.end(0).output_len()), (vec![(2, 0)], 0));
    assert_eq!(rig.common.queue(TRANSMIT_0).map(Queue::outstanding), Some(0));
}

#[test]
fn chains_with_nothing_in_them_are_given_back() {
    let mut rig = rig(MULTIPORT);
    for _ in 0..30 {
        rig.ring(TRANSMIT_0).chain(&[(DATA, 5, true)]);
    }
    rig.put(DATA, b"x");
    rig.sends(0, DATA, &[1]);
    assert_eq!((rig.end(0).output_len(), rig.ring(TRANSMIT_0).used().len()), (1, 30));
}

#[test]
fn input_fills_the_drivers_buffers_and_the_rest_stays() {
    let mut rig = rig(MULTIPORT);
    assert_eq!(rig.end(0).push_input(b"typed"), 0, "no buffer yet");
    rig.ring(RECEIVE_0).chain(&[(DATA, 3, true)]);
    rig.ring(RECEIVE_0).chain(&[(DATA + 0x10, 1, true), (DATA + 0x20, 1, true)]);
    assert_eq!(rig.end(0).push_input(b"typed ahead"), 5);
    assert_eq!(rig.ring(RECEIVE_0).used(), [(0, 3), (1, 2)]);
    assert_eq!([rig.get(DATA, 3), rig.get(DATA + 0x10, 1), rig.get(DATA + 0x20, 1)].concat(), b"typed");
    assert_eq!(rig.common.take_owed().queues, 1 << RECEIVE_0);
}

/// Linux throws away what comes to a port that nobody has opened.
#[test]
fn a_port_takes_input_only_while_it_is_open() {
    let mut rig = rig(MULTIPORT);
    rig.ring(receive_queue(1)).chain(&[(DATA, 3, true)]);
    assert_eq!(rig.end(1).push_input(b"abc"), 0);
    rig.says(1, 6, 1);
    assert_eq!(rig.end(1).push_input(b"abc"), 3);
    rig.ring(receive_queue(1)).chain(&[(DATA, 3, true)]);
    rig.says(1, 6, 0);
    assert_eq!(rig.end(1).push_input(b"abc"), 0);
}

#[test]
fn a_driver_of_one_port_has_a_console_and_nothing_else() {
    let mut rig = rig(0);
    rig.ring(RECEIVE_0).chain(&[(DATA, 3, true)]);
    rig.ring(receive_queue(1)).chain(&[(DATA, 3, true)]);
    assert_eq!((rig.end(0).push_input(b"abc"), rig.end(1).push_input(b"abc")), (3, 0));
    rig.put(DATA, b"x");
    rig.sends(0, DATA, &[1]);
    assert_eq!(rig.end(0).output_len(), 1);
}

#[test]
fn a_reset_forgets_what_was_half_written_and_who_was_open() {
    let mut rig = rig(MULTIPORT);
    rig.says(1, 6, 1);
    rig.says(1, 3, 1);
    rig.sends(1, DATA, &[100]);
    rig.end(1).consume_output(0);
    assert_eq!(rig.end(1).output_len(), 100);
    rig.common.write_status(0, &mut rig.console);
    assert_eq!(rig.end(1).output_len(), 0);
    rig.end(1).consume_output(50);
    agree(&mut rig.common, &mut rig.console, MULTIPORT as u32, 0);
    go(&mut rig.common, &mut rig.console);
    let port = &rig.console.ports[1];
    assert_eq!((port.is_open, port.pending, port.output.is_none()), (false, Pending::default(), true));
}

#[test]
fn a_console_alone_has_its_size_in_the_configuration() {
    let mut rig = stopped(vec![None]);
    assert_eq!(rig.console.features(), SIZE);
    assert_eq!(Console::new(vec![Some("log".into())]).features(), SIZE | MULTIPORT);
    assert_eq!(Console::new(vec![None, None]).features(), SIZE | MULTIPORT);
    rig.start(SIZE);
    assert!(!rig.common.take_owed().config, "there is nothing to be told of");
    let generation = rig.common.generation();
    rig.end(0).resize(LARGE);
    assert_eq!(rig.configured(), [0x84, 1, 0x2b, 1], "columns, then rows");
    assert!(rig.common.take_owed().config && rig.common.generation() != generation);
    let generation = rig.common.generation();
    rig.end(0).resize(LARGE);
    assert!(!rig.common.take_owed().config && rig.common.generation() == generation, "it has that size already");
}

/// Linux's driver reads the configuration only when it has changed.
#[test]
fn a_driver_that_comes_later_is_told_to_look_at_the_size() {
    let mut rig = stopped(vec![None]);
    rig.end(0).resize(SMALL);
    assert!(!rig.common.take_owed().config, "there is no driver");
    rig.start(SIZE);
    assert!(rig.common.take_owed().config);
    assert_eq!(rig.configured(), [80, 0, 24, 0]);
    rig.common.write_status(0, &mut rig.console);
    assert_eq!(rig.configured(), [80, 0, 24, 0], "the terminal has not changed");
    rig.end(0).resize(LARGE);
    rig.start(SIZE);
    assert!(rig.common.take_owed().config);
    assert_eq!(rig.configured(), [0x84, 1, 0x2b, 1]);
    rig.common.write_status(0, &mut rig.console);
    rig.start(0);
    assert!(!rig.common.take_owed().config, "who does not want sizes is left alone");
}

/// A message of a port's size, columns first.
fn message(port: u8, [c0, c1]: [u8; 2], [r0, r1]: [u8; 2]) -> Vec<u8> {
    vec![port, 0, 0, 0, 5, 0, 1, 0, c0, c1, r0, r1]
}

#[test]
fn a_console_of_several_is_told_its_size_by_a_message() {
    let mut rig = stopped(vec![Some("log".into()), None]);
    rig.end(0).resize(SMALL);
    rig.end(1).resize(SMALL);
    assert_eq!(rig.configured(), [0; 4], "the first port is no console");
    rig.start(SIZE | MULTIPORT);
    rig.says(1, 3, 1);
    assert_eq!(rig.news(3)[1], message(1, [80, 0], [24, 0]));
    rig.end(1).resize(LARGE);
    assert!(rig.news(0).is_empty(), "there is no buffer");
    assert_eq!(rig.news(2), [message(1, [0x84, 1], [0x2b, 1])]);
    let _ = rig.common.take_owed();
    rig.end(1).resize(SMALL);
    let owed = rig.common.take_owed();
    assert_eq!((owed.queues, owed.config), (1 << CONTROL_RECEIVE, false), "at once, and the configuration is the same");
    assert_eq!(rig.news(0), [message(1, [80, 0], [24, 0])]);
    rig.end(1).resize(SMALL);
    assert!(rig.news(2).is_empty(), "it has that size already");
}

/// Linux's driver ignores a size before that.
#[test]
fn no_size_is_told_before_the_driver_knows_of_the_console() {
    let mut rig = stopped(vec![None, None]);
    rig.start(SIZE | MULTIPORT);
    rig.end(0).resize(SMALL);
    assert!(rig.common.take_owed().config, "though it is in the configuration");
    assert!(rig.news(4).is_empty());
    assert_eq!(rig.events_of_ready(0), [4, 5, 6]);
    assert_eq!(rig.events_of_ready(1), [4, 6], "the other's is not known");
}

#[test]
fn many_sizes_are_one_message_with_the_latest() {
    let mut rig = stopped(vec![None, None]);
    rig.start(SIZE | MULTIPORT);
    rig.says(1, 3, 1);
    for columns in 1..=1000 {
        rig.end(1).resize(Size { columns, rows: 50 });
    }
    assert_eq!(rig.news(8)[1..2], [message(1, [0xe8, 3], [50, 0])]);
    assert_eq!((rig.heard, rig.console.ports[1].pending), (3, Pending::default()));
}

#[test]
fn a_reset_forgets_what_was_to_be_told_and_keeps_the_size() {
    let mut rig = stopped(vec![None, None]);
    rig.start(SIZE | MULTIPORT);
    rig.says(1, 3, 1);
    rig.end(1).resize(SMALL);
    rig.common.write_status(0, &mut rig.console);
    rig.end(1).resize(LARGE);
    rig.start(SIZE | MULTIPORT);
    rig.end(1).resize(SMALL);
    assert!(rig.news(4).is_empty(), "it does not know of the console yet");
    rig.says(1, 3, 1);
    assert_eq!(rig.news(0)[1], message(1, [80, 0], [24, 0]));
}

#[test]
fn a_driver_that_wants_no_sizes_and_a_port_with_a_name_are_told_none() {
    let mut rig = rig(MULTIPORT);
    rig.end(0).resize(SMALL);
    assert_eq!(rig.events_of_ready(0), [4, 6]);
    rig.end(0).resize(LARGE);
    assert!(rig.news(4).is_empty());
    rig.common.write_status(0, &mut rig.console);
    rig.start(SIZE | MULTIPORT);
    rig.end(1).resize(SMALL);
    assert_eq!(rig.events_of_ready(1), [7, 6]);
    rig.end(1).resize(LARGE);
    assert!(rig.news(4).is_empty());
}
