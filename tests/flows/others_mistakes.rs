//! Mistakes that were found in other user-space and in-kernel interrupt controllers, one test each: what went wrong there
//! must go right here, through the whole path where it crosses parts.
//!
//! Two that need a processor are among the tiny guests: the gap between STI and HLT (`no_ipi_of_a_ping_pong_is_lost`,
//! halting), and the cost of an EOI exit for each interrupt (`an_edge_interrupt_costs_no_eoi_exit`). Deadlines that a host
//! swallows are the probe's and CPUID's business: see `only_what_was_seen_to_work_is_offered` here and `kvm::probe`. What a
//! paravirtual EOI may stand for is in `irqchip::lapic`'s own tests and models. That host kernels have crashed in this mode is
//! theirs to test; `tophalf doctor` says which kernel it is.

use irqchip::lapic::Mode;
use irqchip::mailbox::Wake;
use x86::apic::{DeliveryMode, Lvt, reg};
use x86::ioapic::{EOI, RedirectionEntry};
use x86::msr::{ApicBase, IA32_APIC_BASE, IA32_TSC_DEADLINE};
use x86::platform;

use crate::rig::{Cpu, PIC_BASE, Rig, edge, level};

const PIN: u8 = 10;
const VECTOR: u8 = 0x51;
const INIT: u32 = 5 << 8 | 1 << 14;
const START_UP: u32 = 6 << 8;

fn x2apic(cpu: &mut Cpu) {
    let base = cpu.apic.base() | ApicBase::X2APIC.bits();
    cpu.write_msr(IA32_APIC_BASE, base);
    cpu.write_msr(0x80f, 0x1ff);
}

fn remote_irr(rig: &Rig, pin: u8) -> bool {
    rig.entry(pin).remote_irr()
}

/// There: an index by the destination, its bounds checked and only logged. The machine died.
#[test]
fn an_ipi_to_an_apic_id_that_nobody_has_goes_nowhere() {
    let (_rig, mut cpus) = Rig::new(2);
    for destination in [2, 15, 16, 63, 64, 200, 254] {
        for low in [u32::from(VECTOR), 4 << 8, INIT, START_UP, 1 << 8 | u32::from(VECTOR)] {
            cpus[0].send(destination, low);
        }
    }
    x2apic(&mut cpus[0]);
    for destination in [2_u64, 254, 256, 0xfffe, 0x1_0000, 0x7fff_ffff, 0xffff_fffe] {
        cpus[0].write_msr(0x830, destination << 32 | u64::from(VECTOR));
        cpus[0].write_msr(0x830, destination << 32 | u64::from(INIT));
        cpus[0].write_msr(0x830, (destination & 0xfffe | 0xffff_0000) << 32 | 1 << 11 | u64::from(VECTOR));
    }
    for cpu in &mut cpus {
        assert_eq!(cpu.interrupt(), None);
        assert_eq!((cpu.log.nmis, cpu.log.inits), (0, 0));
    }
}

/// There: any destination format but the two allowed was "unreachable". The machine died.
#[test]
fn a_reserved_destination_format_matches_nothing_and_harms_nothing() {
    let (_rig, mut cpus) = Rig::new(2);
    for model in 1..15_u32 {
        cpus[1].write(reg::DFR, model << 28);
        cpus[0].send(0xfe, 1 << 11 | u32::from(VECTOR));
        assert_eq!(cpus[1].interrupt(), None, "model {model}");
    }
    cpus[1].write(reg::DFR, u32::MAX);
    cpus[0].send(0x02, 1 << 11 | u32::from(VECTOR));
    assert_eq!(cpus[1].handle(), Some(VECTOR));
}

