//! A pair of 8259As, from the Intel 8259A datasheet, as it would be told: one bool per wire and flip-flop.
//!
//! The edge detector is the datasheet's figure "Priority Cell": a flip-flop that is set while the input is low and
//! cleared by the acknowledge and by ICW1; the input is a request while it is high and this flip-flop is set, or while
//! it is high and the mode is level.

/// The datasheet lists what ICW1 resets and says nothing of the in-service register. What is in service when the chip
/// is initialised would block all lower levels for good, since no EOI is to come: it is cleared.
const ICW1_CLEARS_ISR: bool = true;
/// Nor of rotation in automatic EOI mode. ICW1 gives a chip in the fully nested mode with fixed priorities ("IR7 input
/// is assigned priority 7"), so the flip-flop is cleared.
const ICW1_CLEARS_ROTATION_IN_AEOI: bool = true;
/// A poll command that was not answered by a read is forgotten at ICW1: "the status read is set to IRR".
const ICW1_CLEARS_POLL: bool = true;
/// OCW3's P is 1 for "poll command" and 0 for "no poll command": a second OCW3 without it withdraws a poll that no
/// read has answered yet.
const OCW3_WITHOUT_P_WITHDRAWS_POLL: bool = true;
/// A slave in single mode got no ICW3, but ICW1 "sets the slave mode address to 7": as 7 it is addressed.
const SINGLE_SLAVE_IS_NUMBER_7: bool = true;
/// Bits 6:0 of the poll word when bit 7 is clear: the datasheet leaves them open.
const POLL_OF_NOTHING: u8 = 0x00;
/// What the CPU reads when the master hands over to a slave and none answers: a floating bus.
const NOBODY_ANSWERS: u8 = 0xff;
/// PIIX4: inputs 0, 1, 2 and 8, 13 cannot be level triggered.
const ALWAYS_EDGE: [u8; 5] = [0, 1, 2, 8, 13];
/// The master's input on which the slave's INT hangs.
const CASCADE: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    /// Nothing: never initialised. Data writes are OCW1 and INT stays low.
    PoweredOn,
    Icw2,
    Icw3,
    Icw4,
    Ocws,
}

#[derive(Debug, Clone)]
pub struct Chip {
    is_slave: bool,
    pin: [bool; 8],
    was_low: [bool; 8],
    mask: [bool; 8],
    in_service: [bool; 8],
    elcr: [bool; 8],
    expects: Expects,
    level_mode: bool,
    single: bool,
    icw4_follows: bool,
    base: u8,
    icw3: u8,
    automatic_eoi: bool,
    special_nested: bool,
    special_mask: bool,
    rotate_in_aeoi: bool,
    reads_isr: bool,
    poll: bool,
    lowest: usize,
}

impl Chip {
    fn new(is_slave: bool) -> Self {
        Self {
            is_slave,
            pin: [false; 8],
            was_low: [true; 8],
            mask: [false; 8],
            in_service: [false; 8],
            elcr: [false; 8],
            expects: Expects::PoweredOn,
            level_mode: false,
            single: false,
            icw4_follows: false,
            base: 0,
            icw3: 0,
            automatic_eoi: false,
            special_nested: false,
            special_mask: false,
            rotate_in_aeoi: false,
            reads_isr: false,
            poll: false,
            lowest: 7,
        }
    }

    fn power_on_with_pins(&mut self) {
        let pin = self.pin;
        *self = Self::new(self.is_slave);
        self.pin = pin;
        self.was_low = pin.map(|high| !high);
    }

    fn drive(&mut self, level: usize, high: bool) {
        self.pin[level] = high;
        if !high {
            self.was_low[level] = true;
        }
    }

    fn requested(&self, level: usize) -> bool {
        self.pin[level] && (self.was_low[level] || self.level_mode || self.elcr[level])
    }

    /// Whether `level` is in service as far as the priority resolver looks: not if it is masked in special mask mode.
    fn blocks(&self, level: usize) -> bool {
        self.in_service[level] && !(self.special_mask && self.mask[level])
    }

    fn slave_is_on(&self, level: usize) -> bool {
        !self.is_slave && !self.single && self.icw3 >> level & 1 == 1
    }

