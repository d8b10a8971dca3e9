//! The local vector table (Intel SDM vol. 3A, section "Local Vector Table"): per-register writable bits, and the mask
//! that a software-disabled APIC forces on every entry.

use x86::apic::{Lvt, reg};

/// The entries, in the order of the table below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LvtEntry {
    /// Corrected machine-check interrupt.
    Cmci,
    /// Timer.
    Timer,
    /// Thermal sensor.
    Thermal,
    /// Performance counters.
    Perf,
    /// Pin LINT0.
    Lint0,
    /// Pin LINT1.
    Lint1,
    /// Error.
    Error,
}

impl LvtEntry {
    /// All, in the order of the table.
    pub const ALL: [Self; 7] =
        [Self::Cmci, Self::Timer, Self::Thermal, Self::Perf, Self::Lint0, Self::Lint1, Self::Error];

    /// The entry whose register is at xAPIC offset `offset`.
    pub fn from_offset(offset: u32) -> Option<Self> {
        Some(match offset {
            reg::LVT_CMCI => Self::Cmci,
            reg::LVT_TIMER => Self::Timer,
            reg::LVT_THERMAL => Self::Thermal,
            reg::LVT_PERF => Self::Perf,
            reg::LVT_LINT0 => Self::Lint0,
            reg::LVT_LINT1 => Self::Lint1,
            reg::LVT_ERROR => Self::Error,
            _ => return None,
        })
    }
}

const MASKED: Lvt = Lvt::new().with_masked(true);
const VECTOR: u32 = 0xff;
const MODE: u32 = 7 << 8;
const STATUS: u32 = 1 << 12;
const POLARITY: u32 = 1 << 13;
const REMOTE_IRR: u32 = 1 << 14;
const TRIGGER: u32 = 1 << 15;
const MASK: u32 = 1 << 16;
const PERIODIC: u32 = 1 << 17;
const TSC_DEADLINE: u32 = 1 << 18;

/// The seven entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LvtTable {
    entries: [Lvt; 7],
    tsc_deadline: bool,
}

impl LvtTable {
    /// All masked; `tsc_deadline` makes that timer mode writable.
    pub fn new(tsc_deadline: bool) -> Self {
        Self { entries: [MASKED; 7], tsc_deadline }
    }

    /// The TSC-deadline mode is offered.
    pub fn has_tsc_deadline(&self) -> bool {
        self.tsc_deadline
    }

    /// The state after reset: everything else 0, masked (section "Local APIC State After Power-Up or Reset").
    pub fn reset(&mut self) {
        self.entries = [MASKED; 7];
    }

    /// Reads an entry.
    pub fn get(&self, entry: LvtEntry) -> Lvt {
        self.entries[entry as usize]
    }

    /// Writes an entry: read-only and reserved bits keep what they had (0); `enabled` is the APIC's software enable.
    pub fn write(&mut self, entry: LvtEntry, value: u32, enabled: bool) {
        let writable = self.writable(entry);
        let old = self.get(entry).into_bits();
        let mut new = Lvt::from_bits(old & !writable | value & writable);
        if !enabled {
            new.set_masked(true);
        }
        // Remote IRR belongs to a level-triggered fixed interrupt: it does not outlive that programming.
        if !new.level() || new.mode() != x86::apic::DeliveryMode::Fixed {
            new.set_remote_irr(false);
        }
        self.entries[entry as usize] = new;
    }

    /// Bits that give #GP when set in an x2APIC write.
    pub fn reserved(&self, entry: LvtEntry) -> u64 {
        let read_only = match entry {
            LvtEntry::Lint0 | LvtEntry::Lint1 => STATUS | REMOTE_IRR,
            _ => STATUS,
        };
        !u64::from(self.writable(entry) | read_only)
    }

    /// Masks one entry.
    pub fn mask(&mut self, entry: LvtEntry) {
        self.entries[entry as usize].set_masked(true);
    }

    /// Masks every entry, as clearing the software-enable bit does.
    pub fn mask_all(&mut self) {
        for entry in &mut self.entries {
            entry.set_masked(true);
        }
    }

    /// Every entry is masked.
    pub fn all_masked(&self) -> bool {
        self.entries.iter().all(|entry| entry.masked())
    }

    /// Sets or clears a LINT entry's remote IRR.
    pub fn set_remote_irr(&mut self, entry: LvtEntry, value: bool) {
        self.entries[entry as usize].set_remote_irr(value);
    }

    fn writable(&self, entry: LvtEntry) -> u32 {
        match entry {
            LvtEntry::Timer if self.tsc_deadline => VECTOR | MASK | PERIODIC | TSC_DEADLINE,
            LvtEntry::Timer => VECTOR | MASK | PERIODIC,
            LvtEntry::Cmci | LvtEntry::Thermal | LvtEntry::Perf => VECTOR | MODE | MASK,
            LvtEntry::Lint0 | LvtEntry::Lint1 => VECTOR | MODE | POLARITY | TRIGGER | MASK,
            LvtEntry::Error => VECTOR | MASK,
        }
    }
}
