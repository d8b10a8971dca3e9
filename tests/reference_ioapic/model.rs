//! An I/O APIC, from the Intel 82093AA datasheet and the program's own list of deliberate choices.
//!
//! A pin has no state machine here: what is to be sent is said anew, after each event, from the pin, the entry's bits
//! and remote IRR.

/// Polarity is stored and changes nothing: a line says whether the device asks, not a voltage.
const POLARITY_INVERTS: bool = false;
/// Version 0x20, which has the EOI register, and 24 entries: the highest is number 23.
const VERSION: u32 = 0x0017_0020;
/// The datasheet compares an EOI with the vector in the entry. The vector that a local APIC accepted counts too: a
/// guest that has written another one meanwhile still ends the old one, which nothing else would bring to this pin.
const EOI_MAY_NAME_THE_ACCEPTED_VECTOR: bool = true;
/// A line that is set to the level it has is no edge, but what was refused is tried again: "at any change".
const SAME_LEVEL_TRIES_AGAIN: bool = true;
/// The damper: so many EOIs in a row fire the pin again at once, and the fire after those waits.
const FIRES_AT_ONCE: u32 = 10_000;
/// So long, in nanoseconds.
const WAITS: u64 = 10_000_000;
/// While the damper holds a pin back its interrupt is pending: "injected but its delivery is held up".
const DAMPED_IS_PENDING: bool = true;
/// Delivery modes 011 and 110 are reserved: such an entry sends nothing, not even counts.
const RESERVED_MODES: [u8; 2] = [3, 6];

/// What a message says: broadcast or the ID, logical, delivery mode, vector, level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub everyone: bool,
    pub id: u32,
    pub logical: bool,
    pub mode: u8,
    pub vector: u8,
    pub level: bool,
}

/// Where the messages go; the answer is whether a local APIC accepted it.
pub type Bus<'a> = &'a mut dyn FnMut(Sent) -> bool;

#[derive(Debug, Clone)]
pub struct Pin {
    asserted: bool,
    vector: u8,
    mode: u8,
    logical: bool,
    low_active: bool,
    level: bool,
    masked: bool,
    destination: u8,
    more_destination: u8,
    remote_irr: bool,
    accepted: u8,
    in_a_row: u32,
    held_until: Option<u64>,
    /// Sent, edges dropped, levels refused, damped.
    pub counts: [u64; 4],
}

impl Pin {
    fn new() -> Self {
        Self {
            asserted: false,
            vector: 0,
            mode: 0,
            logical: false,
            low_active: false,
            level: false,
            masked: true,
            destination: 0,
            more_destination: 0,
            remote_irr: false,
            accepted: 0,
            in_a_row: 0,
            held_until: None,
            counts: [0; 4],
        }
    }

    /// "SMI, NMI, INIT and ExtINT are always edge": level counts for fixed and lowest priority only.
    fn is_level(&self) -> bool {
        self.level && self.mode < 2
    }

    fn active(&self) -> bool {
        self.asserted != (POLARITY_INVERTS && self.low_active)
    }

    /// A level interrupt that should go out, were nothing in its way.
    fn wants_to_send(&self) -> bool {
        self.is_level() && self.active() && !self.masked && !self.remote_irr
    }

    fn pending(&self) -> bool {
        self.wants_to_send() && (self.held_until.is_none() || DAMPED_IS_PENDING)
    }

    fn low(&self) -> u32 {
        u32::from(self.vector)
            + u32::from(self.mode) * 0x100
            + if self.logical { 1 << 11 } else { 0 }
            + if self.pending() { 1 << 12 } else { 0 }
            + if self.low_active { 1 << 13 } else { 0 }
            + if self.remote_irr { 1 << 14 } else { 0 }
            + if self.level { 1 << 15 } else { 0 }
            + if self.masked { 1 << 16 } else { 0 }
    }

    fn high(&self) -> u32 {
        u32::from(self.destination) * 0x100_0000 + u32::from(self.more_destination) * 0x2_0000
    }

    /// The whole entry.
    pub fn entry(&self) -> u64 {
        u64::from(self.high()) * 0x1_0000_0000 + u64::from(self.low())
    }

    pub fn line(&self) -> bool {
        self.asserted
    }

    /// Anything may have changed: sends the level interrupt that is due.
    fn fire_level(&mut self, bus: Bus) {
        if !self.wants_to_send() || self.held_until.is_some() {
            return;
        }
        if self.send(bus) {
            self.remote_irr = true;
            self.accepted = self.vector;
        } else {
            self.counts[2] += 1;
        }
    }

    fn fire_edge(&mut self, bus: Bus) {
        if self.is_level() || self.masked || RESERVED_MODES.contains(&self.mode) {
            return;
        }
        if !self.send(bus) {
            self.counts[1] += 1;
        }
    }

    fn send(&mut self, bus: Bus) -> bool {
        let id = u32::from(self.more_destination) * 0x100 + u32::from(self.destination);
        // 0xff means everyone in either destination mode.
        let everyone = id == 0xff;
        let accepted = bus(Sent {
            everyone,
            id,
            logical: self.logical && !everyone,
            mode: self.mode,
            vector: self.vector,
            level: self.is_level(),
        });
        if accepted {
            self.counts[0] += 1;
        }
        accepted
    }

    fn start_count_anew(&mut self) {
        self.in_a_row = 0;
        self.held_until = None;
    }

    fn drive(&mut self, asserted: bool, bus: Bus) {
        let was = self.active();
        self.asserted = asserted;
        match (was, self.active()) {
            (true, false) => self.start_count_anew(),
            (false, true) => {
                self.fire_level(bus);
                self.fire_edge(bus);
            }
            _ if SAME_LEVEL_TRIES_AGAIN => self.fire_level(bus),
            _ => {}
        }
    }

