//! Every device against a guest that writes and reads nonsense, in all sizes, with time that jumps.

use std::sync::Arc;
use std::time::Duration;

use crate::testing::{Bell, Clock, Control, Probe};
use crate::traits::{BusDevice, TimedDevice};
use crate::{DebugExit, I8042, PciConfig, Pit, Pm, Post, Rtc, Serial};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// One access: mostly a byte or a word at a port that is there, sometimes anything.
fn access(random: &mut Random, now: u64, device: &mut dyn BusDevice) {
    let offset = match random.below(16) {
        0 => random.next(),
        1 => u64::MAX - random.below(8),
        2 => 0x21,
        _ => random.below(14),
    };
    let mut data = [0; 8];
    let len = if random.below(3) == 0 { 1 + random.below(8) as usize } else { 1 };
    let value = match random.below(3) {
        0 => random.below(16),
        _ => random.next(),
    };
    data.copy_from_slice(&value.to_le_bytes());
    if random.below(2) == 0 {
        device.write(now, offset, &data[..len]);
    } else {
        device.read(now, offset, &mut data[..len]);
    }
}

#[test]
fn no_device_minds_nonsense() {
    for seed in 0..20 {
        let mut random = Random(seed);
        let clock = Arc::new(Clock::default());
        let bell = Arc::new(Bell::default());
        let control = Arc::new(Control::default());
        let line = || Probe::on_line().0;
        let mut serial = Serial::new(line(), bell.clone());
        let mut pit = Pit::new(line(), clock.clone());
        let wall = if seed == 0 { Duration::MAX } else { Duration::from_secs(random.below(5_000_000_000)) };
        let mut rtc = Rtc::new(wall, line(), clock.clone());
        let mut pm = Pm::new(line(), clock.clone(), control.clone());
        let mut i8042 = I8042::new(control.clone());
        let mut pci = PciConfig::new(control.clone());
        let mut exit = DebugExit::new(control.clone());
        let mut now = 0u64;
        for _ in 0..20_000 {
            now = match random.below(1000) {
                0 => now.saturating_add(random.next() >> 8),
                1 => now.saturating_sub(random.below(1_000_000)),
                n => now.saturating_add(random.below(n * n * 10)),
            };
            access(&mut random, now, &mut serial);
            access(&mut random, now, &mut pit);
            access(&mut random, now, &mut rtc);
            access(&mut random, now, &mut pm);
            access(&mut random, now, &mut i8042);
            access(&mut random, now, &mut pci);
            access(&mut random, now, &mut exit);
            access(&mut random, now, &mut Post);
            match random.below(8) {
                0 => pit.expire(now),
                1 => rtc.expire(now),
                2 => pm.expire(now),
                3 => pm.press_power_button(now),
                4 => drop(serial.push_input(&[7; 100])),
                5 => serial.consume_output(random.below(1000) as usize),
                _ => {}
            }
        }
        for device in [&mut pit as &mut dyn TimedDevice, &mut rtc, &mut pm] {
            device.expire(u64::MAX);
        }
        for _ in 0..1000 {
            access(&mut random, u64::MAX, &mut pit);
            access(&mut random, u64::MAX, &mut rtc);
            access(&mut random, u64::MAX, &mut pm);
        }
        assert!(!control.take().is_empty());
    }
}