    /// The level that is the reason for INT.
    fn winner(&self) -> Option<usize> {
        if self.expects != Expects::Ocws {
            return None;
        }
        for place in 1..=8 {
            let level = (self.lowest + place) % 8;
            if self.requested(level) && !self.mask[level] {
                let again = self.special_nested && self.slave_is_on(level);
                if !self.blocks(level) || again {
                    return Some(level);
                }
            }
            if self.blocks(level) {
                return None;
            }
        }
        None
    }

    pub fn int(&self) -> bool {
        self.winner().is_some()
    }

    fn take(&mut self, level: usize) {
        self.was_low[level] = !self.pin[level];
        self.in_service[level] = true;
        if self.automatic_eoi {
            self.non_specific_eoi(self.rotate_in_aeoi);
        }
    }

    fn non_specific_eoi(&mut self, rotate: bool) {
        for place in 1..=8 {
            let level = (self.lowest + place) % 8;
            if self.blocks(level) {
                self.in_service[level] = false;
                if rotate {
                    self.lowest = level;
                }
                return;
            }
        }
    }

    fn write_command(&mut self, value: u8) {
        let bit = |number: u8| value >> number & 1 == 1;
        if bit(4) {
            self.icw1(bit(3), bit(1), bit(0));
        } else if bit(3) {
            if bit(6) {
                self.special_mask = bit(5);
            }
            if bit(2) || OCW3_WITHOUT_P_WITHDRAWS_POLL {
                self.poll = bit(2);
            }
            if bit(1) {
                self.reads_isr = bit(0);
            }
        } else {
            let named = usize::from(value & 7);
            match (bit(7), bit(6), bit(5)) {
                (false, false, true) => self.non_specific_eoi(false),
                (true, false, true) => self.non_specific_eoi(true),
                (false, true, true) => self.in_service[named] = false,
                (true, true, true) => {
                    self.in_service[named] = false;
                    self.lowest = named;
                }
                (true, true, false) => self.lowest = named,
                (true, false, false) => self.rotate_in_aeoi = true,
                (false, false, false) => self.rotate_in_aeoi = false,
                (false, true, false) => {}
            }
        }
    }

    fn icw1(&mut self, level_mode: bool, single: bool, icw4_follows: bool) {
        self.level_mode = level_mode;
        self.single = single;
        self.icw4_follows = icw4_follows;
        for level in 0..8 {
            self.was_low[level] = !self.pin[level];
            self.mask[level] = false;
            if ICW1_CLEARS_ISR {
                self.in_service[level] = false;
            }
        }
        self.lowest = 7;
        self.special_mask = false;
        self.reads_isr = false;
        if ICW1_CLEARS_POLL {
            self.poll = false;
        }
        if ICW1_CLEARS_ROTATION_IN_AEOI {
            self.rotate_in_aeoi = false;
        }
        if self.is_slave {
            self.icw3 = 7;
        }
        if !icw4_follows {
            self.automatic_eoi = false;
            self.special_nested = false;
        }
        self.expects = Expects::Icw2;
    }

    fn write_data(&mut self, value: u8) {
        match self.expects {
            Expects::PoweredOn | Expects::Ocws => {
                for level in 0..8 {
                    self.mask[level] = value >> level & 1 == 1;
                }
            }
            Expects::Icw2 => {
                self.base = value / 8 * 8;
                self.expects = match (self.single, self.icw4_follows) {
                    (false, _) => Expects::Icw3,
                    (true, true) => Expects::Icw4,
                    (true, false) => Expects::Ocws,
                };
            }
            Expects::Icw3 => {
                self.icw3 = if self.is_slave { value % 8 } else { value };
                self.expects = if self.icw4_follows { Expects::Icw4 } else { Expects::Ocws };
            }
            Expects::Icw4 => {
                self.automatic_eoi = value >> 1 & 1 == 1;
                self.special_nested = value >> 4 & 1 == 1;
                self.expects = Expects::Ocws;
            }
        }
    }

    /// The data bus at a read, and the level that a poll took.
    fn read(&mut self, data_port: bool) -> (u8, bool) {
        if self.poll {
            self.poll = false;
            return match self.winner() {
                Some(level) => {
                    self.take(level);
                    (128 + level as u8, true)
                }
                None => (POLL_OF_NOTHING, false),
            };
        }
        let value = match (data_port, self.reads_isr) {
            (true, _) => byte(&self.mask),
            (false, true) => byte(&self.in_service),
            (false, false) => self.irr(),
        };
        (value, false)
    }