/// There: every write of an entry's low half cleared remote IRR, so masking and unmasking in service sent it twice.
#[test]
fn masking_and_unmasking_in_service_sends_no_duplicate() {
    let (rig, mut cpus) = Rig::new(1);
    rig.route(PIN, level(VECTOR, 0));
    let mut line = rig.line(PIN);
    line.set(true);
    assert_eq!(cpus[0].interrupt(), Some(VECTOR));
    rig.route(PIN, level(VECTOR, 0).with_masked(true));
    assert!(remote_irr(&rig, PIN));
    rig.route(PIN, level(VECTOR, 0));
    cpus[0].collect();
    assert!(!cpus[0].apic.irr().contains(VECTOR), "requested twice");
    line.set(false);
    cpus[0].eoi();
    assert_eq!(cpus[0].interrupt(), None);
}

/// There: the ELCR took its value and-not its old value, and no mask: inputs 0, 1 and 2 became level triggered.
#[test]
fn the_elcr_takes_what_is_written_but_for_the_inputs_that_stay_edge() {
    let (rig, _cpus) = Rig::new(1);
    for value in [0xff, 0xff, 0x00, 0xaa, 0x55, 0x55] {
        rig.write_pic(platform::PIC_ELCR, value);
        rig.write_pic(platform::PIC_ELCR + 1, value);
        assert_eq!(rig.read_pic(platform::PIC_ELCR), value & 0xf8);
        assert_eq!(rig.read_pic(platform::PIC_ELCR + 1), value & 0xde);
    }
}

/// There: the 8259A pair interrupted vCPU 0 whatever its LVT entry for LINT0 said.
#[test]
fn the_pics_interrupts_wait_for_lint0_to_let_them_through() {
    let (rig, mut cpus) = Rig::new(1);
    rig.start_pics();
    let mut line = rig.isa_line(4);
    line.set(true);
    assert_eq!(cpus[0].interrupt(), None, "masked since reset");
    cpus[0].write(reg::LVT_LINT0, Lvt::new().with_delivery_mode(DeliveryMode::ExtInt as u8).into_bits());
    assert_eq!(cpus[0].interrupt(), Some(PIC_BASE + 4));
}

/// There: no IRQ 7, because the time between request and acknowledge is long in software. Where a message is latched,
/// hardware gives it too.
#[test]
fn a_latched_request_that_is_withdrawn_is_irq_7() {
    let (rig, mut cpus) = Rig::new(1);
    rig.start_pics();
    rig.route(0, edge(0, 0).with_delivery_mode(DeliveryMode::ExtInt as u8));
    let mut line = rig.isa_line(3);
    line.pulse();
    assert_eq!(cpus[0].interrupt(), Some(PIC_BASE + 7));
    assert_eq!(cpus[0].interrupt(), None, "and nothing is in service that would want an EOI");
    line.set(true);
    assert_eq!(cpus[0].interrupt(), Some(PIC_BASE + 3));
}

/// There: what other threads had posted was dropped while the APIC was software-disabled, and a vCPU hung.
#[test]
fn what_was_on_its_way_when_the_apic_was_disabled_is_held() {
    let (rig, mut cpus) = Rig::new(1);
    rig.route(PIN, edge(VECTOR, 0));
    rig.line(PIN).pulse();
    cpus[0].write(reg::SVR, 0xff);
    cpus[0].collect();
    assert!(cpus[0].apic.irr().contains(VECTOR));
    cpus[0].write(reg::SVR, 0x1ff);
    assert_eq!(cpus[0].handle(), Some(VECTOR));
}

/// There: a self-IPI and a timer's expiry were posted without a sign to look again.
#[test]
fn what_a_vcpu_sends_itself_is_found_at_its_next_look() {
    let (_rig, mut cpus) = Rig::new(1);
    x2apic(&mut cpus[0]);
    cpus[0].write_msr(0x83f, VECTOR.into());
    assert_eq!(cpus[0].apic.deliverable(), Some(VECTOR), "without a mailbox");
    assert_eq!(cpus[0].handle(), Some(VECTOR));
    cpus[0].write_msr(0x832, 0x61);
    cpus[0].write_msr(0x838, 100);
    cpus[0].expire(1_000_000);
    assert_eq!(cpus[0].apic.deliverable(), Some(0x61));
}

