//! The counter against a plain model that lives from pulse to pulse.
//!
//! The model is written the other way round, from the datasheet's waveforms: it knows how many pulses have been
//! counted since the last load, and OUT and the count follow from that.

use proptest::prelude::*;

use super::counter::Counter;

struct Model {
    mode: u8,
    access: u8,
    bcd: bool,
    gate: bool,
    low: Option<u8>,
    /// The count written, once it was.
    written: Option<u32>,
    null: bool,
    /// The next pulse loads.
    pending: bool,
    /// The count in use, and how many pulses it has counted; `None` before the first load and when stopped.
    running: Option<(u32, u64)>,
    /// What the counting element shows when stopped.
    stale: u32,
    /// Mode 3: the high half.
    high_half: bool,
    /// Modes 4 and 5: the last pulse reached zero.
    strobe: bool,
    tick: u64,
}

impl Model {
    fn new(gate: bool) -> Self {
        Self {
            mode: 3,
            access: 3,
            bcd: false,
            gate,
            low: None,
            written: None,
            null: true,
            pending: false,
            running: None,
            stale: 0,
            high_half: true,
            strobe: false,
            tick: 0,
        }
    }

    fn modulus(&self) -> u64 {
        if self.bcd { 10_000 } else { 65_536 }
    }

    fn control(&mut self, mode: u8, access: u8, bcd: bool) {
        let stale = self.count();
        *self = Self { mode, access, bcd, tick: self.tick, ..Self::new(self.gate) };
        self.stale = (u64::from(stale) % self.modulus()) as u32;
    }

    fn write(&mut self, byte: u8) {
        let value = match (self.access, self.low.take()) {
            (1, _) => u16::from(byte),
            (2, _) => u16::from(byte) << 8,
            (_, Some(low)) => u16::from(byte) << 8 | u16::from(low),
            (_, None) => {
                self.low = Some(byte);
                if self.mode == 0 {
                    self.stale = self.count();
                    self.running = None;
                    self.pending = false;
                }
                return;
            }
        };
        let mut count = u32::from(value);
        if self.bcd {
            count = format!("{value:04x}").chars().fold(0, |n, c| n * 10 + c.to_digit(16).unwrap_or(0)) % 10_000;
        }
        let first = self.written.is_none();
        self.written = Some(if count == 0 { self.modulus() as u32 } else { count });
        self.null = true;
        self.pending |= match self.mode {
            0 | 4 => true,
            2 | 3 => first,
            _ => false,
        };
    }

    fn set_gate(&mut self, gate: bool) {
        self.pending |= gate && !self.gate && self.written.is_some() && matches!(self.mode, 1 | 2 | 3 | 5);
        self.gate = gate;
    }

    fn pulse(&mut self) {
        self.tick += 1;
        self.strobe = false;
        let Some(mut next) = self.written else { return };
        if matches!(self.mode, 2 | 3) {
            next = next.max(2);
        }
        if self.pending {
            self.running = Some((next, 0));
            self.pending = false;
            self.null = false;
            self.high_half = true;
            return;
        }
        let Some((count, counted)) = &mut self.running else { return };
        if !self.gate && !matches!(self.mode, 1 | 5) {
            return;
        }
        *counted += 1;
        let length = u64::from(match (self.mode, self.high_half) {
            (3, true) => count.div_ceil(2),
            (3, false) => *count / 2,
            _ => *count,
        });
        let ends = *counted == length;
        self.strobe = ends && matches!(self.mode, 4 | 5);
        if ends && matches!(self.mode, 2 | 3) {
            (*count, *counted) = (next, 0);
            self.null = false;
            self.high_half = !self.high_half;
        }
    }

