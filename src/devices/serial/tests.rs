use std::sync::Arc;

use proptest::prelude::*;

use super::Serial;
use super::output::{CAPACITY, HIGH_WATER, LOW_WATER};
use crate::testing::{Bell, Probe, inb, outb};
use crate::traits::BusDevice;

const THRE: u8 = 0x20;

struct Setup {
    serial: Serial,
    irq: Arc<Probe>,
    bell: Arc<Bell>,
}

fn port() -> Setup {
    let (line, irq) = Probe::on_line();
    let bell = Arc::new(Bell::default());
    Setup { serial: Serial::new(line, bell.clone()), irq, bell }
}

/// As a driver leaves it: FIFOs on, DTR, RTS and OUT2.
fn opened() -> Setup {
    let mut s = port();
    s.put(2, 0x07);
    s.put(4, 0x0b);
    s.bell.take();
    s
}

impl Setup {
    fn get(&mut self, port: u64) -> u8 {
        inb(&mut self.serial, 0, port)
    }

    fn put(&mut self, port: u64, value: u8) {
        outb(&mut self.serial, 0, port, value);
    }

    fn drain(&mut self, count: usize) -> Vec<u8> {
        let mut data = vec![0; count];
        let copied = self.serial.peek_output(&mut data);
        data.truncate(copied);
        self.serial.consume_output(copied);
        data
    }
}

#[test]
fn registers_after_reset() {
    let mut s = port();
    assert_eq!(s.get(1), 0x00);
    assert_eq!(s.get(2), 0x01);
    assert_eq!(s.get(5), 0x60);
    s.put(7, 0xa5);
    assert_eq!(s.get(7), 0xa5);
    s.put(1, 0xff);
    assert_eq!(s.get(1), 0x0f, "no interrupts beyond a 16550's");
    s.put(3, 0x83);
    s.put(0, 0x01);
    s.put(1, 0x02);
    assert_eq!((s.get(0), s.get(1)), (0x01, 0x02), "the divisor");
    assert_eq!(s.serial.output_len(), 0);
    s.put(3, 0x03);
    assert_eq!(s.get(1), 0x0f);
}

#[test]
fn what_is_sent_rings_once_and_stays_until_consumed() {
    let mut s = opened();
    for byte in *b"hello" {
        s.put(0, byte);
    }
    assert_eq!(s.bell.take(), 1, "later calls are merged until it is empty");
    let mut data = [0; 3];
    assert_eq!(s.serial.peek_output(&mut data), 3);
    assert_eq!(&data, b"hel");
    s.serial.consume_output(2);
    assert_eq!(s.drain(100), b"llo");
    s.put(0, b'!');
    assert_eq!(s.bell.take(), 1);
}

#[test]
fn the_transmit_interrupt_is_cleared_by_reading_its_identification() {
    let mut s = opened();
    s.put(1, 0x02);
    assert!(s.irq.level(), "enabled with an empty transmitter");
    assert_eq!(s.get(2), 0xc2);
    assert!(!s.irq.level());
    assert_eq!(s.get(2), 0xc1);
    s.put(0, b'x');
    assert!(s.irq.level(), "empty again");
    s.put(1, 0x00);
    assert!(!s.irq.level());
    s.put(1, 0x02);
    assert!(s.irq.level());
}

#[test]
fn each_sent_byte_is_a_new_edge() {
    let mut s = opened();
    s.put(1, 0x02);
    s.get(2);
    s.irq.take_edges();
    s.put(0, b'a');
    s.get(2);
    s.put(0, b'b');
    assert_eq!(s.irq.take_edges(), 2);
}

#[test]
fn a_full_buffer_makes_the_transmitter_busy_and_holds_its_interrupt() {
    let mut s = opened();
    s.put(1, 0x02);
    let mut sent = 0;
    while s.get(5) & THRE != 0 && sent < CAPACITY {
        s.put(0, sent as u8);
        sent += 1;
    }
    assert_eq!(sent, HIGH_WATER);
    assert_eq!(s.get(5) & 0x60, 0);
    assert!(!s.irq.level());
    s.put(1, 0x00);
    s.put(1, 0x02);
    assert!(!s.irq.level(), "enabling it again finds no empty transmitter");

    s.drain(HIGH_WATER - LOW_WATER - 1);
    assert!(!s.irq.level());
    assert_eq!(s.get(5) & 0x60, 0);
    s.drain(1);
    assert!(s.irq.level(), "the driver goes on");
    assert_eq!(s.get(2), 0xc2);
    assert_eq!(s.get(5) & 0x60, 0x60);
}

