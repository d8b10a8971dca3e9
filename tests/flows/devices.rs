//! Devices with their drivers: register, line, controller, handler, and back.

use std::sync::Arc;

use devices::{Alarm, BusDevice, Later, MachineControl, MachineEvent, Pit, Pm, Rtc, Serial, TimedDevice};
use parking_lot::Mutex;
use x86::apic::reg;
use x86::platform;
use x86::{Nanos, time::NANOS_PER_SEC};

use crate::rig::{Cpu, PIC_BASE, Rig, edge, level};

const VECTOR: u8 = 0x24;

/// The machine round a device: what it armed, and how often it asked for a later run.
#[derive(Default)]
struct Around {
    armed: Mutex<Option<Nanos>>,
    scheduled: Mutex<usize>,
}

impl Alarm for Around {
    fn arm(&self, at: Option<Nanos>) {
        *self.armed.lock() = at;
    }
}

impl Later for Around {
    fn schedule(&self) {
        *self.scheduled.lock() += 1;
    }
}

impl MachineControl for Around {
    fn request(&self, event: MachineEvent) {
        panic!("nobody asked for {event:?}");
    }
}

impl Around {
    /// Runs the device at its alarm, if it has set one; says when that was.
    fn ring(&self, device: &mut impl TimedDevice) -> Option<Nanos> {
        let at = self.armed.lock().take()?;
        device.expire(at);
        Some(at)
    }
}

fn inb(device: &mut impl BusDevice, now: Nanos, offset: u64) -> u8 {
    let mut data = [0];
    device.read(now, offset, &mut data);
    data[0]
}

/// The guest's serial driver: its interrupt handler reads what came, and sends what is left of `to_send`.
fn serial_handler(serial: &mut Serial, received: &mut Vec<u8>, to_send: &mut Vec<u8>) {
    loop {
        match inb(serial, 0, 2) & 0x0f {
            0x04 | 0x0c => {
                while inb(serial, 0, 5) & 1 != 0 {
                    received.push(inb(serial, 0, 0));
                }
            }
            0x02 if to_send.is_empty() => serial.write(0, 1, &[0x01]),
            0x02 => {
                for byte in to_send.drain(..to_send.len().min(16)) {
                    serial.write(0, 0, &[byte]);
                }
            }
            _ => return,
        }
    }
}

/// Red without: `line.set` in `Serial::update`; clearing the THR-empty cause in `identify` (endless); the edge through
/// pin 4.
#[test]
fn a_serial_port_sends_and_receives_by_interrupts() {
    let (rig, mut cpus) = Rig::new(1);
    rig.route(4, edge(VECTOR, 0));
    let around = Arc::new(Around::default());
    let mut serial = Serial::new(rig.isa_line(platform::IRQ_COM1), around.clone());
    let (mut received, mut to_send) = (Vec::new(), b"forty bytes that need more than one FIFO".to_vec());
    let expected = to_send.clone();
    serial.write(0, 2, &[0x07]);
    serial.write(0, 4, &[0x0b]);
    serial.write(0, 1, &[0x03]);

    let mut interrupts = 0;
    while let Some(vector) = cpus[0].interrupt() {
        assert_eq!(vector, VECTOR);
        interrupts += 1;
        serial_handler(&mut serial, &mut received, &mut to_send);
        cpus[0].eoi();
    }
    let mut output = [0; 64];
    let count = serial.peek_output(&mut output);
    assert_eq!(&output[..count], expected);
    assert!(interrupts >= 1 && *around.scheduled.lock() >= 1);

    // More than the FIFO holds: the rest follows when the handler has made room.
    let input: Vec<u8> = (0..200).collect();
    let mut rest = &input[..];
    while !rest.is_empty() {
        let taken = serial.push_input(rest);
        assert!(taken > 0, "the handler has emptied the FIFO");
        rest = &rest[taken..];
        assert_eq!(cpus[0].interrupt(), Some(VECTOR));
        serial_handler(&mut serial, &mut received, &mut to_send);
        cpus[0].eoi();
    }
    assert_eq!(received, input);
    assert_eq!(cpus[0].interrupt(), None);
}

/// Programs counter 0 for 100 Hz in mode 2.
fn start_pit(pit: &mut Pit) {
    let count = (platform::PIT_HZ / 100) as u16;
    pit.write(0, 3, &[0x34]);
    for byte in count.to_le_bytes() {
        pit.write(0, 0, &[byte]);
    }
}