/// There: application processors began to wait for their start-up after the first could be sent.
#[test]
fn application_processors_wait_for_start_up_before_anybody_runs() {
    let (_rig, mut cpus) = Rig::after_reset(2);
    // No INIT at all, and nobody has looked yet.
    cpus[0].send(1, START_UP | 0x9a);
    cpus[1].collect();
    assert_eq!(cpus[1].log.start_ups, [0x9a]);
}

/// There: a start-up that came before the INIT had been taken was lost, and firmware waited for ever.
#[test]
fn a_start_up_behind_an_init_that_is_not_yet_taken_is_latched() {
    let (_rig, mut cpus) = Rig::after_reset(2);
    cpus[0].send(1, START_UP | 0x01);
    cpus[1].collect();
    cpus[0].send(1, INIT);
    cpus[0].send(1, START_UP | 0x9a);
    cpus[0].send(1, START_UP | 0x9b);
    cpus[1].collect();
    assert_eq!((cpus[1].log.inits, &cpus[1].log.start_ups[..]), (1, &[0x01, 0x9a][..]));
}

/// There: "something is pending" without a request bit was taken for a broken invariant.
#[test]
fn pending_with_nothing_there_is_no_error() {
    let (rig, mut cpus) = Rig::new(1);
    rig.route(PIN, edge(VECTOR, 0));
    rig.line(PIN).pulse();
    assert_eq!(cpus[0].handle(), Some(VECTOR));
    // A summary that says "look" where an earlier look has taken everything.
    rig.interrupts.processors().attention(0);
    assert!(cpus[0].mailbox().is_pending());
    assert_eq!(cpus[0].interrupt(), None);
}

/// There: the trigger mode was published beside the request; a vector that changed it while its target ran had a stale
/// one, and with it an EOI too few.
#[test]
fn a_vector_that_changes_its_trigger_mode_has_that_of_its_last_request() {
    let (rig, mut cpus) = Rig::new(1);
    let mut line = rig.line(PIN);
    for round in 0..4 {
        rig.route(PIN, edge(VECTOR, 0));
        line.set(true);
        assert_eq!(cpus[0].interrupt(), Some(VECTOR), "round {round}");
        line.set(false);
        assert!(!cpus[0].apic.tmr().contains(VECTOR));
        cpus[0].eoi();
        rig.route(PIN, level(VECTOR, 0));
        line.set(true);
        assert_eq!(cpus[0].interrupt(), Some(VECTOR), "round {round}");
        assert!(cpus[0].apic.tmr().contains(VECTOR));
        line.set(false);
        cpus[0].eoi();
        assert!(!remote_irr(&rig, PIN));
    }
}

/// There: the trigger mode was a bit in a second bitmap, and not always that of the request beside it. Here both ways at
/// once is a level: an EOI too many ends nothing, an EOI too few would leave a pin in service for ever.
#[test]
fn a_request_brings_its_trigger_mode_with_it() {
    let (rig, mut cpus) = Rig::new(1);
    for first in [PIN, PIN + 1] {
        rig.route(PIN, edge(VECTOR, 0));
        rig.route(PIN + 1, level(VECTOR, 0));
        let mut lines = [rig.line(first), rig.line(2 * PIN + 1 - first)];
        lines.iter_mut().for_each(|line| line.set(true));
        assert_eq!(cpus[0].interrupt(), Some(VECTOR), "one for both");
        assert!(cpus[0].apic.tmr().contains(VECTOR) && remote_irr(&rig, PIN + 1));
        lines.iter_mut().for_each(|line| line.set(false));
        cpus[0].eoi();
        assert!(!remote_irr(&rig, PIN + 1));
        assert_eq!(cpus[0].interrupt(), None);
    }
}

