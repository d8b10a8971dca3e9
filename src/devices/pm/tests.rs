use std::sync::Arc;

use x86::time::NANOS_PER_SEC;

use super::Pm;
use crate::testing::{Clock, Control, Probe, outb};
use crate::traits::{BusDevice, MachineEvent, TimedDevice};

struct Setup {
    pm: Pm,
    sci: Arc<Probe>,
    clock: Arc<Clock>,
    machine: Arc<Control>,
}

fn setup() -> Setup {
    let (line, sci) = Probe::on_line();
    let (clock, machine) = (Arc::new(Clock::default()), Arc::new(Control::default()));
    Setup { pm: Pm::new(line, clock.clone(), machine.clone()), sci, clock, machine }
}

fn inw(pm: &mut Pm, now: u64, offset: u64) -> u16 {
    let mut data = [0; 2];
    pm.read(now, offset, &mut data);
    u16::from_le_bytes(data)
}

fn outw(pm: &mut Pm, now: u64, offset: u64, value: u16) {
    pm.write(now, offset, &value.to_le_bytes());
}

#[test]
fn the_timer_counts_24_bits_at_its_frequency() {
    let Setup { mut pm, .. } = setup();
    let mut at = |now| {
        let mut data = [0xee; 4];
        pm.read(now, 8, &mut data);
        u32::from_le_bytes(data)
    };
    assert_eq!(at(0), 0);
    assert_eq!(at(NANOS_PER_SEC), 3_579_545);
    assert_eq!(at(3600 * NANOS_PER_SEC), (3600u64 * 3_579_545 % (1 << 24)) as u32);
    assert_eq!(at(u64::MAX) >> 24, 0);
}

#[test]
fn the_highest_bit_interrupts_when_it_changes_if_asked_to() {
    let Setup { mut pm, sci, clock, .. } = setup();
    assert_eq!(clock.armed(), None);
    outw(&mut pm, 0, 2, 1);
    let first = (NANOS_PER_SEC << 23).div_ceil(3_579_545);
    assert_eq!(clock.take(), Some(first));
    pm.expire(first);
    assert!(sci.level());
    assert_eq!(clock.armed(), None, "no more deadlines while the status is set");
    outw(&mut pm, first + 1, 0, 1);
    assert!(!sci.level());
    assert_eq!(clock.armed(), Some((NANOS_PER_SEC << 24).div_ceil(3_579_545)));
    assert_eq!(sci.take_edges(), 1);
}

#[test]
fn an_overflow_sets_the_status_without_an_interrupt() {
    let Setup { mut pm, sci, clock, .. } = setup();
    assert_eq!(inw(&mut pm, 3 * NANOS_PER_SEC, 0), 1);
    assert!(!sci.level());
    assert_eq!(clock.armed(), None);
    outw(&mut pm, 3 * NANOS_PER_SEC, 2, 1);
    assert!(sci.level(), "pending when it is enabled");
}

#[test]
fn the_power_button_interrupts_until_its_status_is_written() {
    let Setup { mut pm, sci, .. } = setup();
    outw(&mut pm, 0, 2, 0x0120);
    assert_eq!(inw(&mut pm, 0, 2), 0x0120);
    pm.press_power_button(0);
    assert!(sci.level());
    assert_eq!(inw(&mut pm, 0, 0), 0x0100);
    outb(&mut pm, 0, 0, 0xff);
    assert!(sci.level(), "the other byte");
    outb(&mut pm, 0, 1, 0x01);
    assert!(!sci.level());
}

#[test]
fn a_disabled_power_button_only_sets_its_status() {
    let Setup { mut pm, sci, .. } = setup();
    pm.press_power_button(0);
    assert!(!sci.level());
    pm.write(0, 0, &0x0100_0100u32.to_le_bytes());
    assert!(!sci.level());
    assert_eq!(sci.take_edges(), 0, "a 32-bit write clears and enables at once");
}

#[test]
fn sci_enable_reads_as_one_whatever_is_written() {
    let Setup { mut pm, .. } = setup();
    assert_eq!(inw(&mut pm, 0, 4), 1);
    outw(&mut pm, 0, 4, 0x1400);
    assert_eq!(inw(&mut pm, 0, 4), 0x1401);
}

#[test]
fn s5_powers_off_only_with_sleep_enable() {
    let Setup { mut pm, machine, .. } = setup();
    outw(&mut pm, 0, 4, 5 << 10);
    outw(&mut pm, 0, 4, 3 << 10 | 1 << 13);
    assert_eq!(machine.take(), []);
    outw(&mut pm, 0, 4, 5 << 10 | 1 << 13);
    assert_eq!(machine.take(), [MachineEvent::PowerOff]);
    assert_eq!(inw(&mut pm, 0, 4), 5 << 10 | 1, "the enable bit reads as zero");
}

#[test]
fn a_byte_write_of_the_high_half_powers_off_too() {
    let Setup { mut pm, machine, .. } = setup();
    outb(&mut pm, 0, 5, 5 << 2 | 1 << 5);
    assert_eq!(machine.take(), [MachineEvent::PowerOff]);
}
