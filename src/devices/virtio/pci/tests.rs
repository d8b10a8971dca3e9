use std::sync::Arc;

use super::super::status;
use super::super::testing::{Plain, Ring, memory, tasklet};
use super::*;
use crate::testing::{Bells, Messages, Probe};

/// A driver of a [`Plain`] device on the PCI bus.
struct Rig {
    pci: VirtioPci<Plain>,
    messages: Arc<Messages>,
    probe: Arc<Probe>,
    memory: Memory,
    bells: Arc<Bells>,
}

impl Rig {
    fn new() -> Self {
        let (msi, messages) = Messages::with_handle();
        let (line, probe) = Probe::on_line();
        let memory = memory();
        let bells = Arc::new(Bells::default());
        let wires = Wires { msi, line, gsi: 17, doorbells: Arc::clone(&bells) as _ };
        let pci = VirtioPci::new(Plain::default(), memory.clone(), 0xd000_0000, wires);
        Self { pci, messages, probe, memory, bells }
    }

    /// Ready, with queue 0 enabled and a chain of it given back.
    fn running(&mut self) -> Ring {
        self.write(0x14, &[3]);
        self.write(0x08, &1u32.to_le_bytes());
        self.write(0x0c, &1u32.to_le_bytes());
        self.write(0x14, &[0xb]);
        let ring = Ring::new(&self.memory, 0x1_0000, 8);
        self.write(0x16, &0u16.to_le_bytes());
        self.write(0x18, &8u16.to_le_bytes());
        for (at, part) in [(0x20, Part::Descriptors), (0x28, Part::Driver), (0x30, Part::Device)] {
            self.write(at, &ring.part(part).to_le_bytes());
        }
        self.write(0x1c, &1u16.to_le_bytes());
        self.write(0x14, &[0xf]);
        assert_eq!(self.read(0x14, 1), 0xf);
        ring
    }

    /// The device gives a chain back.
    fn use_one(&mut self, ring: &mut Ring) {
        ring.chain(&[(0x100, 4, true)]);
        let common = &mut self.pci.registers.common;
        let chain = common.pop(0).expect("a chain");
        common.push(0, chain.head(), 4);
        common.done(0);
        self.pci.deliver();
    }

    fn read(&mut self, offset: u64, len: usize) -> u64 {
        let mut data = [0; 8];
        self.pci.read_bar(0, offset, &mut data[..len]);
        u64::from_le_bytes(data)
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.pci.write_bar(0, offset, data);
    }

