use x86::apic::{DeliveryMode, TriggerMode};

use super::*;
use crate::message::{Accepted, Destination, Message};

pub(super) const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const ACTIVE_LOW: u32 = 1 << 13;
const REMOTE_IRR: u32 = 1 << 14;
pub(super) const SEND_PENDING: u32 = 1 << 12;

/// An I/O APIC and a bus with, or without, somebody on it.
pub(super) struct Bench {
    pub(super) chip: IoApic,
    accept: Accepted,
    pub(super) now: Nanos,
    pub(super) sent: Vec<Message>,
}

impl Bench {
    fn new() -> Self {
        Self { chip: IoApic::new(2), accept: Accepted::Yes, now: 0, sent: Vec::new() }
    }

    pub(super) fn with_entry(pin: u8, low: u32) -> Self {
        let mut bench = Self::new();
        bench.low(pin, low);
        bench
    }

    pub(super) fn run(&mut self, call: impl FnOnce(&mut IoApic, Nanos, &mut dyn MessageSink)) {
        let (accept, sent) = (self.accept, &mut self.sent);
        call(&mut self.chip, self.now, &mut |message: &Message| {
            sent.push(*message);
            accept
        });
    }

    fn mmio(&mut self, offset: u64, data: &[u8]) {
        self.run(|chip, now, sink| chip.write(now, offset, data, sink));
    }

    fn register(&mut self, index: u8, value: u32) {
        self.mmio(IOREGSEL, &[index]);
        self.mmio(IOWIN, &value.to_le_bytes());
    }

    fn read(&mut self, index: u8) -> u32 {
        self.mmio(IOREGSEL, &[index]);
        let mut data = [0xaa; 4];
        self.chip.read(IOWIN, &mut data);
        u32::from_le_bytes(data)
    }

    pub(super) fn low(&mut self, pin: u8, value: u32) {
        self.register(REG_TABLE + 2 * pin, value);
    }

    pub(super) fn high(&mut self, pin: u8, value: u32) {
        self.register(REG_TABLE + 2 * pin + 1, value);
    }

    pub(super) fn read_low(&mut self, pin: u8) -> u32 {
        self.read(REG_TABLE + 2 * pin)
    }

    pub(super) fn line(&mut self, pin: u8, level: bool) {
        self.run(|chip, _, sink| chip.set_line(pin, level, sink));
    }

    pub(super) fn eoi(&mut self, vector: u8) {
        self.run(|chip, now, sink| chip.eoi(now, vector, sink));
    }

    pub(super) fn expire(&mut self) {
        self.run(|chip, now, sink| chip.expire(now, sink));
    }

    /// The vectors sent since the last call.
    pub(super) fn vectors(&mut self) -> Vec<u8> {
        self.sent.drain(..).map(|message| message.vector).collect()
    }

    fn remote_irr(&self, pin: u8) -> bool {
        self.chip.entry(pin).unwrap().remote_irr()
    }
}

#[test]
fn version_is_0x20_with_24_entries() {
    let mut bench = Bench::new();
    assert_eq!(bench.read(REG_VERSION), 0x0017_0020);
    bench.register(REG_VERSION, u32::MAX);
    assert_eq!(bench.read(REG_VERSION), 0x0017_0020);
}

#[test]
fn the_id_is_bits_27_to_24_and_the_arbitration_id_follows_it() {
    let mut bench = Bench::new();
    assert_eq!(bench.read(REG_ID), 0x0200_0000);
    bench.register(REG_ID, u32::MAX);
    assert_eq!(bench.read(REG_ID), 0x0f00_0000);
    assert_eq!(bench.read(REG_ARB), 0x0f00_0000);
    bench.register(REG_ARB, 0x0300_0000);
    assert_eq!(bench.read(REG_ARB), 0x0f00_0000, "read only");
    bench.chip.reset();
    assert_eq!(bench.read(REG_ID), 0x0200_0000);
}

