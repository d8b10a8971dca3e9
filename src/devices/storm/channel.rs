//! One channel of the storm device.

use std::sync::Arc;

use irqchip::line::{Line, Msi, Wire};
use x86::Nanos;
use x86::storm::{
    ACKNOWLEDGE, ADDRESS, BATCH, CONTROL, CONTROL_RUN, DATA, GSI, LEFT, MERGED, NO_END, PERIOD, SENT, SKIPPED, Source,
};

/// Its registers, and what it does while it runs.
#[derive(Default)]
pub(super) struct Channel {
    control: u32,
    gsi: u32,
    address: u64,
    data: u32,
    period: u64,
    left: u64,
    sent: u64,
    merged: u64,
    skipped: u64,
    running: Option<Running>,
}

/// A channel that runs.
struct Running {
    target: Target,
    period: Nanos,
    /// When the next event is due; `None`: only when rung.
    due: Option<Nanos>,
}

enum Target {
    Pulse(Line),
    Level(Line),
    Message { address: u64, data: u32 },
}

impl Channel {
    /// When its next event is due.
    pub fn next(&self) -> Option<Nanos> {
        self.running.as_ref().and_then(|running| running.due)
    }

    /// One event, whatever the period.
    pub fn ring(&mut self, msi: &Msi) {
        self.raise(msi);
        self.stop_at_the_end();
    }

    /// Raises what is due at `now`.
    pub fn expire(&mut self, now: Nanos, msi: &Msi) {
        for _ in 0..BATCH {
            let due = self.running.as_mut().and_then(|running| {
                let due = running.due.filter(|&due| due <= now)?;
                running.due = Some(due.saturating_add(running.period));
                Some(due)
            });
            if due.is_none() || self.left == 0 {
                break;
            }
            self.raise(msi);
        }
        self.skip(now);
        self.stop_at_the_end();
    }

    /// What is still due is too late.
    fn skip(&mut self, now: Nanos) {
        let Some(running) = &mut self.running else { return };
        let Some(due) = running.due.filter(|&due| due <= now) else { return };
        // A running channel with a due event has a period.
        let late = ((now - due) / running.period.max(1)).saturating_add(1).min(self.left);
        self.skipped = self.skipped.saturating_add(late);
        if self.left != NO_END {
            self.left -= late;
        }
        running.due = Some(now.saturating_add(1));
    }

    fn raise(&mut self, msi: &Msi) {
        let Some(running) = &mut self.running else { return };
        if self.left == 0 {
            return;
        }
        if self.left != NO_END {
            self.left -= 1;
        }
        self.sent = self.sent.wrapping_add(1);
        match &mut running.target {
            Target::Pulse(line) => line.pulse(),
            Target::Level(line) if line.level() => self.merged = self.merged.wrapping_add(1),
            Target::Level(line) => line.set(true),
            Target::Message { address, data } => msi.send(*address, *data),
        }
    }

    /// All events are sent: nothing more is due. A level stays up until it is acknowledged.
    fn stop_at_the_end(&mut self) {
        if self.left == 0
            && let Some(running) = &mut self.running
        {
            running.due = None;
            self.control &= !CONTROL_RUN;
        }
    }

    fn level(&self) -> bool {
        matches!(&self.running, Some(Running { target: Target::Level(line), .. }) if line.level())
    }

    /// The value of a register, if `len` bytes from `register` are one or half of one.
    pub fn read(&self, register: u64, len: usize) -> Option<u64> {
        let wide = |value: u64| match (register % 8, len) {
            (0, 8) => Some(value),
            (0, 4) => Some(value & 0xffff_ffff),
            (4, 4) => Some(value >> 32),
            _ => None,
        };
        match (register, len) {
            (CONTROL, 4) => Some(self.control.into()),
            (GSI, 4) => Some(self.gsi.into()),
            (DATA, 4) => Some(self.data.into()),
            (ACKNOWLEDGE, 4) => Some(self.level().into()),
            _ => match register & !7 {
                ADDRESS => wide(self.address),
                PERIOD => wide(self.period),
                LEFT => wide(self.left),
                SENT => wide(self.sent),
                MERGED => wide(self.merged),
                SKIPPED => wide(self.skipped),
                _ => None,
            },
        }
    }

    /// A write of `len` bytes, 4 or 8. What is no register is ignored.
    pub fn write(&mut self, now: Nanos, register: u64, value: u64, len: usize, wires: &[Arc<Wire>]) {
        let narrow = value as u32;
        match (register, len) {
            (CONTROL, 4) => self.control(now, narrow, wires),
            (GSI, 4) => self.gsi = narrow,
            (DATA, 4) => self.data = narrow,
            (ACKNOWLEDGE, 4) => self.acknowledge(),
            _ => {
                let put = |old: u64| match (register % 8, len) {
                    (0, 8) => value,
                    (0, 4) => old & !0xffff_ffff | value,
                    (4, 4) => old & 0xffff_ffff | value << 32,
                    _ => old,
                };
                match register & !7 {
                    ADDRESS => self.address = put(self.address),
                    PERIOD => self.period = put(self.period),
                    LEFT => self.left = put(self.left),
                    SENT => self.sent = 0,
                    MERGED => self.merged = 0,
                    SKIPPED => self.skipped = 0,
                    _ => {}
                }
            }
        }
    }

    fn acknowledge(&mut self) {
        if let Some(Running { target: Target::Level(line), .. }) = &mut self.running {
            line.set(false);
        }
    }

    /// Stops it, which lowers its line, and starts it if that is asked for and possible.
    fn control(&mut self, now: Nanos, control: u32, wires: &[Arc<Wire>]) {
        self.running = None;
        self.control = control & !CONTROL_RUN;
        if control & CONTROL_RUN == 0 || self.left == 0 {
            return;
        }
        let line = || usize::try_from(self.gsi).ok().and_then(|gsi| wires.get(gsi)).map(Wire::holder);
        let target = match Source::of_control(control) {
            Some(Source::Pulse) => line().map(Target::Pulse),
            Some(Source::Level) => line().map(Target::Level),
            Some(Source::Msi) => Some(Target::Message { address: self.address, data: self.data }),
            None => None,
        };
        let Some(target) = target else { return };
        let due = (self.period != 0).then(|| now.saturating_add(self.period));
        self.running = Some(Running { target, period: self.period, due });
        self.control = control;
    }
}
