//! One counter of an 8254.
//!
//! Time is a number of CLK pulses. What a pulse does is in [`Counter::step`]; [`Counter::advance`] comes to any later
//! pulse in a bounded number of steps, skipping stretches in which the count only falls, and whole periods.
//!
//! The datasheet leaves open: a count that is no BCD number is taken digit by digit, modulo 10000; a count of 1 in
//! modes 2 and 3, which it forbids, works as 2; a counter whose count was not written since the control word stands still.

use fault::Fault;

/// Which bytes of the count the guest reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Low,
    High,
    LowThenHigh,
}

/// Status and read-back bits.
const STATUS_OUT: u8 = 1 << 7;
const STATUS_NULL: u8 = 1 << 6;
const READ_BACK_NO_COUNT: u8 = 1 << 5;
const READ_BACK_NO_STATUS: u8 = 1 << 4;

#[derive(Clone)]
pub(super) struct Counter {
    /// The control word's low six bits as written, for the status byte.
    control: u8,
    access: Access,
    /// 0 to 5.
    mode: u8,
    bcd: bool,
    /// What was written and is loaded into the counting element when the mode says so, 1 to the modulus.
    reload: u32,
    /// What it was loaded with, 1 to the modulus.
    loaded: u32,
    /// The counting element, 0 to the modulus - 1.
    count: u32,
    /// `reload` was written since the control word.
    programmed: bool,
    /// `reload` has not reached the counting element yet.
    null_count: bool,
    /// The next pulse loads the counting element.
    load_next: bool,
    /// Loaded since the control word, and not stopped by half a count.
    counting: bool,
    /// Modes 0, 1, 4, 5: reaching zero will change OUT (it does so once for each load).
    due: bool,
    /// Modes 4 and 5: OUT is low for this one pulse.
    strobe: bool,
    gate: bool,
    out: bool,
    /// OUT rose since [`Counter::take_rise`].
    rose: bool,
    /// Pulses so far.
    tick: u64,
    /// The low byte, when the high byte is to come.
    written_low: Option<u8>,
    /// The low byte was read, the high byte is next.
    read_high: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
}

impl Counter {
    /// A counter after power-on with its gate input at `gate`.
    pub(super) fn new(gate: bool) -> Self {
        Self {
            control: 0x36,
            access: Access::LowThenHigh,
            mode: 3,
            bcd: false,
            reload: 0x1_0000,
            loaded: 0x1_0000,
            count: 0,
            programmed: false,
            null_count: true,
            load_next: false,
            counting: false,
            due: false,
            strobe: false,
            gate,
            out: true,
            rose: false,
            tick: 0,
            written_low: None,
            read_high: false,
            latched_count: None,
            latched_status: None,
        }
    }

    pub(super) fn out(&self) -> bool {
        self.out
    }

    /// Whether OUT rose (at least once) since the last call.
    pub(super) fn take_rise(&mut self) -> bool {
        std::mem::take(&mut self.rose)
    }

    /// The pulse with which OUT rises next, if nobody touches the counter.
    pub(super) fn next_rise(&self) -> Option<u64> {
        let mut future = self.clone();
        future.rose = false;
        // The longest way is: load, fall, rise.
        for _ in 0..4 {
            let quiet = future.quiet_pulses()?;
            future.skip(quiet);
            future.step();
            if future.rose {
                return Some(future.tick);
            }
        }
        None
    }

    /// Lets the pulses up to `tick` pass; nothing if they have.
    pub(super) fn advance(&mut self, tick: u64) {
        while self.tick < tick {
            let left = tick - self.tick;
            let Some(quiet) = self.quiet_pulses().filter(|&quiet| quiet < left) else {
                self.skip(left);
                return;
            };
            let period = u64::from(self.loaded);
            if self.is_steady() && left >= 2 * period {
                // A whole number of periods later all is as now; the one that is left makes OUT rise for all.
                self.tick += (left / period - 1) * period;
                continue;
            }
            self.skip(quiet);
            self.step();
        }
    }

    /// A control word for this counter, or its latch command.
    pub(super) fn control(&mut self, value: u8) {
        self.access = match value >> 4 & 3 {
            0 => return self.latch_count(),
            1 => Access::Low,
            2 => Access::High,
            _ => Access::LowThenHigh,
        };
        self.control = value & 0x3f;
        self.mode = match value >> 1 & 7 {
            // The highest bit counts for modes 4 and 5 only.
            mode @ 6..=7 => mode - 4,
            mode => mode,
        };
        self.bcd = value & 1 != 0;
        self.count %= self.modulus();
        self.programmed = false;
        self.null_count = true;
        self.load_next = false;
        self.counting = false;
        self.due = false;
        self.strobe = false;
        self.written_low = None;
        self.read_high = false;
        self.latched_count = None;
        self.latched_status = None;
        self.set_out(self.mode != 0);
    }

    /// A read-back command that selects this counter.
    pub(super) fn read_back(&mut self, value: u8) {
        if value & READ_BACK_NO_COUNT == 0 {
            self.latch_count();
        }
        if value & READ_BACK_NO_STATUS == 0 && self.latched_status.is_none() {
            let out = if self.out { STATUS_OUT } else { 0 };
            let null = if self.null_count { STATUS_NULL } else { 0 };
            self.latched_status = Some(out | null | self.control);
        }
    }