/// There: deliverability was not looked at again after an EOI, or after a TPR that went *up*.
#[test]
fn eoi_and_every_change_of_tpr_are_looked_at() {
    let (rig, mut cpus) = Rig::new(1);
    for (pin, vector) in [(PIN, 0x51), (PIN + 1, 0x61)] {
        rig.route(pin, edge(vector, 0));
    }
    rig.line(PIN + 1).pulse();
    assert_eq!(cpus[0].interrupt(), Some(0x61));
    rig.line(PIN).pulse();
    assert_eq!(cpus[0].interrupt(), None);
    cpus[0].write(reg::TPR, 0x60);
    cpus[0].eoi();
    assert_eq!(cpus[0].interrupt(), None, "TPR holds it now");
    assert!(cpus[0].apic.blocked_by_tpr());
    cpus[0].apic.set_cr8(5);
    assert_eq!(cpus[0].interrupt(), None);
    cpus[0].apic.set_cr8(4);
    assert_eq!(cpus[0].interrupt(), Some(0x51));
}

/// There: another thread judged by a vCPU's old TPR whether to kick it.
#[test]
fn posters_kick_whatever_the_targets_priority_looks_like() {
    let (rig, mut cpus) = Rig::new(2);
    cpus[1].write(reg::TPR, 0xff);
    assert_eq!(cpus[1].interrupt(), None);
    assert!(rig.interrupts.mailbox(1).halt());
    cpus[0].send(1, VECTOR.into());
    assert_eq!(rig.interrupts.mailbox(1).wake(), Wake::Nobody, "it is awake");
    cpus[1].write(reg::TPR, 0);
    assert_eq!(cpus[1].handle(), Some(VECTOR));
}

/// There: INIT went back to xAPIC mode, or lost the ID.
#[test]
fn init_keeps_mode_and_id() {
    let (_rig, mut cpus) = Rig::new(2);
    x2apic(&mut cpus[1]);
    let (base, id) = (cpus[1].apic.base(), cpus[1].apic.address().id);
    cpus[0].send(1, INIT);
    cpus[1].collect();
    assert_eq!((cpus[1].apic.mode(), cpus[1].apic.base()), (Mode::X2Apic, base));
    assert_eq!(cpus[1].apic.address().id, id);
    assert!(!cpus[1].apic.address().enabled);
}

/// There: with an offset between host and guest TSC, a deadline that computed to 0 disarmed; and what had fired still
/// read as armed.
#[test]
fn tsc_deadlines_disarm_by_the_guests_zero_and_read_zero_once_fired() {
    let (_rig, mut cpus) = Rig::new(1);
    cpus[0].write(reg::LVT_TIMER, 1 << 18 | u32::from(VECTOR));
    for deadline in [1, 1_000, u64::MAX] {
        cpus[0].write_msr(IA32_TSC_DEADLINE, deadline);
        assert_eq!(cpus[0].apic.read_msr(0, IA32_TSC_DEADLINE), Ok(deadline));
    }
    cpus[0].write_msr(IA32_TSC_DEADLINE, 0);
    assert_eq!(cpus[0].apic.next_deadline(), None);
    cpus[0].write_msr(IA32_TSC_DEADLINE, 1);
    cpus[0].expire(5);
    assert_eq!(cpus[0].apic.read_msr(0, IA32_TSC_DEADLINE), Ok(0));
    assert_eq!(cpus[0].handle(), Some(VECTOR));
}

/// There: the pin was looked at with its old entry.
#[test]
fn an_entry_is_stored_before_its_pin_is_looked_at() {
    let (rig, mut cpus) = Rig::new(1);
    let mut line = rig.line(PIN);
    line.set(true);
    rig.route(PIN, level(VECTOR, 0));
    assert_eq!(cpus[0].interrupt(), Some(VECTOR), "by the very write that unmasks it");
    line.set(false);
    cpus[0].eoi();
    line.set(true);
    rig.route(PIN, level(VECTOR, 0).with_masked(true));
    assert!(cpus[0].interrupt().is_some(), "was sent before it was masked");
}

