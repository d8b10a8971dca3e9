//! Between vCPUs: fixed IPIs and their shorthands, NMI, INIT and start-up.

use x86::apic::reg;
use x86::msr::{APIC_BASE_ADDR_MASK, ApicBase, IA32_APIC_BASE};

use crate::rig::{Cpu, Log, Rig, edge};

const VECTOR: u32 = 0x81;
const NMI: u32 = 4 << 8;
const INIT: u32 = 5 << 8 | 1 << 14;
const START_UP: u32 = 6 << 8;
const LOGICAL: u32 = 1 << 11;
const MYSELF: u32 = 1 << 18;
const ALL: u32 = 2 << 18;
const ALL_BUT_SELF: u32 = 3 << 18;

/// Who has the interrupt; takes and ends it.
fn takers(cpus: &mut [Cpu]) -> Vec<usize> {
    let took = |cpu: &mut Cpu| (cpu.handle_all() == [VECTOR as u8]).then_some(cpu.index);
    cpus.iter_mut().filter_map(took).collect()
}

/// Red without: any arm of `in_scope` in `ApicBus::send_ipi`; `accept_own` for the self shorthand; the sender's own copy
/// going into its IRR.
#[test]
fn shorthands_and_destinations_reach_exactly_whom_they_name() {
    let (_rig, mut cpus) = Rig::new(4);
    for (destination, low, expected) in [
        (2, 0, &[2][..]),
        (1, 0, &[1]),
        (0, MYSELF, &[1]),
        (3, ALL, &[0, 1, 2, 3]),
        (1, ALL_BUT_SELF, &[0, 2, 3]),
        (0xff, 0, &[0, 1, 2, 3]),
        (0x09, LOGICAL, &[0, 3]),
        (0xff, LOGICAL, &[0, 1, 2, 3]),
        (9, 0, &[]),
        (0x10, LOGICAL, &[]),
    ] {
        cpus[1].send(destination, VECTOR | low);
        assert_eq!(takers(&mut cpus), expected, "to {destination:#x}, {low:#x}");
    }
}

/// Red without: the 32-bit destination in `LocalApic::write_msr`; the SELF IPI register.
#[test]
fn x2apic_ipis_go_out_in_one_write() {
    let (_rig, mut cpus) = Rig::new(4);
    for cpu in &mut cpus {
        let base = cpu.apic.base() & (APIC_BASE_ADDR_MASK | ApicBase::BSP.bits());
        cpu.write_msr(IA32_APIC_BASE, base | (ApicBase::ENABLE | ApicBase::X2APIC).bits());
    }
    let icr = |destination: u64, low: u32| destination << 32 | u64::from(VECTOR | low);
    for (value, expected) in [
        (icr(3, 0), &[3][..]),
        (icr(0xffff_ffff, 0), &[0, 1, 2, 3]),
        (icr(0x6, LOGICAL), &[1, 2]),
        (icr(0x1_0001, LOGICAL), &[]),
        (icr(0, ALL_BUT_SELF), &[1, 2, 3]),
    ] {
        cpus[0].write_msr(0x830, value);
        assert_eq!(takers(&mut cpus), expected, "{value:#x}");
    }
    cpus[0].write_msr(0x83f, VECTOR.into());
    assert_eq!(takers(&mut cpus), [0]);
}

/// Red without: `Mailbox::post_nmi`, its bit in `take`, or the exemption from software enable in `ApicBus::deliver`.
#[test]
fn an_nmi_reaches_even_a_software_disabled_apic() {
    let (_rig, mut cpus) = Rig::new(3);
    cpus[2].write(reg::SVR, 0xff);
    cpus[0].send(0, NMI | ALL_BUT_SELF);
    cpus[0].send(0, VECTOR | ALL_BUT_SELF);
    for cpu in &mut cpus {
        cpu.collect();
    }
    assert_eq!([0, 1, 2].map(|cpu: usize| cpus[cpu].log.nmis), [0, 1, 1]);
    assert_eq!(takers(&mut cpus), [1], "an interrupt does not");
}

