//! Watchdog of the Intel 6300ESB I/O controller hub (Intel 6300ESB datasheet, chapter "Watchdog Timer (WDT)"), which
//! stock kernels drive with `i6300esb`.
//!
//! Two stages: when the first counter runs out, an interrupt, if the guest wants one, and the second counter starts; when that
//! runs out, too, the output pin falls, and what the machine makes of that is its user's choice. A reload starts the
//! first stage again. This is the chip without its place on the PCI bus: registers by offset, in the function's configuration
//! space and in its memory.
//!
//! Not modelled: the SMI, the status in the chipset's other functions, low-power states. A period below 20 us lasts that long.

mod function;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use irqchip::line::Line;
use x86::Nanos;
use x86::time::NANOS_PER_SEC;

use crate::clock::{Deadline, MIN_INTERVAL};
use crate::traits::{Alarm, MachineControl, MachineEvent, TimedDevice};
pub use function::{I6300EsbFunction, MEMORY};

/// Where its own registers are in configuration space, and how many bytes they are.
const CONFIG_REGISTERS: std::ops::Range<usize> = 0x60..0x6c;

/// Configuration register (16 bits), section "Offset 60 - 61h: WDT Configuration Register".
const CONFIG: usize = 0x60;
/// Lock register (8 bits), section "Offset 68h: WDT Lock Register".
const LOCK: usize = 0x68;

const CONFIG_OUTPUT_DISABLED: u16 = 1 << 5;
const CONFIG_FAST: u16 = 1 << 2;
const CONFIG_INTERRUPT: u16 = 3;
const CONFIG_INTERRUPT_IRQ: u16 = 0;
const CONFIG_WRITABLE: u16 = CONFIG_OUTPUT_DISABLED | CONFIG_FAST | CONFIG_INTERRUPT;
const LOCK_LOCKED: u8 = 1;
const LOCK_ENABLE: u8 = 1 << 1;
const LOCK_FREE_RUNNING: u8 = 1 << 2;
const LOCK_WRITABLE: u8 = LOCK_LOCKED | LOCK_ENABLE | LOCK_FREE_RUNNING;

/// Memory registers: the counters' start values, the interrupt's status, the reload register.
const PRELOAD_1: u64 = 0;
const PRELOAD_2: u64 = 4;
const INTERRUPT_STATUS: u64 = 8;
const RELOAD: u64 = 12;

const PRELOAD_MAX: u32 = 0xf_ffff;
const INTERRUPT_ACTIVE: u32 = 1;
const RELOAD_RELOAD: u32 = 1 << 8;
const RELOAD_TIMEOUT: u32 = 1 << 9;
/// Section "Register Unlocking Sequence".
const UNLOCK_KEYS: [u32; 2] = [0x80, 0x86];

/// The clock that both counters divide.
const PCI_HZ: u128 = 33_000_000;

/// The chip.
pub struct I6300Esb {
    preload: [u32; 2],
    config: u16,
    lock: u8,
    /// What counts, and until when.
    stage: Option<(Stage, Nanos)>,
    interrupt_active: bool,
    /// A counter has run out for the second time since the guest last said that it knows; kept by a battery, over resets.
    timed_out: Arc<AtomicBool>,
    /// How many keys of the unlocking sequence were written.
    keys: usize,
    line: Line,
    deadline: Deadline,
    machine: Arc<dyn MachineControl>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    First,
    Second,
}

impl I6300Esb {
    /// The chip after reset, with its interrupt on `line`. `timed_out` is what a battery keeps: that it was the cause of the
    /// reset.
    pub fn new(
        line: Line,
        alarm: Arc<dyn Alarm>,
        machine: Arc<dyn MachineControl>,
        timed_out: Arc<AtomicBool>,
    ) -> Self {
        Self {
            preload: [PRELOAD_MAX; 2],
            config: 0,
            lock: 0,
            stage: None,
            interrupt_active: false,
            timed_out,
            keys: 0,
            line,
            deadline: Deadline::new(alarm),
            machine,
        }
    }

    /// A byte of `CONFIG_REGISTERS`.
    pub fn read_config(&self, offset: usize) -> u8 {
        match offset {
            CONFIG => self.config.to_le_bytes()[0],
            LOCK => self.lock,
            _ => 0,
        }
    }

