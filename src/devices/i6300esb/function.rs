//! The watchdog as a function of the PCI bus.

use x86::Nanos;

use super::{CONFIG_REGISTERS, I6300Esb};
use crate::pci::{ConfigSpace, Function, Identity};
use crate::traits::TimedDevice;

/// Vendor and device (Intel 6300ESB datasheet, section "PCI Configuration Registers" of the watchdog's chapter).
const ID: (u16, u16) = (0x8086, 0x25ab);
/// Base system peripheral, other.
const CLASS: (u8, u8, u8) = (0x08, 0x80, 0x00);
/// Bytes of its memory.
pub const MEMORY: u32 = 16;

/// The chip with its configuration space. Functions are not told the time of an access, so this one asks.
pub struct I6300EsbFunction {
    chip: I6300Esb,
    config: ConfigSpace,
    now: Box<dyn Fn() -> Nanos + Send>,
}

impl I6300EsbFunction {
    /// `chip` with its memory at `base`.
    pub fn new(chip: I6300Esb, base: u32, now: impl Fn() -> Nanos + Send + 'static) -> Self {
        let mut config = ConfigSpace::new(&Identity { id: ID, revision: 0, class: CLASS, subsystem: (0, 0) });
        config.add_memory_bar(0, MEMORY, base);
        Self { chip, config, now: Box::new(now) }
    }
}

impl Function for I6300EsbFunction {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn read_config(&mut self, offset: usize, data: &mut [u8]) {
        self.config.read(offset, data);
        for (at, byte) in (offset..).zip(data) {
            if CONFIG_REGISTERS.contains(&at) {
                *byte = self.chip.read_config(at);
            }
        }
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.config.write(offset, data);
        let now = (self.now)();
        for (at, &byte) in (offset..).zip(data) {
            if CONFIG_REGISTERS.contains(&at) {
                self.chip.write_config(now, at, byte);
            }
        }
    }

    fn read_bar(&mut self, _bar: usize, offset: u64, data: &mut [u8]) {
        self.chip.read(offset, data);
    }

    fn write_bar(&mut self, _bar: usize, offset: u64, data: &[u8]) {
        self.chip.write((self.now)(), offset, data);
    }
}

impl TimedDevice for I6300EsbFunction {
    fn expire(&mut self, now: Nanos) {
        self.chip.expire(now);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;
    use crate::testing::{Clock, Control, Probe};
    use crate::traits::MachineEvent;

    /// What Linux's driver does to start it with a heartbeat of two seconds, and then its daemon dies.
    #[test]
    fn as_linux_drives_it() {
        let (clock, control, now) =
            (Arc::new(Clock::default()), Arc::new(Control::default()), Arc::new(AtomicU64::new(7)));
        let chip = I6300Esb::new(Probe::on_line().0, clock.clone(), control.clone(), Arc::new(AtomicBool::new(false)));
        let time = Arc::clone(&now);
        let mut function = I6300EsbFunction::new(chip, 0xd000_0000, move || time.load(Ordering::Relaxed));
        let mut id = [0; 4];
        function.read_config(0, &mut id);
        assert_eq!(u32::from_le_bytes(id), 0x25ab_8086);
        assert_eq!(function.config().bar(0), Some((0xd000_0000, MEMORY.into())));

        function.write_config(0x60, &3_u16.to_le_bytes());
        function.write_config(0x68, &[0]);
        let unlock = |function: &mut I6300EsbFunction| {
            function.write_bar(0, 0x0c, &0x80_u16.to_le_bytes());
            function.write_bar(0, 0x0c, &0x86_u16.to_le_bytes());
        };
        for preload in [0, 4] {
            unlock(&mut function);
            function.write_bar(0, preload, &(2_u32 << 9).to_le_bytes());
        }
        unlock(&mut function);
        function.write_bar(0, 0x0c, &0x100_u16.to_le_bytes());
        assert!(clock.armed().is_none(), "it is not enabled");
        function.write_config(0x68, &[2]);
        let mut lock = [0];
        function.read_config(0x68, &mut lock);
        assert_eq!(lock, [2]);

        let first = clock.take().expect("it is enabled");
        assert!((1_000_000_000..1_100_000_000).contains(&(first - 7)), "half of the heartbeat: {first}");
        function.expire(first);
        assert!(control.take().is_empty());
        let second = clock.take().expect("the second stage");
        now.store(second, Ordering::Relaxed);
        function.expire(second);
        assert_eq!(control.take(), [MachineEvent::WatchdogExpired]);
        let mut status = [0; 2];
        function.read_bar(0, 0x0c, &mut status);
        assert_eq!(u16::from_le_bytes(status), 0x200);
    }
}