#[test]
fn the_index_reads_back_and_takes_byte_writes() {
    let mut bench = Bench::new();
    for data in [&[0x17][..], &[0x17, 0xff], &[0x17, 0xff, 0xff, 0xff]] {
        bench.mmio(IOREGSEL, &[0]);
        bench.mmio(IOREGSEL, data);
        let mut index = [0xaa; 4];
        bench.chip.read(IOREGSEL, &mut index);
        assert_eq!(index, [0x17, 0, 0, 0]);
    }
}

#[test]
fn odd_accesses_read_0_and_write_nothing() {
    let mut bench = Bench::new();
    bench.low(1, 0x31);
    bench.mmio(IOREGSEL, &[REG_TABLE + 2]);
    for (offset, size) in [(IOWIN, 1), (IOWIN, 2), (IOWIN, 3), (IOWIN, 8), (IOWIN + 1, 4), (IOWIN + 2, 2), (1, 1)] {
        bench.mmio(offset, &vec![0x55; size]);
        let mut data = vec![0xaa; size];
        bench.chip.read(offset, &mut data);
        assert_eq!(data, vec![0; size], "{offset:#x}, {size} bytes");
    }
    for size in [3, 8] {
        let mut data = vec![0xaa; size];
        bench.chip.read(IOREGSEL, &mut data);
        assert_eq!(data, vec![0; size]);
        bench.mmio(IOREGSEL, &data);
    }
    bench.mmio(IOREGSEL, &[]);
    bench.chip.read(u64::MAX, &mut []);
    let mut low = [0; 4];
    bench.chip.read(IOWIN, &mut low);
    assert_eq!(u32::from_le_bytes(low), 0x31);
}

#[test]
fn unknown_registers_read_0() {
    let mut bench = Bench::new();
    for index in (3..REG_TABLE).chain(REG_TABLE + 2 * PINS as u8..=0xff) {
        bench.register(index, u32::MAX);
        assert_eq!(bench.read(index), 0, "index {index:#x}");
    }
    assert_eq!(bench.vectors(), []);
}

#[test]
fn entries_start_masked_and_keep_their_writable_bits() {
    let mut bench = Bench::new();
    for pin in 0..PINS as u8 {
        assert_eq!((bench.read_low(pin), bench.read(REG_TABLE + 2 * pin + 1)), (MASKED, 0));
        bench.low(pin, u32::MAX);
        bench.high(pin, u32::MAX);
        assert_eq!((bench.read_low(pin), bench.read(REG_TABLE + 2 * pin + 1)), (0x0001_afff, 0xfffe_0000));
    }
    assert_eq!((bench.chip.entry(24), bench.chip.line(24), bench.chip.counters(24)), (None, None, None));
}

#[test]
fn an_edge_is_sent_at_the_rise_with_what_the_entry_says() {
    let mut bench = Bench::with_entry(4, 0x0900 | 0x34);
    bench.high(4, 0x0500_0000);
    bench.line(4, true);
    let expected = Message {
        destination: Destination::Logical(5),
        mode: DeliveryMode::LowestPriority,
        vector: 0x34,
        trigger: TriggerMode::Edge,
    };
    assert_eq!(bench.sent, [expected]);
    assert!(!bench.remote_irr(4));
    bench.line(4, true);
    bench.line(4, false);
    assert_eq!(bench.sent.len(), 1);
    bench.line(4, true);
    assert_eq!(bench.sent.len(), 2);
    assert_eq!(bench.chip.counters(4).unwrap().sent, 2);
}

#[test]
fn the_extended_destination_reaches_the_message() {
    let mut bench = Bench::with_entry(4, 0x34);
    bench.high(4, 0x0502_0000);
    bench.line(4, true);
    assert_eq!(bench.sent[0].destination, Destination::Physical(0x105));
}

#[test]
fn an_edge_on_a_masked_pin_is_lost() {
    let mut bench = Bench::with_entry(4, MASKED | 0x34);
    bench.line(4, true);
    bench.low(4, 0x34);
    assert_eq!(bench.vectors(), []);
}