    fn out(&self) -> bool {
        let waits = self.pending || !self.gate;
        match (self.mode, self.running) {
            (0, Some((count, counted))) => !self.pending && counted >= u64::from(count),
            (0, None) => false,
            (1, Some((count, counted))) => counted >= u64::from(count),
            (2, Some((count, counted))) => waits || u64::from(count) - counted != 1,
            (3, Some(_)) => waits || self.high_half,
            (4 | 5, _) => !self.strobe,
            _ => true,
        }
    }

    fn count(&self) -> u32 {
        let Some((count, counted)) = self.running else { return self.stale };
        let (from, by) = if self.mode == 3 { (count & !1, 2) } else { (count, 1) };
        let modulus = self.modulus();
        ((u64::from(from) + by * modulus - by * (counted % modulus)) % modulus) as u32
    }

    fn readable(&self) -> u16 {
        let count = self.count();
        if self.bcd { u16::from_str_radix(&count.to_string(), 16).unwrap_or(0) } else { count as u16 }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Control { mode: u8, access: u8, bcd: bool },
    Count(u16),
    Byte(u8),
    Gate(bool),
    Pulses(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => (0..=5u8, 1..=3u8, prop::bool::weighted(0.2)).prop_map(|(mode, access, bcd)| Op::Control { mode, access, bcd }),
        2 => (0..=9u16).prop_map(Op::Count),
        1 => any::<u16>().prop_map(Op::Count),
        1 => (0..=5u8).prop_map(Op::Byte),
        2 => any::<bool>().prop_map(Op::Gate),
        6 => (1..=12u64).prop_map(Op::Pulses),
        1 => (1..=150_000u64).prop_map(Op::Pulses),
    ]
}

fn check(counter: &Counter, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(counter.out(), model.out(), "OUT");
    let mut copy = counter.clone();
    copy.read_back(0xc2);
    let status = copy.read();
    prop_assert_eq!(status >> 6, u8::from(model.out()) << 1 | u8::from(model.null), "status");
    prop_assert_eq!(status & 0x3f, model.access << 4 | model.mode << 1 | u8::from(model.bcd));
    let expected = model.readable().to_le_bytes();
    match model.access {
        1 => prop_assert_eq!(copy.read(), expected[0]),
        2 => prop_assert_eq!(copy.read(), expected[1]),
        _ => prop_assert_eq!([copy.read(), copy.read()], expected),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_counter_is_what_single_pulses_would_make_it(
        gate in any::<bool>(),
        mode in 0..=5u8,
        ops in prop::collection::vec(op(), 1..40),
    ) {
        let mut counter = Counter::new(gate);
        let mut model = Model::new(gate);
        let start = [Op::Control { mode, access: 3, bcd: false }];
        for op in start.into_iter().chain(ops) {
            let was_high = model.out();
            counter.take_rise();
            let mut rises = false;
            match op {
                Op::Control { mode, access, bcd } => {
                    counter.control(access << 4 | mode << 1 | u8::from(bcd));
                    model.control(mode, access, bcd);
                }
                Op::Count(value) => {
                    for byte in value.to_le_bytes() {
                        counter.write(byte);
                        model.write(byte);
                    }
                }
                Op::Byte(byte) => {
                    counter.write(byte);
                    model.write(byte);
                }
                Op::Gate(gate) => {
                    counter.set_gate(gate);
                    model.set_gate(gate);
                }
                Op::Pulses(pulses) => {
                    let predicted = counter.next_rise();
                    let end = model.tick + pulses;
                    let mut first = None;
                    while model.tick < end {
                        let before = model.out();
                        model.pulse();
                        if !before && model.out() {
                            first = first.or(Some(model.tick));
                        }
                    }
                    counter.advance(end);
                    rises = first.is_some();
                    prop_assert_eq!(predicted.filter(|&tick| tick <= end), first, "next rise");
                    prop_assert_eq!(counter.take_rise(), rises, "rise");
                }
            }
            if !rises && !was_high && model.out() {
                prop_assert!(counter.take_rise(), "rise by programming");
            }
            check(&counter, &model)?;
        }
    }
}