    fn write_low(&mut self, value: u32, bus: Bus) {
        let bit = |number: u32| value >> number & 1 == 1;
        self.vector = (value & 0xff) as u8;
        self.mode = (value >> 8 & 7) as u8;
        self.logical = bit(11);
        self.low_active = bit(13);
        self.level = bit(15);
        self.masked = bit(16);
        // Remote IRR has a meaning for level interrupts only.
        if !self.is_level() {
            self.remote_irr = false;
        }
        self.start_count_anew();
        self.fire_level(bus);
    }

    fn write_high(&mut self, value: u32, bus: Bus) {
        self.destination = (value >> 24) as u8;
        self.more_destination = (value >> 17 & 0x7f) as u8;
        self.start_count_anew();
        self.fire_level(bus);
    }

    /// The first half of an EOI; true if it was this pin's.
    fn end(&mut self, vector: u8) -> bool {
        let mine = vector == self.vector || EOI_MAY_NAME_THE_ACCEPTED_VECTOR && vector == self.accepted;
        let ends = mine && self.remote_irr;
        if ends {
            self.remote_irr = false;
        }
        ends
    }

    /// The second half.
    fn after_end(&mut self, now: u64, bus: Bus) {
        if self.wants_to_send() {
            self.in_a_row += 1;
            if self.in_a_row > FIRES_AT_ONCE {
                self.in_a_row = 0;
                self.held_until = Some(now.saturating_add(WAITS));
                self.counts[3] += 1;
            }
        }
        self.fire_level(bus);
    }
}

#[derive(Debug, Clone)]
pub struct Chip {
    strapped: u32,
    id: u32,
    select: u8,
    pub pins: [Pin; 24],
}

impl Chip {
    pub fn new(id: u8) -> Self {
        let id = u32::from(id % 16);
        Self { strapped: id, id, select: 0, pins: std::array::from_fn(|_| Pin::new()) }
    }

    pub fn reset(&mut self) {
        self.id = self.strapped;
        self.select = 0;
        for pin in &mut self.pins {
            *pin = Pin { asserted: pin.asserted, counts: pin.counts, ..Pin::new() };
        }
    }

    /// IOWIN is 32 bits wide, IOREGSEL may be read by its low byte or word too; all else reads 0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let value = match (offset, data.len()) {
            (0x00, 1 | 2 | 4) => u32::from(self.select),
            (0x10, 4) => self.register(),
            _ => 0,
        };
        for (place, byte) in data.iter_mut().enumerate() {
            *byte = if place < 4 { (value >> (8 * place)) as u8 } else { 0 };
        }
    }

    fn register(&self) -> u32 {
        match self.select {
            // The arbitration ID is loaded with the ID when that is written.
            0 | 2 => self.id << 24,
            1 => VERSION,
            0x10..=0x3f => {
                let pin = &self.pins[usize::from(self.select - 0x10) / 2];
                if self.select.is_multiple_of(2) { pin.low() } else { pin.high() }
            }
            _ => 0,
        }
    }

    pub fn write(&mut self, now: u64, offset: u64, data: &[u8], bus: Bus) {
        match (offset, data) {
            (0x00, [select] | [select, _] | [select, _, _, _]) => self.select = *select,
            (0x10, [a, b, c, d]) => {
                let value = u32::from_le_bytes([*a, *b, *c, *d]);
                match self.select {
                    0 => self.id = value >> 24 & 15,
                    0x10..=0x3f => {
                        let pin = &mut self.pins[usize::from(self.select - 0x10) / 2];
                        if self.select.is_multiple_of(2) {
                            pin.write_low(value, bus)
                        } else {
                            pin.write_high(value, bus)
                        }
                    }
                    _ => {}
                }
            }
            (0x40, [vector, _, _, _]) => self.eoi(now, *vector, bus),
            _ => {}
        }
    }

    pub fn drive(&mut self, pin: u8, asserted: bool, bus: Bus) {
        if let Some(pin) = self.pins.get_mut(usize::from(pin)) {
            pin.drive(asserted, bus);
        }
    }

    /// All that match are ended before any fires again.
    pub fn eoi(&mut self, now: u64, vector: u8, bus: Bus) {
        let ended: [bool; 24] = std::array::from_fn(|number| self.pins[number].end(vector));
        for (pin, ended) in self.pins.iter_mut().zip(ended) {
            if ended {
                pin.after_end(now, bus);
            }
        }
    }

    pub fn destinations_changed(&mut self, bus: Bus) {
        for pin in &mut self.pins {
            pin.fire_level(bus);
        }
    }

    pub fn deadline(&self) -> Option<u64> {
        self.pins.iter().filter_map(|pin| pin.held_until).min()
    }

    pub fn expire(&mut self, now: u64, bus: Bus) {
        for pin in &mut self.pins {
            if pin.held_until.is_some_and(|until| until <= now) {
                pin.held_until = None;
                pin.fire_level(bus);
            }
        }
    }

    /// A vector in service at some pin, the first from pin `from` on.
    pub fn in_service(&self, from: usize) -> Option<u8> {
        (0..24).map(|step| &self.pins[(from + step) % 24]).find(|pin| pin.remote_irr).map(|pin| pin.accepted)
    }

    /// How many pins are in service, and how many wait for a local APIC.
    pub fn busy(&self) -> (u64, u64) {
        let count = |what: fn(&Pin) -> bool| self.pins.iter().filter(|pin| what(pin)).count() as u64;
        (count(|pin| pin.remote_irr), count(Pin::pending))
    }
}