#[test]
fn an_edge_that_nobody_accepts_is_dropped_and_counted() {
    let mut bench = Bench::with_entry(4, 0x34);
    bench.accept = Accepted::No;
    bench.line(4, true);
    assert_eq!(bench.vectors(), [0x34]);
    bench.accept = Accepted::Yes;
    bench.run(|chip, _, sink| chip.destinations_changed(sink));
    bench.low(4, 0x34);
    assert_eq!(bench.vectors(), []);
    assert_eq!(bench.read_low(4), 0x34, "not pending");
    let counters = bench.chip.counters(4).unwrap();
    assert_eq!((counters.sent, counters.edges_dropped()), (0, 1));
    assert_eq!((counters.account.asserted, counters.account.dropped.no_destination), (1, 1));
}

#[test]
fn a_level_is_sent_once_until_its_eoi() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.line(9, true);
    assert_eq!(bench.sent[0].trigger, TriggerMode::Level);
    assert_eq!(bench.vectors(), [0x39]);
    assert_eq!(bench.read_low(9), LEVEL | REMOTE_IRR | 0x39);
    bench.line(9, false);
    assert!(bench.remote_irr(9), "the fall does not end it");
    bench.line(9, true);
    assert_eq!(bench.vectors(), []);
    bench.line(9, false);
    bench.eoi(0x39);
    assert_eq!(bench.vectors(), []);
    assert_eq!(bench.read_low(9), LEVEL | 0x39);
}

#[test]
fn a_level_still_asserted_at_eoi_fires_again() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.line(9, true);
    bench.eoi(0x39);
    assert_eq!(bench.vectors(), [0x39, 0x39]);
    assert!(bench.remote_irr(9));
}

#[test]
fn a_level_raised_again_while_in_service_fires_at_the_eoi() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.line(9, true);
    bench.line(9, false);
    bench.line(9, true);
    bench.vectors();
    bench.eoi(0x39);
    assert_eq!(bench.vectors(), [0x39]);
}

#[test]
fn a_masked_level_fires_at_the_unmask() {
    let mut bench = Bench::with_entry(9, MASKED | LEVEL | 0x39);
    bench.line(9, true);
    assert_eq!(bench.vectors(), []);
    assert_eq!(bench.read_low(9), MASKED | LEVEL | 0x39, "masked is not pending");
    bench.low(9, LEVEL | 0x39);
    assert_eq!(bench.vectors(), [0x39]);
}

#[test]
fn a_level_that_falls_while_masked_is_forgotten() {
    let mut bench = Bench::with_entry(9, MASKED | LEVEL | 0x39);
    bench.line(9, true);
    bench.line(9, false);
    bench.low(9, LEVEL | 0x39);
    assert_eq!(bench.vectors(), []);
}

#[test]
fn a_held_line_fires_when_its_entry_becomes_level() {
    let mut bench = Bench::with_entry(9, 0x39);
    bench.line(9, true);
    bench.vectors();
    bench.low(9, LEVEL | 0x39);
    assert_eq!(bench.vectors(), [0x39]);
}

#[test]
fn masking_and_unmasking_in_service_keeps_remote_irr() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.line(9, true);
    for low in [MASKED | LEVEL | 0x39, LEVEL | 0x39, LEVEL | 0x0800 | 0x39] {
        bench.low(9, low);
        assert_eq!(bench.read_low(9), low | REMOTE_IRR);
    }
    bench.high(9, 0x0100_0000);
    assert!(bench.remote_irr(9));
    assert_eq!(bench.vectors(), [0x39], "no duplicate");
}

#[test]
fn an_eoi_of_a_masked_pin_ends_it_without_firing() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.line(9, true);
    bench.low(9, MASKED | LEVEL | 0x39);
    bench.eoi(0x39);
    assert_eq!(bench.vectors(), [0x39]);
    assert_eq!(bench.read_low(9), MASKED | LEVEL | 0x39);
    bench.low(9, LEVEL | 0x39);
    assert_eq!(bench.vectors(), [0x39]);
}

#[test]
fn remote_irr_and_delivery_status_are_read_only() {
    let mut bench = Bench::with_entry(9, LEVEL | REMOTE_IRR | SEND_PENDING | 0x39);
    assert_eq!(bench.read_low(9), LEVEL | 0x39);
    bench.line(9, true);
    assert_eq!(bench.vectors(), [0x39]);
}