#[test]
fn bursts_of_many_vcpus_fit_after_the_transmitter_was_seen_empty() {
    let mut s = opened();
    for _ in 0..HIGH_WATER - 1 {
        s.put(0, 0);
    }
    assert_ne!(s.get(5) & THRE, 0);
    for _ in 0..255 * 16 {
        s.put(0, 1);
    }
    assert_eq!(s.serial.dropped_output(), 0);
}

#[test]
fn a_guest_that_ignores_the_status_loses_bytes_and_they_are_counted() {
    let mut s = opened();
    for i in 0..CAPACITY + 10 {
        s.put(0, i as u8);
    }
    assert_eq!(s.serial.dropped_output(), 10);
    assert_eq!(s.serial.output_len(), CAPACITY);
    assert_eq!(s.drain(CAPACITY), (0..CAPACITY).map(|i| i as u8).collect::<Vec<_>>());
}

#[test]
fn the_receive_interrupt_is_a_level_until_the_fifo_is_empty() {
    let mut s = opened();
    s.put(1, 0x01);
    assert_eq!(s.serial.push_input(b"abc"), 3);
    assert!(s.irq.level());
    assert_eq!(s.get(2), 0xc4);
    assert!(s.irq.level(), "identifying it clears nothing");
    assert_eq!((s.get(0), s.get(0)), (b'a', b'b'));
    assert!(s.irq.level());
    assert_eq!(s.get(5) & 1, 1);
    assert_eq!(s.get(0), b'c');
    assert!(!s.irq.level());
    assert_eq!(s.get(5) & 1, 0);
}

#[test]
fn input_that_came_while_masked_interrupts_when_unmasked() {
    let mut s = opened();
    s.serial.push_input(b"x");
    assert!(!s.irq.level());
    s.put(1, 0x01);
    assert!(s.irq.level());
}

#[test]
fn the_receive_interrupt_is_reported_before_the_transmit_interrupt() {
    let mut s = opened();
    s.put(1, 0x03);
    s.serial.push_input(b"x");
    assert_eq!(s.get(2), 0xc4);
    assert_eq!(s.get(2), 0xc4, "reporting it leaves the transmit interrupt pending");
    s.get(0);
    assert!(s.irq.level());
    assert_eq!(s.get(2), 0xc2);
    assert_eq!(s.get(2), 0xc1);
}

#[test]
fn out2_gates_the_interrupt() {
    let mut s = opened();
    s.put(1, 0x02);
    s.put(4, 0x03);
    assert!(!s.irq.level());
    s.put(4, 0x0b);
    assert!(s.irq.level());
}

#[test]
fn loopback_receives_what_is_sent_and_shows_the_modem_lines() {
    let mut s = opened();
    s.put(4, 0x1b);
    s.put(0, b'L');
    assert_eq!(s.serial.output_len(), 0);
    assert_eq!(s.serial.push_input(b"x"), 0, "the pin is disconnected");
    assert_eq!(s.get(0), b'L');
    s.put(4, 0x1a);
    assert_eq!(s.get(6) & 0xf0, 0x90);
    s.bell.take();
    s.put(4, 0x0b);
    assert_eq!(s.bell.take(), 1, "the input that was turned away may come");
}

#[test]
fn a_long_paste_loses_nothing() {
    let mut s = opened();
    s.put(1, 0x01);
    let paste: Vec<u8> = (0..10_000u32).map(|i| (i * 7) as u8).collect();
    let mut sent = s.serial.push_input(&paste);
    assert_eq!(sent, 64);
    let mut received = Vec::new();
    while received.len() < paste.len() {
        assert!(s.irq.level(), "stuck after {}", received.len());
        while s.get(5) & 1 != 0 {
            received.push(s.get(0));
        }
        if s.bell.take() > 0 {
            sent += s.serial.push_input(&paste[sent..]);
        }
    }
    assert_eq!(received, paste);
    assert_eq!(s.bell.take(), 0, "a caller that was not turned away is not called");
}