    fn config(&mut self, offset: usize) -> u32 {
        let mut data = [0; 4];
        self.pci.read_config(offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// Enables MSI-X with `vector`'s message at 0xfee0_0000, its data the vector.
    fn msix(&mut self, vector: u64, masked: bool) {
        self.write(MSIX_TABLE + 16 * vector, &0xfee0_0000u64.to_le_bytes());
        self.write(MSIX_TABLE + 16 * vector + 8, &(vector | u64::from(masked) << 32).to_le_bytes());
        let at = self.pci.msix_at;
        self.pci.write_config(at + 2, &[0, 0x80]);
    }
}

#[test]
fn capabilities_lead_to_the_structures() {
    let mut rig = Rig::new();
    assert_eq!(rig.config(0), 0x1044_1af4);
    assert_eq!(rig.config(8) & 0xff, 1);
    let (mut at, mut found) = (rig.config(0x34) as usize & 0xff, Vec::new());
    while at != 0 {
        let head = rig.config(at).to_le_bytes();
        if head[0] == 9 {
            found.push((head[3], rig.config(at + 4) & 0xff, rig.config(at + 8), rig.config(at + 12)));
        }
        at = head[1].into();
    }
    assert_eq!(
        found,
        [(1, 0, 0x0000, 0x3c), (2, 0, 0x3000, 8), (3, 0, 0x1000, 1), (4, 0, 0x2000, 0x1000), (5, 0, 0, 0),]
    );
}

#[test]
fn the_common_configuration_reads_as_it_was_written() {
    let mut rig = Rig::new();
    assert_eq!((rig.read(0x12, 2), rig.read(0x04, 4)), (2, 0x3000_0008));
    rig.write(0, &[1, 0, 0, 0]);
    assert_eq!(rig.read(0x04, 4), 0x101);
    let ring = rig.running();
    assert_eq!((rig.read(0x18, 2), rig.read(0x1c, 2), rig.read(0x1e, 2)), (8, 1, 0));
    assert_eq!(rig.read(0x28, 8), ring.part(Part::Driver));
    assert_eq!(rig.read(0x28, 4), ring.part(Part::Driver));
    rig.write(0x16, &[1, 0]);
    assert_eq!((rig.read(0x18, 2), rig.read(0x1c, 2), rig.read(0x1e, 2)), (8, 0, 1));
    rig.write(0x16, &[9, 0]);
    assert_eq!((rig.read(0x18, 2), rig.read(0x1a, 2)), (0, 0xffff), "no such queue");
    // Not a field's size.
    rig.write(0x14, &[0; 2]);
    rig.write(0x15, &[0]);
    assert_eq!((rig.read(0x14, 1), rig.read(0x14, 2), rig.read(0x10, 1)), (0xf, 0, 0));
    rig.write(0x14, &[0]);
    assert_eq!((rig.read(0x14, 1), rig.read(0x16, 2)), (0, 0));
}

#[test]
fn a_notification_goes_to_the_queue_whose_address_it_has() {
    let mut rig = Rig::new();
    rig.write(NOTIFY, &[0, 0]);
    assert!(rig.pci.registers.device.notified.is_empty(), "not ready");
    rig.running();
    rig.write(NOTIFY, &[0, 0]);
    rig.write(NOTIFY + 4, &[1, 0]);
    rig.write(NOTIFY + 0xffc, &[0xff, 3]);
    assert_eq!(rig.pci.registers.device.notified, [0], "the second queue is not enabled, the last is not there");
}

#[test]
fn without_msix_an_interrupt_is_intx_until_isr_is_read() {
    let mut rig = Rig::new();
    let mut ring = rig.running();
    rig.use_one(&mut ring);
    assert!(rig.probe.level());
    assert_eq!(rig.config(4) >> 16 & 8, 8);
    rig.use_one(&mut ring);
    assert_eq!(rig.read(ISR, 1), 1);
    assert!(!rig.probe.level());
    assert_eq!((rig.read(ISR, 1), rig.probe.take_edges()), (0, 1));
    // The configuration's bit.
    rig.write(DEVICE, &[5]);
    assert_eq!((rig.read(DEVICE, 1), rig.probe.level(), rig.read(ISR, 1)), (5, true, 2));
    assert_eq!(rig.messages.take(), []);
}

#[test]
fn intx_can_be_disabled_and_is_still_shown() {
    let mut rig = Rig::new();
    let mut ring = rig.running();
    rig.pci.write_config(4, &[6, 4]);
    rig.use_one(&mut ring);
    assert_eq!((rig.probe.level(), rig.config(4) >> 16 & 8), (false, 8));
    rig.pci.write_config(4, &[6, 0]);
    assert!(rig.probe.level());
    rig.write(0x14, &[0]);
    assert!(!rig.probe.level(), "a reset takes it down");
}

#[test]
fn with_msix_each_queue_has_its_vector() {
    let mut rig = Rig::new();
    let mut ring = rig.running();
    rig.msix(2, false);
    rig.use_one(&mut ring);
    assert_eq!((rig.messages.take(), rig.probe.level()), (vec![], false), "no vector yet");
    rig.write(0x1a, &[2, 0]);
    assert_eq!(rig.read(0x1a, 2), 2);
    rig.use_one(&mut ring);
    assert_eq!((rig.messages.take(), rig.probe.level()), (vec![(0xfee0_0000, 2)], false));
    assert_eq!(rig.read(ISR, 1), 0);
    // There are three.
    rig.write(0x1a, &[3, 0]);
    rig.write(0x10, &[3, 0]);
    assert_eq!((rig.read(0x1a, 2), rig.read(0x10, 2)), (0xffff, 0xffff));
    rig.write(0x10, &[2, 0]);
    rig.write(DEVICE, &[5]);
    assert_eq!(rig.messages.take(), [(0xfee0_0000, 2)]);
}

#[test]
fn a_masked_vector_waits() {
    let mut rig = Rig::new();
    let mut ring = rig.running();
    rig.msix(1, true);
    rig.write(0x1a, &[1, 0]);
    rig.use_one(&mut ring);
    assert_eq!((rig.messages.take(), rig.read(MSIX_PENDING, 8)), (vec![], 2));
    rig.write(MSIX_TABLE + 16 + 12, &[0; 4]);
    assert_eq!((rig.messages.take(), rig.read(MSIX_PENDING, 8)), (vec![(0xfee0_0000, 1)], 0));
}

#[test]
fn intx_gives_way_to_msix() {
    let mut rig = Rig::new();
    let mut ring = rig.running();
    rig.use_one(&mut ring);
    assert!(rig.probe.level());
    rig.msix(0, false);
    assert!(!rig.probe.level());
}

#[test]
fn a_broken_device_says_so_by_a_configuration_interrupt() {
    let mut rig = Rig::new();
    let mut ring = rig.running();
    ring.chain(&[(u64::MAX, 4, true)]);
    assert_eq!(rig.pci.registers.common.pop(0), None);
    rig.pci.deliver();
    assert_eq!((rig.read(0x14, 1) as u8 & status::NEEDS_RESET, rig.read(ISR, 1)), (status::NEEDS_RESET, 2));
}

/// Doorbells are where the queues' notifications are, and nowhere else, while the driver is ready.
#[test]
fn doorbells_follow_status_and_bar() {
    let mut rig = Rig::new();
    let (system, tasklet) = tasklet();
    rig.pci.registers.device.tasklet = Some(tasklet);
    assert_eq!(rig.bells.connected(), []);
    rig.running();
    let at = |base: u64| vec![(base + 0x3000, Written::Anything), (base + 0x3004, Written::Anything)];
    assert_eq!((rig.bells.connected(), rig.pci.registers.device.notified.len()), (at(0xd000_0000), 0));
    // Moved: what was written on the way is looked for.
    rig.pci.write_config(0x10, &0xd010_0000u32.to_le_bytes());
    assert_eq!((rig.bells.connected(), rig.pci.registers.device.notified.as_slice()), (at(0xd010_0000), &[0, 1][..]));
    rig.pci.write_config(4, &[0, 0]);
    assert_eq!(rig.bells.connected(), []);
    rig.pci.write_config(4, &[6, 0]);
    assert_eq!(rig.bells.connected(), at(0xd010_0000));
    rig.write(0x14, &[0]);
    assert_eq!(rig.bells.connected(), []);
    system.shutdown(None).expect("nothing runs");
}

#[test]
fn the_structures_can_be_reached_through_configuration_space() {
    let mut rig = Rig::new();
    let at = rig.pci.access_at;
    let aim = |rig: &mut Rig, bar: u8, offset: u32, len: u32| {
        rig.pci.write_config(at + CFG_BAR, &[bar]);
        rig.pci.write_config(at + CFG_OFFSET, &offset.to_le_bytes());
        rig.pci.write_config(at + CFG_LENGTH, &len.to_le_bytes());
    };
    aim(&mut rig, 0, 0x12, 2);
    assert_eq!(rig.config(at + CFG_DATA) & 0xffff, 2);
    aim(&mut rig, 0, 0x14, 1);
    rig.pci.write_config(at + CFG_DATA, &[3]);
    assert_eq!(rig.read(0x14, 1), 3);
    for (bar, offset, len) in [(1, 0x14, 1), (0, 0x8000, 1), (0, u32::MAX, 1), (0, 0x14, 0), (0, 0x14, 8), (0, 0x12, 4)]
    {
        aim(&mut rig, bar, offset, len);
        rig.pci.write_config(at + CFG_DATA, &[0; 4]);
        rig.config(at + CFG_DATA);
        assert_eq!(rig.read(0x14, 1), 3, "{bar} {offset:#x} {len}");
    }
}

/// Where capability `id` is.
fn capability_at(rig: &mut Rig, id: u8) -> usize {
    let mut at = rig.config(0x34) as usize & 0xff;
    while at != 0 {
        let head = rig.config(at).to_le_bytes();
        if head[0] == id {
            return at;
        }
        at = head[1].into();
    }
    panic!("no capability {id:#x}");
}

#[test]
fn msi_takes_the_place_of_intx_where_msix_is_off() {
    let mut rig = Rig::new();
    let mut ring = rig.running();
    let at = capability_at(&mut rig, 5);
    rig.pci.write_config(at + 4, &0xfee0_2000u64.to_le_bytes());
    rig.pci.write_config(at + 12, &0x60u16.to_le_bytes());
    // Four vectors are enough for the configuration and two queues.
    assert_eq!(rig.config(at) >> 17 & 7, 2);
    rig.pci.write_config(at + 2, &[1 | 2 << 4, 0]);
    rig.use_one(&mut ring);
    assert_eq!((rig.messages.take(), rig.probe.level()), (vec![(0xfee0_2000, 0x61)], false));
    assert_eq!(rig.read(ISR, 1), 1, "which says so, too");
    // Masked, it is pending, which software reads.
    rig.pci.write_config(at + 16, &0b10u32.to_le_bytes());
    rig.use_one(&mut ring);
    assert_eq!((rig.messages.take(), rig.config(at + 20)), (vec![], 0b10));
    rig.pci.write_config(at + 16, &0u32.to_le_bytes());
    assert_eq!((rig.messages.take(), rig.config(at + 20)), (vec![(0xfee0_2000, 0x61)], 0));
    // With MSI off again, what the driver has not read is on INTA#.
    rig.pci.write_config(at + 2, &[0, 0]);
    assert!(rig.probe.level());
    // And MSI-X goes before both.
    rig.pci.write_config(at + 2, &[1, 0]);
    rig.msix(0, false);
    rig.use_one(&mut ring);
    assert_eq!(rig.messages.take(), [], "the queue has no vector of MSI-X");
    assert!(!rig.probe.level());
}

/// The function says so for both kinds of messages.
#[test]
fn an_nmi_is_seen_in_msix_and_in_msi() {
    const NMI: u32 = 0x400;
    let mut rig = Rig::new();
    rig.msix(1, false);
    assert!(!rig.pci.can_give_nmi());
    rig.write(MSIX_TABLE + 16 + 8, &NMI.to_le_bytes());
    assert!(rig.pci.can_give_nmi());
    rig.msix(1, true);
    assert!(!rig.pci.can_give_nmi());
}