#[test]
fn switching_to_edge_and_back_ends_the_interrupt() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.line(9, true);
    bench.low(9, MASKED | 0x39);
    assert_eq!(bench.read_low(9), MASKED | 0x39);
    bench.low(9, LEVEL | 0x39);
    assert_eq!(bench.vectors(), [0x39, 0x39]);
}

#[test]
fn the_polarity_bit_is_kept_and_changes_nothing() {
    for trigger in [0, LEVEL] {
        let mut bench = Bench::with_entry(10, ACTIVE_LOW | trigger | 0x3a);
        assert_eq!(bench.vectors(), [], "a line that nobody asserts asks for nothing");
        bench.line(10, true);
        assert_eq!(bench.vectors(), [0x3a]);
        assert_eq!(bench.read_low(10) & ACTIVE_LOW, ACTIVE_LOW);
    }
}

#[test]
fn a_level_that_nobody_accepts_stays_pending_until_somebody_does() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.accept = Accepted::No;
    bench.line(9, true);
    assert_eq!(bench.read_low(9), LEVEL | SEND_PENDING | 0x39);
    assert_eq!(bench.chip.counters(9).unwrap().levels_refused, 1);
    bench.vectors();
    bench.accept = Accepted::Yes;
    bench.run(|chip, _, sink| chip.destinations_changed(sink));
    assert_eq!(bench.vectors(), [0x39]);
    assert_eq!(bench.read_low(9), LEVEL | REMOTE_IRR | 0x39);
    bench.run(|chip, _, sink| chip.destinations_changed(sink));
    assert_eq!(bench.vectors(), []);
}

#[test]
fn a_new_destination_gets_the_level_that_the_old_one_refused() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.accept = Accepted::No;
    bench.line(9, true);
    bench.accept = Accepted::Yes;
    bench.sent.clear();
    bench.high(9, 0x0300_0000);
    assert_eq!(bench.sent[0].destination, Destination::Physical(3), "stored first, then evaluated");
}

#[test]
fn a_refused_level_that_falls_asks_no_more() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.accept = Accepted::No;
    bench.line(9, true);
    bench.line(9, false);
    assert_eq!(bench.read_low(9), LEVEL | 0x39);
    bench.accept = Accepted::Yes;
    bench.vectors();
    bench.run(|chip, _, sink| chip.destinations_changed(sink));
    assert_eq!(bench.vectors(), []);
}

#[test]
fn an_eoi_finds_its_pin_after_the_entry_was_sent_elsewhere() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.line(9, true);
    bench.high(9, 0x0100_0000);
    bench.sent.clear();
    bench.eoi(0x39);
    assert_eq!(bench.sent[0].destination, Destination::Physical(1));
}

#[test]
fn an_eoi_finds_its_pin_by_the_accepted_vector_and_by_the_present_one() {
    for vector in [0x39, 0x49] {
        let mut bench = Bench::with_entry(9, LEVEL | 0x39);
        bench.line(9, true);
        bench.low(9, LEVEL | 0x49);
        bench.eoi(vector);
        assert_eq!(bench.vectors(), [0x39, 0x49], "EOI {vector:#x}");
    }
}

#[test]
fn an_eoi_for_another_vector_ends_nothing() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.line(9, true);
    bench.eoi(0x38);
    assert!(bench.remote_irr(9));
    assert_eq!(bench.vectors(), [0x39]);
}

#[test]
fn an_eoi_leaves_alone_what_is_not_in_service() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.accept = Accepted::No;
    bench.line(9, true);
    bench.accept = Accepted::Yes;
    bench.vectors();
    bench.eoi(0x39);
    assert_eq!(bench.vectors(), []);
    assert_eq!(bench.read_low(9), LEVEL | SEND_PENDING | 0x39);
}