/// There: an EOI was counted down for a vector, whoever had it.
#[test]
fn one_vector_on_two_pins_and_two_vcpus_ends_what_is_in_service() {
    let (rig, mut cpus) = Rig::new(2);
    rig.route(PIN, level(VECTOR, 0));
    rig.route(PIN + 1, level(VECTOR, 1));
    let (mut first, mut second) = (rig.line(PIN), rig.line(PIN + 1));
    first.set(true);
    assert_eq!(cpus[0].interrupt(), Some(VECTOR));
    first.set(false);
    cpus[0].eoi();
    assert!(!remote_irr(&rig, PIN));
    second.set(true);
    assert_eq!(cpus[1].interrupt(), Some(VECTOR));
    assert!(remote_irr(&rig, PIN + 1));
    second.set(false);
    cpus[1].eoi();
    assert!(!remote_irr(&rig, PIN + 1));
    // And EOIs for nothing in service do nothing.
    rig.write_ioapic_window(EOI, VECTOR.into());
    assert_eq!((cpus[0].interrupt(), cpus[1].interrupt()), (None, None));
}

/// There: a guest that ends before it quiets its device got the interrupt again at once, for ever.
#[test]
fn endless_refiring_at_the_eoi_is_damped() {
    let (rig, mut cpus) = Rig::new(1);
    rig.route(PIN, level(VECTOR, 0));
    let mut line = rig.line(PIN);
    line.set(true);
    let fires = std::iter::from_fn(|| cpus[0].handle()).take(1_000_000).count();
    assert!((10_000..10_100).contains(&fires), "{fires} times");
    assert!(rig.entry(PIN).delivery_status(), "it is not forgotten");
    line.set(false);
    line.set(true);
    assert_eq!(cpus[0].handle(), Some(VECTOR), "a guest that quiets its device is not held back");
}

/// There: an interrupt in service whose entry was given another vector or target was never ended.
#[test]
fn an_entry_rerouted_in_service_is_ended_by_the_old_vector() {
    let (rig, mut cpus) = Rig::new(2);
    rig.route(PIN, level(VECTOR, 0));
    let mut line = rig.line(PIN);
    line.set(true);
    assert_eq!(cpus[0].interrupt(), Some(VECTOR));
    rig.route(PIN, level(0x62, 1));
    assert_eq!(cpus[1].interrupt(), None, "still in service at the other");
    cpus[0].eoi();
    assert_eq!(cpus[1].handle(), Some(0x62), "still asserted: to its new target");
    line.set(false);
}

/// There: EOI-broadcast suppression was offered and not done.
#[test]
fn suppressed_eois_reach_the_ioapic_by_its_own_register_only() {
    let (rig, mut cpus) = Rig::new(1);
    let mut version = [0; 4];
    cpus[0].apic.read_mmio(0, reg::VERSION.into(), &mut version);
    assert!(u32::from_le_bytes(version) & 1 << 24 != 0, "offered");
    assert_eq!(rig.read_ioapic(1) & 0xff, 0x20, "by an I/O APIC that has the register");
    cpus[0].write(reg::SVR, 0x11ff);
    rig.route(PIN, level(VECTOR, 0));
    let mut line = rig.line(PIN);
    line.set(true);
    assert_eq!(cpus[0].handle(), Some(VECTOR));
    assert_eq!(cpus[0].interrupt(), None, "not told, so not fired again");
    assert!(remote_irr(&rig, PIN));
    rig.write_ioapic_window(EOI, VECTOR.into());
    assert_eq!(cpus[0].interrupt(), Some(VECTOR));
    line.set(false);
}

/// There: an EOI went to the I/O APIC by another thread, and a vCPU read its own entry as in service still.
#[test]
fn an_eoi_is_done_when_its_write_is() {
    let (rig, mut cpus) = Rig::new(1);
    rig.route(PIN, level(VECTOR, 0));
    let mut line = rig.line(PIN);
    for _ in 0..100 {
        line.set(true);
        assert_eq!(cpus[0].interrupt(), Some(VECTOR));
        line.set(false);
        assert!(remote_irr(&rig, PIN));
        cpus[0].eoi();
        assert!(!remote_irr(&rig, PIN));
    }
}

