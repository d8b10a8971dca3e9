//! Every device against a guest that writes and reads nonsense, in all sizes, with time that jumps.

use std::sync::Arc;
use std::time::Duration;

use irqchip::line::{Switch, Wire};

use crate::fw_cfg::{Contents, FwCfg};
use crate::hpet;
use crate::pci::PciBus;
use crate::testdev::{FlushPort, IrqLines, PageFlush, ScratchMemory, ScratchPorts};
use crate::testing::{Bell, Clock, Control, Messages, Probe};
use crate::traits::{BusDevice, TimedDevice};
use crate::{DebugExit, Hpet, I8042, PciConfig, Pit, Pm, Port92, Post, PvPanic, Rtc, Serial, Storm};

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

struct Nowhere;

impl PageFlush for Nowhere {
    fn flush(&self, _address: u64) {}
}

fn unwired_hpet(clock: Arc<Clock>) -> Hpet {
    let line = || Probe::on_line().0;
    let switch = || Switch::new(line()).0;
    let outputs = hpet::Outputs {
        legacy: [line(), line()],
        replaced: [switch(), switch()],
        pins: [line(), line(), line(), line()],
        msi: Messages::with_handle().0,
    };
    Hpet::new(outputs, clock)
}

/// The same for a block of wide registers: mostly one that is there, by 4 or 8 bytes.
fn access_hpet(random: &mut Random, now: u64, hpet: &mut Hpet) {
    if random.below(4) == 0 {
        return access(random, now, hpet);
    }
    let registers = [0x00, 0x10, 0x10, 0x20, 0xf0, 0x100, 0x108, 0x110, 0x120, 0x128, 0x140, 0x148, 0x160, 0x168];
    let offset = registers[random.below(registers.len() as u64) as usize];
    let value = [random.next(), random.below(16), random.next() | 0x10f][random.below(3) as usize].to_le_bytes();
    match random.below(4) {
        0 => hpet.write(now, offset, &value),
        1 => hpet.write(now, offset, &value[..4]),
        2 => hpet.write(now, offset + 4, &value[..4]),
        _ => hpet.read(now, offset, &mut [0; 8]),
    }
}

/// The same for the storm device: mostly one of its registers, and a start now and then.
fn access_storm(random: &mut Random, now: u64, storm: &mut Storm) {
    if random.below(4) == 0 {
        return access(random, now, storm);
    }
    let channel = random.below(9) as usize;
    let register = [0x00, 0x04, 0x08, 0x10, 0x14, 0x18, 0x20, 0x28, 0x30, 0x38][random.below(10) as usize];
    let offset = x86::storm::channel(channel, register) - x86::storm::BASE;
    let value = [random.next(), random.below(16), 1, u64::MAX][random.below(4) as usize].to_le_bytes();
    match random.below(4) {
        0 => storm.read(now, offset, &mut [0; 8]),
        1 => storm.write(now, offset, &value),
        _ => storm.write(now, offset, &value[..4]),
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
        let mut hpet = unwired_hpet(clock.clone());
        let mut i8042 = I8042::new(control.clone());
        let mut pci = PciConfig::new(Arc::new(PciBus::new()), control.clone());
        let mut exit = DebugExit::new(control.clone());
        let mut port92 = Port92::new(control.clone());
        let mut panic = PvPanic::new(control.clone());
        let mut scratch = ScratchPorts::default();
        let mut flush = FlushPort::new(Arc::new(Nowhere));
        let mut lines = IrqLines::new((0..12).map(|_| line()).collect());
        let mut memory = ScratchMemory::default();
        let mut fw_cfg = FwCfg::new(Contents { cmdline: "a".into(), ..Contents::default() });
        let wires = (0..16).map(|gsi| Wire::new(gsi, Arc::new(Probe::default()))).collect();
        let mut storm = Storm::new(wires, Messages::with_handle().0, clock.clone());
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
            access_hpet(&mut random, now, &mut hpet);
            access_storm(&mut random, now, &mut storm);
            access(&mut random, now, &mut i8042);
            access(&mut random, now, &mut pci);
            access(&mut random, now, &mut exit);
            access(&mut random, now, &mut port92);
            access(&mut random, now, &mut panic);
            access(&mut random, now, &mut scratch);
            access(&mut random, now, &mut flush);
            access(&mut random, now, &mut lines);
            access(&mut random, now, &mut memory);
            access(&mut random, now, &mut fw_cfg);
            access(&mut random, now, &mut Post);
            match random.below(9) {
                0 => pit.expire(now),
                1 => rtc.expire(now),
                2 => pm.expire(now),
                3 => pm.press_power_button(now),
                4 => drop(serial.push_input(&[7; 100])),
                5 => hpet.expire(now),
                7 => storm.expire(now),
                6 => serial.consume_output(random.below(1000) as usize),
                _ => {}
            }
        }
        for device in [&mut pit as &mut dyn TimedDevice, &mut rtc, &mut hpet, &mut pm, &mut storm] {
            device.expire(u64::MAX);
        }
        for _ in 0..1000 {
            access(&mut random, u64::MAX, &mut pit);
            access(&mut random, u64::MAX, &mut rtc);
            access(&mut random, u64::MAX, &mut pm);
            access_hpet(&mut random, u64::MAX, &mut hpet);
            access_storm(&mut random, u64::MAX, &mut storm);
        }
        assert!(!control.take().is_empty());
    }
}