/// Red without: the fall before the rise in `Pit::settle`; either branch of `Interrupts::set_level`; GSI 2 for IRQ 0.
#[test]
fn a_tick_reaches_both_controllers_once() {
    let (rig, mut cpus) = Rig::new(2);
    let effect = cpus[0].apic.enter_virtual_wire_mode();
    assert_eq!(effect, irqchip::lapic::Effect::Readdressed);
    rig.start_pics();
    rig.route(2, edge(VECTOR, 1));
    let around = Arc::new(Around::default());
    let mut pit = Pit::new(rig.isa_line(platform::IRQ_PIT), around.clone());
    // Its OUT was high from the start.
    rig.end_pic(0);
    while cpus[0].interrupt().is_some() {
        rig.end_pic(0);
    }
    cpus[1].handle_all();
    start_pit(&mut pit);

    let mut last = 0;
    for tick in 1..=100 {
        last = around.ring(&mut pit).expect("a tick is due");
        assert_eq!(cpus[0].interrupt(), Some(PIC_BASE), "tick {tick} through the PIC");
        rig.end_pic(0);
        assert_eq!(cpus[1].handle_all(), [VECTOR], "tick {tick} through the I/O APIC");
        assert_eq!(cpus[0].interrupt(), None);
    }
    assert!(
        (NANOS_PER_SEC - 10_000_000..=NANOS_PER_SEC + 10_000_000).contains(&last),
        "100 ticks of 100 Hz: {last} ns"
    );
}

/// Enables the power button event and programs its level interrupt.
fn start_sci(rig: &Rig, pm: &mut Pm) {
    rig.route(platform::IRQ_SCI, level(VECTOR, 0));
    pm.write(0, 2, &(1u16 << 8).to_le_bytes());
}

/// Red without: `sci.set` in `Pm::settle`; re-assertion at the EOI.
#[test]
fn the_system_control_interrupt_is_a_level_until_its_status_is_cleared() {
    let (rig, mut cpus) = Rig::new(1);
    let around = Arc::new(Around::default());
    let mut pm = Pm::new(rig.isa_line(platform::IRQ_SCI), around.clone(), around);
    start_sci(&rig, &mut pm);
    assert_eq!(cpus[0].interrupt(), None);
    pm.press_power_button(0);
    assert_eq!(cpus[0].handle(), Some(VECTOR));
    assert_eq!(cpus[0].interrupt(), Some(VECTOR), "the handler has cleared nothing");
    pm.write(0, 0, &(1u16 << 8).to_le_bytes());
    cpus[0].eoi();
    assert_eq!(cpus[0].interrupt(), None);
    assert!(!rig.entry(platform::IRQ_SCI).remote_irr());
}

/// Reads an RTC register.
fn cmos(rtc: &mut Rtc, now: Nanos, register: u8) -> u8 {
    rtc.write(now, 0, &[register]);
    inb(rtc, now, 1)
}

/// Red without: reading register C lowering the line in `Rtc`; the slave's cascade; IRQ 8 on the slave.
#[test]
fn the_rtc_interrupts_through_the_slave_until_register_c_is_read() {
    let (rig, mut cpus) = Rig::new(1);
    let effect = cpus[0].apic.enter_virtual_wire_mode();
    assert_eq!(effect, irqchip::lapic::Effect::Readdressed);
    rig.start_pics();
    let around = Arc::new(Around::default());
    let mut rtc = Rtc::new(std::time::Duration::from_secs(1), rig.isa_line(platform::IRQ_RTC), around.clone());
    // Update-ended interrupt, 24 hours.
    rtc.write(0, 0, &[0x0b]);
    rtc.write(0, 1, &[0x12]);
    for second in 1..=3 {
        let at = around.ring(&mut rtc).expect("an update is due");
        assert_eq!(at, second * NANOS_PER_SEC);
        assert_eq!(cpus[0].interrupt(), Some(PIC_BASE + 8));
        assert_eq!(*around.armed.lock(), None, "nobody has fetched this one");
        assert_eq!(cmos(&mut rtc, at, 0x0c) & 0x90, 0x90);
        rig.end_pic(8);
        assert_eq!(cpus[0].interrupt(), None);
    }
}

/// A guest's timer calibration: reads the local APIC's count between two PIT ticks.
///
/// Red without: `Timer::current`, or the PIT's alarm being in the machine's time.
#[test]
fn pit_and_local_apic_agree_about_time() {
    let (rig, mut cpus) = Rig::new(1);
    let around = Arc::new(Around::default());
    let mut pit = Pit::new(rig.isa_line(platform::IRQ_PIT), around.clone());
    start_pit(&mut pit);
    let count = |cpu: &mut Cpu, at: Nanos| {
        let mut data = [0; 4];
        cpu.apic.read_mmio(at, reg::TIMER_CURRENT.into(), &mut data);
        u32::from_le_bytes(data)
    };
    cpus[0].write(reg::TIMER_DIVIDE, 0b1011);
    cpus[0].write(reg::TIMER_INITIAL, u32::MAX);
    let first = around.ring(&mut pit).expect("a tick is due");
    let before = count(&mut cpus[0], first);
    let second = around.ring(&mut pit).expect("a tick is due");
    let ticks = before - count(&mut cpus[0], second);
    assert!(ticks.abs_diff(10_000_000) < 20_000, "10 ms of a 1 GHz clock: {ticks}");
}