/// There: a line that fell and rose again between the handler and its EOI was not sent again.
#[test]
fn a_line_raised_again_before_the_eoi_fires_after_it() {
    let (rig, mut cpus) = Rig::new(1);
    rig.route(PIN, level(VECTOR, 0));
    let mut line = rig.line(PIN);
    line.set(true);
    assert_eq!(cpus[0].interrupt(), Some(VECTOR));
    line.set(false);
    line.set(true);
    assert_eq!(cpus[0].interrupt(), None, "not while it is in service");
    cpus[0].eoi();
    assert_eq!(cpus[0].interrupt(), Some(VECTOR));
    line.set(false);
    cpus[0].eoi();
    assert_eq!(cpus[0].interrupt(), None);
}

/// There: a level that had been raised while masked was not looked at when it was unmasked.
#[test]
fn an_asserted_level_fires_when_it_is_unmasked() {
    let (rig, mut cpus) = Rig::new(1);
    rig.route(PIN, level(VECTOR, 0).with_masked(true));
    let _line = {
        let mut line = rig.line(PIN);
        line.set(true);
        line
    };
    assert_eq!(cpus[0].interrupt(), None);
    rig.route(PIN, level(VECTOR, 0));
    assert_eq!(cpus[0].interrupt(), Some(VECTOR));
}

/// There: of several pins with one vector, the first was fired again before the others' remote IRR was cleared, and the
/// new request was taken for the one that was ending.
#[test]
fn all_pins_of_a_shared_vector_are_ended_before_one_fires_again() {
    let (rig, mut cpus) = Rig::new(1);
    let mut lines = [PIN, PIN + 1, PIN + 2].map(|pin| {
        rig.route(pin, level(VECTOR, 0));
        let mut line = rig.line(pin);
        line.set(true);
        line
    });
    assert_eq!(cpus[0].interrupt(), Some(VECTOR));
    lines[1].set(false);
    cpus[0].eoi();
    let in_service: Vec<_> = (PIN..PIN + 3).map(|pin| remote_irr(&rig, pin)).collect();
    assert_eq!(in_service, [true, false, true]);
    lines.iter_mut().for_each(|line| line.set(false));
    assert_eq!(cpus[0].handle(), Some(VECTOR), "requested when they still asked");
    assert_eq!(cpus[0].interrupt(), None);
    assert!((PIN..PIN + 3).all(|pin| !remote_irr(&rig, pin)));
}

/// There: whether a vCPU has something to do was asked of the software enable.
#[test]
fn what_is_requested_is_delivered_even_if_the_apic_was_software_disabled_since() {
    let (rig, mut cpus) = Rig::new(1);
    rig.route(PIN, edge(VECTOR, 0));
    rig.line(PIN).pulse();
    cpus[0].collect();
    cpus[0].write(reg::SVR, 0xff);
    assert_eq!(cpus[0].apic.deliverable(), Some(VECTOR));
    assert_eq!(cpus[0].handle(), Some(VECTOR));
}

/// There: after a long stop all missed periods were replayed, and the guest locked up in its timer's handler.
#[test]
fn a_stop_costs_one_tick_and_keeps_the_phase() {
    let (_rig, mut cpus) = Rig::new(1);
    cpus[0].write(reg::TIMER_DIVIDE, 0b1011);
    cpus[0].write(reg::LVT_TIMER, 1 << 17 | u32::from(VECTOR));
    cpus[0].write(reg::TIMER_INITIAL, 1_000_000);
    cpus[0].expire(3_600_000_000_500);
    assert_eq!(cpus[0].handle(), Some(VECTOR));
    cpus[0].expire(3_600_000_000_900);
    assert_eq!(cpus[0].interrupt(), None, "one for all");
    cpus[0].expire(3_600_001_000_000);
    assert_eq!(cpus[0].handle(), Some(VECTOR), "in phase");
}