#[test]
fn an_eoi_does_not_fire_edge_pins_of_its_vector() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.low(10, 0x39);
    bench.line(9, true);
    bench.line(10, true);
    bench.line(9, false);
    bench.vectors();
    bench.eoi(0x39);
    assert_eq!(bench.vectors(), []);
}

#[test]
fn a_shared_vector_is_ended_everywhere_before_it_fires_anywhere() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.low(11, LEVEL | 0x39);
    bench.line(9, true);
    bench.line(11, true);
    assert_eq!(bench.vectors(), [0x39, 0x39]);
    bench.line(11, false);
    bench.eoi(0x39);
    assert_eq!(bench.vectors(), [0x39], "only the one still asserted");
    assert!(bench.remote_irr(9) && !bench.remote_irr(11));
    bench.line(9, false);
    bench.eoi(0x39);
    bench.eoi(0x39);
    assert_eq!(bench.vectors(), []);
}

#[test]
fn a_fresh_remote_irr_survives_the_eoi_that_made_it() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.low(11, LEVEL | 0x39);
    bench.line(9, true);
    bench.line(11, true);
    bench.eoi(0x39);
    assert_eq!(bench.vectors(), [0x39; 4]);
    assert!(bench.remote_irr(9) && bench.remote_irr(11));
}

#[test]
fn the_eoi_register_ends_like_a_broadcast() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.line(9, true);
    bench.line(9, false);
    for (offset, data) in [(EOI, &[0x39][..]), (EOI, &[0x39, 0]), (EOI + 1, &[0x39, 0, 0, 0])] {
        bench.mmio(offset, data);
        assert!(bench.remote_irr(9), "32 bits wide only");
    }
    bench.mmio(EOI, &[0x39, 0xff, 0xff, 0xff]);
    assert!(!bench.remote_irr(9), "the upper bytes don't count");
    let mut data = [0xaa; 4];
    bench.chip.read(EOI, &mut data);
    assert_eq!(data, [0; 4], "write only");
}

#[test]
fn smi_nmi_init_and_extint_are_edges_whatever_the_entry_says() {
    for (bits, mode) in
        [(2, DeliveryMode::Smi), (4, DeliveryMode::Nmi), (5, DeliveryMode::Init), (7, DeliveryMode::ExtInt)]
    {
        let mut bench = Bench::with_entry(0, LEVEL | bits << 8);
        bench.line(0, true);
        assert_eq!((bench.sent[0].mode, bench.sent[0].trigger), (mode, TriggerMode::Edge));
        assert_eq!(bench.read_low(0), LEVEL | bits << 8, "no remote IRR");
        bench.eoi(0);
        bench.low(0, LEVEL | bits << 8);
        assert_eq!(bench.sent.len(), 1);
    }
}

#[test]
fn reserved_delivery_modes_send_nothing() {
    for bits in [3, 6] {
        for trigger in [0, LEVEL] {
            let mut bench = Bench::with_entry(5, trigger | bits << 8 | 0x35);
            bench.line(5, true);
            assert_eq!(bench.vectors(), []);
            assert_eq!(bench.read_low(5), trigger | bits << 8 | 0x35);
        }
    }
}

#[test]
fn changing_a_level_in_service_to_nmi_ends_it() {
    let mut bench = Bench::with_entry(5, LEVEL | 0x35);
    bench.line(5, true);
    bench.low(5, LEVEL | 0x400 | 0x35);
    assert!(!bench.remote_irr(5));
    assert_eq!(bench.vectors(), [0x35]);
}

#[test]
fn pins_that_do_not_exist_are_ignored() {
    let mut bench = Bench::new();
    for pin in 24..=255 {
        bench.line(pin, true);
    }
    assert_eq!(bench.vectors(), []);
}

#[test]
fn reset_masks_everything_and_keeps_the_wires() {
    let mut bench = Bench::with_entry(9, LEVEL | 0x39);
    bench.line(9, true);
    bench.chip.reset();
    assert_eq!(bench.read_low(9), MASKED);
    assert_eq!(bench.chip.line(9), Some(true));
    bench.vectors();
    bench.low(9, LEVEL | 0x39);
    assert_eq!(bench.vectors(), [0x39]);
}