    /// Writes a byte of them.
    pub fn write_config(&mut self, now: Nanos, offset: usize, value: u8) {
        match offset {
            CONFIG => self.config = u16::from(value) & CONFIG_WRITABLE,
            // Locked until the next reset.
            LOCK if self.lock & LOCK_LOCKED == 0 => {
                let enabled = value & !self.lock & LOCK_ENABLE != 0;
                self.lock = value & LOCK_WRITABLE;
                if enabled {
                    self.start(now, Stage::First);
                } else if self.lock & LOCK_ENABLE == 0 {
                    self.stage = None;
                }
            }
            _ => {}
        }
        self.settle();
    }

    /// A read of its memory.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let value = match offset & !3 {
            PRELOAD_1 => self.preload[0],
            PRELOAD_2 => self.preload[1],
            INTERRUPT_STATUS => u32::from(self.interrupt_active) * INTERRUPT_ACTIVE,
            RELOAD => u32::from(self.timed_out.load(Ordering::Relaxed)) * RELOAD_TIMEOUT,
            _ => u32::MAX,
        };
        let bytes = value.to_le_bytes();
        for (at, byte) in ((offset & 3) as usize..).zip(data) {
            *byte = bytes.get(at).copied().unwrap_or(0xff);
        }
    }

    /// A write of its memory. A register takes whole accesses, of 16 or 32 bits; others are ignored.
    pub fn write(&mut self, now: Nanos, offset: u64, data: &[u8]) {
        let value = match *data {
            [a, b] => u32::from(u16::from_le_bytes([a, b])),
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            _ => return,
        };
        // One write for each unlocking.
        let unlocked = self.keys == UNLOCK_KEYS.len();
        match offset {
            PRELOAD_1 | PRELOAD_2 if unlocked => {
                self.preload[usize::from(offset == PRELOAD_2)] = value & PRELOAD_MAX;
                self.keys = 0;
            }
            INTERRUPT_STATUS => self.interrupt_active &= value & INTERRUPT_ACTIVE == 0,
            RELOAD if unlocked => {
                self.keys = 0;
                if value & RELOAD_TIMEOUT != 0 {
                    self.timed_out.store(false, Ordering::Relaxed);
                }
                // Once the output has fallen, only a reset makes it count again.
                if value & RELOAD_RELOAD != 0 && self.stage.is_some() {
                    self.start(now, Stage::First);
                }
            }
            RELOAD => {
                let first = usize::from(value == UNLOCK_KEYS[0]);
                self.keys = if value == UNLOCK_KEYS[self.keys] { self.keys + 1 } else { first };
            }
            _ => {}
        }
        self.settle();
    }

    fn start(&mut self, now: Nanos, stage: Stage) {
        let preload = self.preload[usize::from(stage == Stage::Second)];
        // The counter's lowest bits are zero, and zero is counted, too.
        let shift = if self.config & CONFIG_FAST != 0 { 5 } else { 15 };
        let clocks = (u128::from(preload) + 1) << shift;
        // At most 2^35 clocks.
        let period = (clocks * u128::from(NANOS_PER_SEC) / PCI_HZ) as Nanos;
        self.stage = Some((stage, now.saturating_add(period.max(MIN_INTERVAL))));
    }

    /// Brings interrupt and alarm in step with the registers.
    fn settle(&mut self) {
        let wanted = self.config & CONFIG_INTERRUPT == CONFIG_INTERRUPT_IRQ;
        self.line.set(self.interrupt_active && wanted);
        self.deadline.set(self.stage.map(|(_, until)| until));
    }
}

impl TimedDevice for I6300Esb {
    fn expire(&mut self, now: Nanos) {
        self.deadline.fired();
        if let Some((stage, until)) = self.stage
            && until <= now
        {
            match stage {
                Stage::First => {
                    self.interrupt_active = true;
                    // Free running, it has but one stage.
                    let next = if self.lock & LOCK_FREE_RUNNING == 0 { Stage::Second } else { Stage::First };
                    self.start(now, next);
                }
                Stage::Second => {
                    self.timed_out.store(true, Ordering::Relaxed);
                    self.stage = None;
                    if self.config & CONFIG_OUTPUT_DISABLED == 0 {
                        self.machine.request(MachineEvent::WatchdogExpired);
                    }
                }
            }
        }
        self.settle();
    }
}