/// There: a guest was told of a paravirtual feature or a timer mode whose registers never came to the program.
#[test]
fn only_what_was_seen_to_work_is_offered() {
    let supported = [
        kvm::bindings::kvm_cpuid_entry2 { function: 1, ecx: u32::MAX, ..Default::default() },
        kvm::bindings::kvm_cpuid_entry2 { function: 0x4000_0001, eax: u32::MAX, ..Default::default() },
    ];
    let config = kvm::cpuid::CpuidConfig {
        apic_id: 0,
        cpus: 1,
        max_apic_id: 0,
        x2apic: false,
        tsc_deadline: false,
        pv_eoi: false,
        invariant_tsc: false,
        paravirtual: kvm::cpuid::Paravirtual::WithoutLocalApic,
        ext_destination: false,
    };
    let table = kvm::cpuid::table(&supported, &config);
    let leaf = |function: u32| table.iter().find(|e| e.function == function).expect("there");
    assert_eq!(leaf(1).ecx & (1 << 21 | 1 << 24), 0, "x2APIC, TSC deadline");
    // Asynchronous page faults (4, 10, 14), PV EOI (6), unhalt (7), send IPI (11), yield (13).
    assert_eq!(leaf(0x4000_0001).eax & 0b0110_1100_1101_0000, 0);
}

/// There: an event to itself erased the start-up that had come meanwhile. An INIT undoes only what came before it.
#[test]
fn an_init_undoes_a_start_up_before_it_and_none_after() {
    let (_rig, mut cpus) = Rig::after_reset(2);
    cpus[0].send(1, START_UP | 0x11);
    cpus[0].send(1, INIT);
    cpus[1].collect();
    assert_eq!((cpus[1].log.inits, cpus[1].log.start_ups.len()), (1, 0));
    cpus[0].send(1, START_UP | 0x12);
    cpus[1].collect();
    assert_eq!(cpus[1].log.start_ups, [0x12]);
}

/// There: NMIs were counted without bound. One is taken, and one latched.
#[test]
fn nmis_merge_into_the_one_that_is_taken_and_the_one_that_is_latched() {
    let (_rig, mut cpus) = Rig::new(2);
    (0..1_000).for_each(|_| cpus[0].send(1, 4 << 8));
    cpus[1].collect();
    assert_eq!(cpus[1].log.nmis, 2);
    cpus[0].send(1, 4 << 8);
    cpus[1].collect();
    assert_eq!(cpus[1].log.nmis, 3);
}

/// There: a level-triggered LINT pin was refused, or an EOI suppressed for the I/O APIC left it dead.
#[test]
fn a_level_lint0_asks_again_after_a_suppressed_eoi() {
    let (rig, mut cpus) = Rig::new(1);
    rig.start_pics();
    cpus[0].write(reg::SVR, 0x11ff);
    cpus[0].write(reg::LVT_LINT0, 1 << 15 | u32::from(VECTOR));
    let mut line = rig.isa_line(4);
    line.set(true);
    for _ in 0..3 {
        assert_eq!(cpus[0].handle(), Some(VECTOR));
    }
    line.set(false);
    assert_eq!(cpus[0].handle(), Some(VECTOR), "requested when the pin was high");
    assert_eq!(cpus[0].interrupt(), None);
}

/// There: saved without the levels of the lines, a chip never saw the fall of one that was high.
#[test]
fn a_snapshot_has_the_levels_of_the_lines() {
    let mut sink = |_: &irqchip::Message| irqchip::Accepted::Yes;
    let mut chip = irqchip::ioapic::IoApic::new(0);
    chip.set_line(PIN, true, &mut sink);
    let mut restored = irqchip::ioapic::IoApic::restore(0, &chip.save()).expect("what was saved");
    assert_eq!(restored.line(PIN), Some(true));
    let entry = RedirectionEntry::new().with_vector(VECTOR).into_bits() as u32;
    restored.write(0, 0, &[0x10 + 2 * PIN], &mut sink);
    let mut sent = 0;
    restored.write(0, 0x10, &entry.to_le_bytes(), &mut |_: &irqchip::Message| {
        sent += 1;
        irqchip::Accepted::Yes
    });
    restored.set_line(PIN, true, &mut |_: &irqchip::Message| {
        sent += 1;
        irqchip::Accepted::Yes
    });
    assert_eq!(sent, 0, "high before and after: no edge");
}
