//! The 8259A pair: virtual-wire mode through LINT0, and as ExtINT through the I/O APIC.

use x86::apic::{DeliveryMode, Lvt, reg};
use x86::platform;

use crate::rig::{Cpu, PIC_BASE, Rig, edge};

/// OCW3: the next read is a poll.
const POLL: u8 = 0x0c;

/// A machine as firmware leaves it, its PICs initialised by the guest.
fn virtual_wire(cpus: usize) -> (Rig, Vec<Cpu>) {
    let (rig, mut list) = Rig::new(cpus);
    assert_eq!(list[0].apic.enter_virtual_wire_mode(), irqchip::lapic::Effect::Readdressed);
    rig.interrupts.readdress(0, list[0].apic.address());
    rig.start_pics();
    (rig, list)
}

/// Red without: `gsi_to_pic_input` in `Interrupts::set_level`; `post_lint0` in `drive_pic_output`; LINT0 in
/// `LocalApic::collect`.
#[test]
fn the_bsp_gets_the_pics_vectors_through_lint0() {
    let (rig, mut cpus) = virtual_wire(2);
    let (mut master, mut slave) = (rig.isa_line(4), rig.isa_line(12));
    master.set(true);
    slave.set(true);
    assert_eq!(cpus[1].interrupt(), None, "LINT0 is wired to the BSP alone");
    assert_eq!(cpus[0].interrupt(), Some(PIC_BASE + 12), "the cascade input comes before input 4");
    assert_eq!(cpus[0].interrupt(), None, "IRQ 4 waits for the EOI");
    rig.end_pic(12);
    assert_eq!(cpus[0].interrupt(), Some(PIC_BASE + 4));
    rig.end_pic(4);
    assert_eq!(cpus[0].interrupt(), None);
    assert!(cpus[0].apic.isr().is_empty(), "the local APIC has no part in it");
}

/// Red without: the check of `output()` in `acknowledge_pic` (a spurious IRQ 7 instead).
#[test]
fn a_request_withdrawn_before_the_acknowledge_gives_nothing() {
    let (rig, mut cpus) = virtual_wire(1);
    let mut line = rig.isa_line(4);
    line.set(true);
    cpus[0].collect();
    assert!(cpus[0].apic.extint_pending());
    line.set(false);
    assert_eq!(cpus[0].interrupts.acknowledge_pic(false), None);
    assert_eq!(cpus[0].interrupt(), None);
}

/// Red without: the mask in `extint_pending`, or looking at the pin's level there.
#[test]
fn a_masked_lint0_holds_the_pic_back_and_forgets_nothing() {
    let (rig, mut cpus) = virtual_wire(1);
    let extint = Lvt::new().with_delivery_mode(DeliveryMode::ExtInt as u8);
    cpus[0].write(reg::LVT_LINT0, extint.with_masked(true).into_bits());
    let mut line = rig.isa_line(4);
    line.set(true);
    assert_eq!(cpus[0].interrupt(), None);
    cpus[0].write(reg::LVT_LINT0, extint.into_bits());
    assert_eq!(cpus[0].interrupt(), Some(PIC_BASE + 4));
}

/// Red without: the IMR write following the output in `with_pic`.
#[test]
fn the_pics_own_mask_and_level_mode_work_through_the_wires() {
    let (rig, mut cpus) = virtual_wire(1);
    rig.write_pic(platform::PIC_ELCR, 1 << 5);
    rig.write_pic(platform::PIC_MASTER + 1, 0xff);
    let mut line = rig.isa_line(5);
    line.set(true);
    assert_eq!(cpus[0].interrupt(), None);
    rig.write_pic(platform::PIC_MASTER + 1, 0x00);
    for _ in 0..3 {
        assert_eq!(cpus[0].interrupt(), Some(PIC_BASE + 5), "a level asks again after each EOI");
        assert_eq!(cpus[0].interrupt(), None);
        rig.end_pic(5);
    }
    line.set(false);
    assert_eq!(cpus[0].interrupt(), None);
}

/// Red without: PIC_PIN in `drive_pic_output`; `extint` in `LocalApic::collect`.
#[test]
fn pin_0_takes_the_pics_output_as_extint_to_any_vcpu() {
    let (rig, mut cpus) = Rig::new(2);
    rig.start_pics();
    rig.route(0, edge(0, 1).with_delivery_mode(DeliveryMode::ExtInt as u8));
    let (mut four, mut five) = (rig.isa_line(4), rig.isa_line(5));
    four.set(true);
    assert_eq!(cpus[0].interrupt(), None, "LINT0 is masked");
    assert_eq!(cpus[1].interrupt(), Some(PIC_BASE + 4));
    five.set(true);
    assert_eq!(cpus[1].interrupt(), None);
    rig.end_pic(4);
    assert_eq!(cpus[1].interrupt(), Some(PIC_BASE + 5), "a new rise of the output, a new message");
    rig.end_pic(5);
    four.set(false);
    four.set(true);
    four.set(false);
    // Nothing takes a message back, so the acknowledge runs; the PIC has nothing any more.
    assert_eq!(cpus[1].interrupt(), Some(PIC_BASE + 7), "asked, and withdrawn: spurious");
    rig.write_pic(platform::PIC_MASTER, 0x0b);
    assert_eq!(rig.read_pic(platform::PIC_MASTER), 0, "nothing is in service");
    assert_eq!(cpus[1].interrupt(), None);
}

