use std::sync::Arc;

use super::super::testing::{Plain, Ring, memory, tasklet};
use super::*;
use crate::testing::{Bells, Probe};

struct Rig {
    window: VirtioMmio<Plain>,
    probe: Arc<Probe>,
    memory: Memory,
    bells: Arc<Bells>,
}

impl Rig {
    fn new() -> Self {
        let (line, probe) = Probe::on_line();
        let memory = memory();
        let bells = Arc::new(Bells::default());
        let device = Plain::default();
        let window = VirtioMmio::new(device, memory.clone(), 0xe800_0000, line, Arc::clone(&bells) as _);
        Self { window, probe, memory, bells }
    }

    fn read(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.window.read(0, offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.window.write(0, offset, &value.to_le_bytes());
    }

    fn running(&mut self) -> Ring {
        self.write(0x070, 3);
        self.write(0x024, 1);
        self.write(0x020, 1);
        self.write(0x070, 0xb);
        let ring = Ring::new(&self.memory, 0x1_0000, 8);
        self.write(0x030, 0);
        self.write(0x038, 8);
        for (at, part) in [(0x080, Part::Descriptors), (0x090, Part::Driver), (0x0a0, Part::Device)] {
            self.write(at, ring.part(part) as u32);
            self.write(at + 4, 0);
        }
        self.write(0x044, 1);
        self.write(0x070, 0xf);
        assert_eq!((self.read(0x070), self.read(0x044)), (0xf, 1));
        ring
    }
}

#[test]
fn the_window_says_what_is_there() {
    let mut rig = Rig::new();
    assert_eq!([0, 4, 8].map(|at| rig.read(at)), [0x7472_6976, 2, 4]);
    assert_eq!((rig.read(0x010), rig.read(0x034)), (0x3000_0008, 16));
    rig.write(0x014, 1);
    rig.write(0x030, 1);
    assert_eq!((rig.read(0x010), rig.read(0x034)), (0x101, 8));
    rig.write(0x030, 0x1_0000);
    assert_eq!((rig.read(0x034), rig.read(0x0b8), rig.read(0x0c0)), (0, u32::MAX, 0));
}

#[test]
fn an_interrupt_stays_until_it_is_acknowledged() {
    let mut rig = Rig::new();
    let mut ring = rig.running();
    ring.chain(&[(0x100, 4, true)]);
    rig.write(0x050, 0);
    assert_eq!(rig.window.registers.device.notified, [0]);
    let chain = rig.window.registers.common.pop(0).expect("a chain");
    rig.window.registers.common.push(0, chain.head(), 4);
    rig.window.registers.common.done(0);
    rig.window.deliver();
    assert_eq!((rig.probe.level(), rig.read(0x060)), (true, 1));
    rig.write(0x064, 2);
    assert!(rig.probe.level());
    rig.write(0x064, 1);
    assert_eq!((rig.probe.level(), rig.read(0x060)), (false, 0));
}

#[test]
fn the_configuration_takes_accesses_of_any_size() {
    let mut rig = Rig::new();
    rig.running();
    rig.window.write(0, 0x101, &[7]);
    assert_eq!((rig.read(0x100), rig.read(0x060), rig.read(0x0fc)), (0x700, 2, 1));
    assert_eq!(rig.read(0x1f0), 0);
    let mut data = [0xff; 2];
    rig.window.read(0, 0, &mut data);
    assert_eq!(data, [0, 0], "a register is four bytes");
    rig.window.write(0, 0x070, &[0]);
    rig.window.write(0, 0x06e, &[0; 4]);
    assert_eq!(rig.read(0x070), 0xf);
}

#[test]
fn a_reset_takes_the_interrupt_down() {
    let mut rig = Rig::new();
    rig.running();
    rig.window.write(0, 0x100, &[7]);
    assert!(rig.probe.level());
    rig.write(0x070, 0);
    assert_eq!((rig.probe.level(), rig.read(0x060), rig.read(0x044)), (false, 0, 0));
}

#[test]
fn doorbells_are_there_while_the_driver_is_ready() {
    let mut rig = Rig::new();
    let (system, tasklet) = tasklet();
    rig.window.registers.device.tasklet = Some(tasklet);
    rig.running();
    let at = 0xe800_0050;
    assert_eq!(rig.bells.connected(), [(at, Written::U32(0)), (at, Written::U32(1))]);
    rig.write(0x070, 0);
    assert_eq!(rig.bells.connected(), []);
    system.shutdown(None).expect("nothing runs");
}