    pub fn irr(&self) -> u8 {
        byte(&[0, 1, 2, 3, 4, 5, 6, 7].map(|level| self.requested(level)))
    }

    /// IRR, ISR, IMR, ELCR, base, ready, INT: all that can be seen.
    pub fn seen(&self) -> [u8; 7] {
        [
            self.irr(),
            byte(&self.in_service),
            byte(&self.mask),
            byte(&self.elcr),
            self.base,
            u8::from(self.expects == Expects::Ocws),
            u8::from(self.int()),
        ]
    }
}

fn byte(bits: &[bool; 8]) -> u8 {
    let mut value = 0;
    for bit in bits.iter().rev() {
        value = value * 2 + u8::from(*bit);
    }
    value
}

/// Both chips as a PC wires them.
#[derive(Debug, Clone)]
pub struct Pair {
    pub master: Chip,
    pub slave: Chip,
    /// How an acknowledge ended, for the driver's statistics.
    pub last: &'static str,
}

impl Pair {
    pub fn new() -> Self {
        Self { master: Chip::new(false), slave: Chip::new(true), last: "" }
    }

    pub fn reset(&mut self) {
        self.master.power_on_with_pins();
        self.slave.power_on_with_pins();
        self.settle();
    }

    fn settle(&mut self) {
        let int = self.slave.int();
        self.master.drive(CASCADE, int);
    }

    /// The slave's INT is low for a moment whenever it is acknowledged.
    fn slave_was_acknowledged(&mut self) {
        self.master.drive(CASCADE, false);
    }

    pub fn read(&mut self, port: u16) -> u8 {
        let value = match port {
            0x20 | 0x21 => self.master.read(port == 0x21).0,
            0xa0 | 0xa1 => {
                let (value, acknowledged) = self.slave.read(port == 0xa1);
                if acknowledged {
                    self.slave_was_acknowledged();
                }
                value
            }
            0x4d0 => byte(&self.master.elcr),
            _ => byte(&self.slave.elcr),
        };
        self.settle();
        value
    }

    pub fn write(&mut self, port: u16, value: u8) {
        match port {
            0x20 => self.master.write_command(value),
            0x21 => self.master.write_data(value),
            0xa0 => self.slave.write_command(value),
            0xa1 => self.slave.write_data(value),
            _ => {
                for level in 0..8u8 {
                    let wanted = value >> level & 1 == 1;
                    let (chip, input) =
                        if port == 0x4d0 { (&mut self.master, level) } else { (&mut self.slave, level + 8) };
                    chip.elcr[usize::from(level)] = wanted && !ALWAYS_EDGE.contains(&input);
                }
            }
        }
        self.settle();
    }

    pub fn line(&mut self, input: u8, high: bool) {
        match input {
            2 => {}
            0..=7 => self.master.drive(usize::from(input), high),
            8..=15 => self.slave.drive(usize::from(input) - 8, high),
            _ => {}
        }
        self.settle();
    }

    pub fn int(&self) -> bool {
        self.master.int()
    }

    /// Two INTA cycles.
    pub fn acknowledge(&mut self) -> u8 {
        let vector = match self.master.winner() {
            // "If no interrupt request is present at step 4 of either sequence […] the 8259A will issue an interrupt
            // level 7": the master names its own, and no IS bit is set.
            None => {
                self.last = "spurious";
                self.master.base + 7
            }
            Some(level) => {
                self.last = if self.master.blocks(level) { "nested in the slave" } else { "of the master" };
                let hand_over = self.master.slave_is_on(level);
                self.master.take(level);
                if hand_over { self.slave_vector(level) } else { self.master.base + level as u8 }
            }
        };
        self.settle();
        vector
    }

    fn slave_vector(&mut self, level: usize) -> u8 {
        let listens = self.slave.expects == Expects::Ocws && (!self.slave.single || SINGLE_SLAVE_IS_NUMBER_7);
        if !listens || usize::from(self.slave.icw3) != level {
            self.last = "of nobody";
            return NOBODY_ANSWERS;
        }
        match self.slave.winner() {
            Some(request) => {
                if self.last == "of the master" {
                    self.last = "of the slave";
                }
                self.slave.take(request);
                self.slave_was_acknowledged();
                self.slave.base + request as u8
            }
            None => {
                self.last = "spurious in the slave";
                self.slave.base + 7
            }
        }
    }
}