/// In automatic EOI mode the next request is there as soon as one is acknowledged.
///
/// Red without: the new rise after an acknowledge in `acknowledge_pic`, on either of its two ways.
#[test]
fn what_waits_behind_an_acknowledged_request_asks_again() {
    for pin_0 in [false, true] {
        let (rig, mut cpus) = if pin_0 { Rig::new(1) } else { virtual_wire(1) };
        if pin_0 {
            rig.route(0, edge(0, 0).with_delivery_mode(DeliveryMode::ExtInt as u8));
        }
        rig.write_pic(platform::PIC_MASTER, 0x11);
        for word in [PIC_BASE, 4, 0x03, 0x00] {
            rig.write_pic(platform::PIC_MASTER + 1, word);
        }
        let mut lines = [3, 4, 5].map(|irq| rig.isa_line(irq));
        lines.iter_mut().for_each(|line| line.set(true));
        let vectors: Vec<_> = std::iter::from_fn(|| cpus[0].interrupt()).collect();
        assert_eq!(vectors, [3, 4, 5].map(|irq| PIC_BASE + irq), "through pin 0: {pin_0}");
    }
}

/// A poll acknowledges as the CPU does: INT falls in it, and what waits behind makes a new edge.
///
/// Red without: the fall that `PicPair::read_and_watch` reports, of the master's poll or of the slave's, or
/// `with_watched_pic` following it.
#[test]
fn what_waits_behind_a_polled_request_asks_again() {
    for (chip, irqs, answers) in
        [(platform::PIC_MASTER, [3, 4], [0x83, 0x84]), (platform::PIC_SLAVE, [9, 12], [0x81, 0x84])]
    {
        let (rig, mut cpus) = Rig::new(1);
        rig.start_pics();
        // Again, for automatic EOI.
        rig.write_pic(chip, 0x11);
        let (vectors, cascade) = if chip == platform::PIC_MASTER { (PIC_BASE, 4) } else { (PIC_BASE + 8, 2) };
        for word in [vectors, cascade, 0x03, 0x00] {
            rig.write_pic(chip + 1, word);
        }
        rig.route(0, edge(0x71, 0));
        let poll = || {
            rig.write_pic(chip, POLL);
            rig.read_pic(chip)
        };
        let mut lines = irqs.map(|irq| rig.isa_line(irq));
        lines.iter_mut().for_each(|line| line.set(true));
        assert_eq!(cpus[0].handle_all(), [0x71], "one rise for both");
        assert_eq!(poll(), answers[0]);
        assert_eq!(cpus[0].handle_all(), [0x71], "the second asks anew");
        assert_eq!(poll(), answers[1]);
        assert_eq!(poll(), 0);
        assert!(cpus[0].handle_all().is_empty(), "nothing more");
    }
}

/// A poll of the slave is no acknowledge of what the master itself asks for: the output stays high, and makes no edge.
///
/// Red with: a fall of the output at any poll.
#[test]
fn a_poll_of_the_slave_leaves_the_masters_own_request_as_it_is() {
    let (rig, mut cpus) = Rig::new(1);
    rig.start_pics();
    rig.route(0, edge(0x71, 0));
    let (mut own, mut behind) = (rig.isa_line(1), rig.isa_line(9));
    own.set(true);
    behind.set(true);
    assert_eq!(cpus[0].handle_all(), [0x71]);
    rig.write_pic(platform::PIC_SLAVE, POLL);
    assert_eq!(rig.read_pic(platform::PIC_SLAVE), 0x81);
    assert!(cpus[0].handle_all().is_empty());
}

/// The 8259A pair's output on both its ways, LINT0 and pin 0, as ExtINT: one request, one acknowledge.
///
/// Red with: two acknowledges for one request (a spurious IRQ 7 behind each interrupt).
#[test]
fn a_request_that_comes_by_lint0_and_by_pin_0_is_one_interrupt() {
    let (rig, mut cpus) = virtual_wire(1);
    rig.route(0, edge(0, 0).with_delivery_mode(DeliveryMode::ExtInt as u8));
    let mut line = rig.isa_line(4);
    for _ in 0..3 {
        line.set(true);
        assert_eq!(cpus[0].interrupt(), Some(PIC_BASE + 4));
        assert_eq!(cpus[0].interrupt(), None);
        line.set(false);
        rig.end_pic(4);
        assert_eq!(cpus[0].interrupt(), None);
    }
}

/// Red without: `lint0.rose` in `LocalApic::collect`.
#[test]
fn a_fixed_lint0_takes_each_rise_of_the_output_as_an_edge() {
    let (rig, mut cpus) = virtual_wire(1);
    cpus[0].write(reg::LVT_LINT0, Lvt::new().with_vector(0x71).into_bits());
    let mut line = rig.isa_line(0);
    for _ in 0..3 {
        line.set(true);
        assert_eq!(cpus[0].handle_all(), [0x71]);
        line.set(false);
    }
    line.set(true);
    line.set(false);
    assert_eq!(cpus[0].handle_all(), [0x71], "a short one too");
}

/// Red without: `Mode::Disabled` in `extint_pending`.
#[test]
fn without_a_local_apic_the_pic_reaches_the_processor_directly() {
    let (rig, mut cpus) = Rig::after_reset(1);
    rig.start_pics();
    let base = cpus[0].apic.base();
    cpus[0].write_msr(x86::msr::IA32_APIC_BASE, base & !x86::msr::ApicBase::ENABLE.bits());
    let mut line = rig.isa_line(4);
    line.set(true);
    assert_eq!(cpus[0].interrupt(), Some(PIC_BASE + 4));
    rig.end_pic(4);
    assert_eq!(cpus[0].interrupt(), None);
}