    /// A read of the counter's port.
    pub(super) fn read(&mut self) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched_count.unwrap_or_else(|| self.readable_count()).to_le_bytes();
        let is_high = match self.access {
            Access::Low => false,
            Access::High => true,
            Access::LowThenHigh => self.read_high,
        };
        self.read_high = self.access == Access::LowThenHigh && !is_high;
        if !self.read_high {
            self.latched_count = None;
        }
        if is_high { high } else { low }
    }

    /// A write to the counter's port.
    pub(super) fn write(&mut self, value: u8) {
        match (self.access, self.written_low.take()) {
            (Access::Low, _) => self.set_reload(u16::from(value)),
            (Access::High, _) => self.set_reload(u16::from(value) << 8),
            (Access::LowThenHigh, Some(low)) => self.set_reload(u16::from_le_bytes([low, value])),
            (Access::LowThenHigh, None) => {
                self.written_low = Some(value);
                // In mode 0 half a count stops the counter.
                if self.mode == 0 {
                    self.counting = false;
                    self.load_next = false;
                    self.set_out(false);
                }
            }
        }
    }

    /// The GATE input.
    pub(super) fn set_gate(&mut self, gate: bool) {
        let rises = gate && !self.gate;
        self.gate = gate;
        match self.mode {
            1 | 2 | 3 | 5 if rises && self.programmed => self.load_next = true,
            2 | 3 if !gate => self.set_out(true),
            _ => {}
        }
    }

    fn set_reload(&mut self, value: u16) {
        let count = if self.bcd {
            let digit = |n: u32| u32::from(value) >> (4 * n) & 0xf;
            (digit(3) * 1000 + digit(2) * 100 + digit(1) * 10 + digit(0)) % 10_000
        } else {
            u32::from(value)
        };
        self.reload = if count == 0 { self.modulus() } else { count };
        self.null_count = true;
        match self.mode {
            0 => {
                self.set_out(false);
                self.load_next = true;
            }
            4 => self.load_next = true,
            // Later counts wait for the end of the period.
            2 | 3 if !self.programmed => self.load_next = true,
            _ => {}
        }
        self.programmed = true;
    }

    /// One CLK pulse.
    fn step(&mut self) {
        self.tick += 1;
        if self.strobe {
            self.strobe = false;
            self.set_out(true);
        }
        if self.load_next {
            self.load();
            self.load_next = false;
            self.counting = true;
            self.due = true;
            if self.mode == 1 {
                self.set_out(false);
            }
        } else if self.runs() {
            self.count_down();
        }
    }

    /// One CLK pulse of a running counter.
    fn count_down(&mut self) {
        match self.mode {
            2 if self.count == 1 => {
                self.load();
                self.set_out(true);
            }
            2 => {
                self.fall(1);
                self.set_out(self.count != 1);
            }
            3 if self.count == self.last_of_half() => {
                self.load();
                self.set_out(!self.out);
            }
            3 => self.fall(2),
            _ => {
                self.fall(1);
                if self.count == 0 && self.due {
                    self.due = false;
                    self.strobe = self.mode >= 4;
                    self.set_out(!self.strobe);
                }
            }
        }
    }

    fn load(&mut self) {
        let least = if matches!(self.mode, 2 | 3) { 2 } else { 1 };
        self.loaded = self.reload.max(least) + u32::from(fault::is(Fault::PitPeriodLong));
        if self.mode == 0 && fault::is(Fault::PitEarly) {
            self.loaded -= self.loaded / 16;
        }
        self.null_count = false;
        // Mode 3 counts by twos, from an even number.
        let odd = if self.mode == 3 { self.loaded & 1 } else { 0 };
        self.count = (self.loaded - odd) % self.modulus();
    }

    /// Mode 3: the count with which a half-period ends. The high half of an odd count is longer by one.
    fn last_of_half(&self) -> u32 {
        if self.out && self.loaded & 1 == 1 { 0 } else { 2 }
    }

    /// How many pulses only lower the count, before one that does more; `None` if that never comes.
    fn quiet_pulses(&self) -> Option<u64> {
        if self.load_next || self.strobe {
            return Some(0);
        }
        if !self.runs() {
            return None;
        }
        let to_zero = u64::from(if self.count == 0 { self.modulus() } else { self.count });
        match self.mode {
            2 => Some(to_zero.saturating_sub(2)),
            3 if self.last_of_half() == 0 => Some(u64::from(self.count) / 2),
            3 => Some(to_zero / 2 - 1),
            _ => self.due.then(|| to_zero - 1),
        }
    }

    /// Lets `pulses` quiet pulses pass.
    fn skip(&mut self, pulses: u64) {
        self.tick += pulses;
        if self.runs() {
            let by = if self.mode == 3 { 2 } else { 1 };
            self.fall((pulses % u64::from(self.modulus())) as u32 * by);
        }
    }

    fn fall(&mut self, by: u32) {
        let modulus = self.modulus();
        self.count = (self.count + 2 * modulus - by) % modulus;
    }

    /// Whether a pulse counts (unless it loads).
    fn runs(&self) -> bool {
        self.counting && (self.gate || matches!(self.mode, 1 | 5))
    }

    /// Whether OUT repeats with a period of `loaded` pulses from here on.
    fn is_steady(&self) -> bool {
        matches!(self.mode, 2 | 3) && self.runs() && !self.load_next && !self.null_count
    }

    fn set_out(&mut self, out: bool) {
        self.rose |= out && !self.out;
        self.out = out;
    }

    fn modulus(&self) -> u32 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }

    fn latch_count(&mut self) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.readable_count());
        }
    }

    fn readable_count(&self) -> u16 {
        if !self.bcd {
            return self.count as u16;
        }
        let digit = |unit: u32| self.count / unit % 10;
        (digit(1000) << 12 | digit(100) << 8 | digit(10) << 4 | digit(1)) as u16
    }
}
