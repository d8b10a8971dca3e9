//! ACPI fixed hardware: PM1a event and control registers and the PM timer (ACPI specification, section "ACPI Hardware
//! Specification", subsections "PM1 Event Grouping", "PM1 Control Grouping" and "Power Management Timer").
//!
//! The machine is in ACPI mode from the start: SCI_EN reads as one, there is no SMI command port. The timer is 24 bits
//! wide (FADT: TMR_VAL_EXT clear).
//!
//! Not modelled: sleep states other than S5, bus master and global lock status, wake-up, a sleep button; their enable
//! bits are stored.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use irqchip::line::Line;
use x86::Nanos;
use x86::platform::{PM_TIMER_HZ, SLP_TYP_S5};

use crate::clock::{Deadline, ticks_at, time_of_tick};
use crate::ports::{read_bytes, write_bytes};
use crate::traits::{Alarm, BusDevice, MachineControl, MachineEvent, TimedDevice};

/// Ports from the event block (0x600) to the end of the timer.
const PORTS: u8 = 12;
const STATUS: u8 = 0;
const ENABLE: u8 = 2;
const CONTROL: u8 = 4;
const TIMER: u8 = 8;

/// PM1 status and enable bits.
const TIMER_EVENT: u16 = 1 << 0;
const GLOBAL_LOCK: u16 = 1 << 5;
const POWER_BUTTON: u16 = 1 << 8;
const SLEEP_BUTTON: u16 = 1 << 9;
const RTC_ALARM: u16 = 1 << 10;
const ENABLE_BITS: u16 = TIMER_EVENT | GLOBAL_LOCK | POWER_BUTTON | SLEEP_BUTTON | RTC_ALARM;

/// PM1 control, low byte.
const SCI_ENABLE: u8 = 1 << 0;
const BUS_MASTER_RELOAD: u8 = 1 << 1;
/// PM1 control, high byte.
const SLEEP_TYPE: u8 = 7 << 2;
const SLEEP_ENABLE: u8 = 1 << 5;

/// The timer event comes when the highest bit changes.
const TIMER_EVENT_TICKS: u64 = 1 << 23;

/// The registers: event block at offset 0, control block at 4, timer at 8.
pub struct Pm {
    status: [u8; 2],
    enable: [u8; 2],
    control: [u8; 2],
    /// How often the timer's highest bit has changed.
    changes: u64,
    sci: Line,
    deadline: Deadline,
    machine: Arc<dyn MachineControl>,
}

impl Pm {
    /// Registers after reset, with the system control interrupt on `sci`.
    pub fn new(sci: Line, alarm: Arc<dyn Alarm>, machine: Arc<dyn MachineControl>) -> Self {
        Self {
            status: [0; 2],
            enable: [0; 2],
            control: [SCI_ENABLE, 0],
            changes: 0,
            sci,
            deadline: Deadline::new(alarm),
            machine,
        }
    }

    /// The user pressed the power button.
    pub fn press_power_button(&mut self, now: Nanos) {
        self.advance(now);
        self.set_status(POWER_BUTTON);
        self.settle();
    }

    fn set_status(&mut self, event: u16) {
        self.status = (u16::from_le_bytes(self.status) | event).to_le_bytes();
    }

    fn advance(&mut self, now: Nanos) {
        let changes = ticks_at(now, PM_TIMER_HZ) / TIMER_EVENT_TICKS;
        if changes > self.changes {
            self.changes = changes;
            self.set_status(TIMER_EVENT);
        }
    }

    /// Brings interrupt and alarm in step with the registers.
    fn settle(&mut self) {
        let (status, enable) = (u16::from_le_bytes(self.status), u16::from_le_bytes(self.enable));
        self.sci.set(status & enable != 0);
        let wanted = enable & !status & TIMER_EVENT != 0;
        let next = (self.changes + 1) * TIMER_EVENT_TICKS;
        self.deadline.set(wanted.then(|| time_of_tick(next, PM_TIMER_HZ)));
    }

    fn write_port(&mut self, port: u8, value: u8) {
        match port {
            STATUS | 1 => self.status[usize::from(port)] &= !value,
            ENABLE | 3 => {
                let high = usize::from(port - ENABLE);
                self.enable[high] = value & ENABLE_BITS.to_le_bytes()[high];
            }
            CONTROL => self.control[0] = value & BUS_MASTER_RELOAD | SCI_ENABLE,
            5 => {
                self.control[1] = value & SLEEP_TYPE;
                if value & SLEEP_ENABLE != 0 && value & SLEEP_TYPE == SLP_TYP_S5 << 2 {
                    self.machine.request(MachineEvent::PowerOff);
                }
            }
            _ => {}
        }
    }
}

impl BusDevice for Pm {
    fn read(&mut self, now: Nanos, offset: u64, data: &mut [u8]) {
        self.advance(now);
        self.settle();
        // One value for all bytes of an access.
        let [t0, t1, t2, ..] = ticks_at(now, PM_TIMER_HZ).to_le_bytes();
        let timer = [t0, t1, t2, 0];
        read_bytes(offset, data, PORTS, |port| match port {
            STATUS | 1 => self.status[usize::from(port)],
            ENABLE | 3 => self.enable[usize::from(port - ENABLE)],
            CONTROL | 5 => self.control[usize::from(port - CONTROL)],
            TIMER.. => timer[usize::from(port - TIMER) & 3],
            _ => 0xff,
        });
    }

    fn write(&mut self, now: Nanos, offset: u64, data: &[u8]) {
        self.advance(now);
        write_bytes(offset, data, PORTS, |port, value| self.write_port(port, value));
        self.settle();
    }
}

impl TimedDevice for Pm {
    fn expire(&mut self, now: Nanos) {
        self.deadline.fired();
        self.advance(now);
        self.settle();
    }
}