/// Red without: INIT opening the door in `Mailbox::post_start_up`; the order of INIT and start-up in `take`; the check
/// for a latched one in `post_start_up`.
#[test]
fn init_and_start_up_may_come_in_one_breath() {
    let (_rig, mut cpus) = Rig::after_reset(2);
    cpus[0].write(reg::SVR, 0x1ff);
    cpus[0].send(1, START_UP | 0x99);
    cpus[1].collect();
    assert!(!cpus[1].waiting, "it waited from the start");
    cpus[0].send(1, INIT);
    cpus[0].send(1, START_UP | 0x9a);
    cpus[0].send(1, START_UP | 0x9b);
    cpus[1].collect();
    assert_eq!(cpus[1].log, Log { nmis: 0, inits: 1, start_ups: vec![0x99, 0x9a] });
    assert!(!cpus[1].waiting);
    cpus[0].send(1, START_UP | 0x9c);
    cpus[1].collect();
    assert_eq!(cpus[1].log.start_ups, [0x99, 0x9a], "a processor that runs takes no start-up");
}

/// Red without: `LocalApic::init` clearing SVR; the readdress after INIT.
#[test]
fn init_puts_a_running_processor_back_to_where_it_waits() {
    let (rig, mut cpus) = Rig::new(2);
    rig.route(5, edge(VECTOR as u8, 1));
    cpus[0].send(1, START_UP | 0x10);
    cpus[0].send(1, VECTOR);
    assert_eq!(cpus[1].interrupt(), Some(VECTOR as u8));
    cpus[0].send(1, INIT);
    cpus[1].collect();
    assert!(cpus[1].waiting && cpus[1].apic.isr().is_empty());
    rig.line(5).pulse();
    cpus[0].send(1, VECTOR);
    assert_eq!(cpus[1].interrupt(), None, "software-disabled by INIT");
    cpus[0].send(1, START_UP | 0x20);
    cpus[1].collect();
    assert_eq!(cpus[1].log, Log { nmis: 0, inits: 1, start_ups: vec![0x10, 0x20] });
}

/// Red without: APPLICATION in `Mailbox::post_start_up`.
#[test]
fn the_bootstrap_processor_takes_init_but_no_start_up() {
    let (_rig, mut cpus) = Rig::new(2);
    cpus[1].send(0, START_UP | 0x30);
    cpus[0].collect();
    assert_eq!(cpus[0].log, Log::default());
    cpus[1].send(0, INIT);
    cpus[1].send(0, START_UP | 0x30);
    cpus[0].collect();
    assert_eq!(cpus[0].log, Log { nmis: 0, inits: 1, start_ups: vec![] });
}

/// Red without: `timer.expire` in `LocalApic::expire`, or the priority check in `deliverable`.
#[test]
fn the_timer_and_an_ipi_come_in_the_order_of_their_priorities() {
    let (_rig, mut cpus) = Rig::new(2);
    cpus[1].write(reg::LVT_TIMER, 0x91);
    cpus[1].write(reg::TIMER_DIVIDE, 0b1011);
    cpus[1].write(reg::TIMER_INITIAL, 1000);
    cpus[0].send(1, VECTOR);
    cpus[1].expire(999);
    assert_eq!(cpus[1].interrupt(), Some(VECTOR as u8));
    cpus[1].expire(1000);
    assert_eq!(cpus[1].interrupt(), Some(0x91), "of a higher class: nests");
    cpus[0].send(1, VECTOR);
    assert_eq!(cpus[1].interrupt(), None);
    cpus[1].eoi();
    assert_eq!(cpus[1].interrupt(), None, "the first is still in service");
    cpus[1].eoi();
    assert_eq!(cpus[1].handle_all(), [VECTOR as u8]);
}