#[test]
fn input_waits_for_request_to_send() {
    let mut s = port();
    assert_eq!(s.serial.push_input(b"early"), 0);
    // As a driver opens the port: resets the FIFOs, reads the receiver, then raises RTS.
    s.put(4, 0x09);
    s.put(2, 0x07);
    s.get(5);
    s.get(0);
    assert_eq!(s.serial.input_capacity(), 0);
    assert_eq!(s.bell.take(), 0);
    s.put(4, 0x0b);
    assert_eq!(s.bell.take(), 1);
    assert_eq!(s.serial.push_input(b"early"), 5);
    s.put(4, 0x09);
    assert_eq!(s.serial.push_input(b"more"), 0, "flow control");
    assert_eq!(s.get(0), b'e');
    s.put(1, 0x01);
    assert_eq!(s.serial.push_input(b"more"), 0, "RTS was used, so it decides");
}

#[test]
fn a_guest_without_modem_control_gets_input_when_it_enables_the_interrupt_or_polls() {
    let mut s = port();
    s.put(1, 0x01);
    assert_eq!(s.bell.take(), 1);
    assert_eq!(s.serial.push_input(b"x"), 1);
    let mut s = port();
    s.get(5);
    assert_eq!(s.bell.take(), 1);
    assert_eq!(s.serial.push_input(b"x"), 1);
    let mut s = port();
    s.put(4, 0x0a | 0x10);
    s.put(4, 0x08);
    s.get(5);
    assert_eq!(s.serial.push_input(b"x"), 0, "loopback is no RTS");
}

#[test]
fn resetting_the_fifo_drops_what_is_in_it() {
    let mut s = opened();
    s.serial.push_input(b"old");
    s.put(3, 0x83);
    s.put(2, 0x03);
    assert_eq!(s.get(3), 0x83);
    s.put(3, 0x03);
    assert_eq!(s.get(5) & 1, 0);
    assert_eq!(s.serial.input_capacity(), 64);
    s.put(2, 0x00);
    assert_eq!(s.get(2) & 0xc0, 0);
}

#[test]
fn a_word_access_is_two_bytes() {
    let mut s = opened();
    s.serial.write(0, 0, &[b'w', 0x02]);
    assert_eq!(s.drain(9), b"w");
    let mut data = [0; 2];
    s.serial.read(0, 7, &mut data);
    assert_eq!(data, [0, 0xff]);
}

#[derive(Debug, Clone)]
enum Step {
    Poll(usize),
    Interrupt,
    Drain(usize),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_sent_while_the_transmitter_is_empty_is_lost_or_reordered(
        steps in prop::collection::vec(
            prop_oneof![
                (1..40usize).prop_map(|bursts| Step::Poll(bursts * 100)),
                Just(Step::Interrupt),
                (1..60_000usize).prop_map(Step::Drain),
            ],
            1..120,
        ),
    ) {
        let mut s = opened();
        s.put(1, 0x02);
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        let mut next = 0u32;
        let mut burst = |s: &mut Setup| {
            for _ in 0..16 {
                next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                s.put(0, (next >> 24) as u8);
                sent.push((next >> 24) as u8);
            }
        };
        for step in steps {
            match step {
                // A polling console: a FIFO's worth whenever the transmitter is empty.
                Step::Poll(bursts) => {
                    for _ in 0..bursts {
                        if s.get(5) & THRE == 0 {
                            break;
                        }
                        burst(&mut s);
                    }
                }
                // An interrupt handler.
                Step::Interrupt => {
                    if s.irq.level() && s.get(2) & 0x0f == 0x02 {
                        burst(&mut s);
                    }
                }
                Step::Drain(count) => got.extend(s.drain(count)),
            }
        }
        got.extend(s.drain(CAPACITY));
        prop_assert!(s.serial.dropped_output() == 0);
        prop_assert!(got == sent);
        prop_assert!(s.irq.level(), "with all written out the driver may go on");
    }
}
