//! KVM's own chips with a guest in real mode, whose local APIC is in x2APIC mode: its registers are within reach there.

use iced_x86::code_asm::*;
use x86::msr::{ApicBase, IA32_APIC_BASE, X2APIC_FIRST};
use x86::platform::LAPIC_BASE;

use super::*;
use crate::testing::{Guest, guest_in};
use crate::{Exit, MpState};

const VECTOR: u8 = 0x40;
const HANDLER: u64 = 0x2000;
const PORT: u16 = 0x80;
const LEVEL: u32 = 1 << 15 | 1 << 14;

/// To the local APIC with this ID.
fn msi(id: u32, data: u32) -> Msi {
    Msi { address: u64::from(id >> 8) << 40 | 0xfee0_0000 | u64::from(id & 0xff) << 12, data }
}

fn write_msr(a: &mut CodeAssembler, index: u32, value: u32) {
    a.mov(ecx, index).unwrap();
    a.mov(eax, value).unwrap();
    a.xor(edx, edx).unwrap();
    a.wrmsr().unwrap();
}

/// A guest that halts, and whose handler of [`VECTOR`] writes to [`PORT`] and sends its EOI.
fn halting(prepare: impl FnOnce(&Vm)) -> Option<Guest> {
    let guest = guest_in(prepare, |a| {
        let base = LAPIC_BASE as u32 | (ApicBase::ENABLE | ApicBase::BSP | ApicBase::X2APIC).bits() as u32;
        write_msr(a, IA32_APIC_BASE, base);
        write_msr(a, X2APIC_FIRST + 0xf, 0x1ff);
        a.sti().unwrap();
        // "Ready": from here on it takes interrupts.
        a.out(u32::from(PORT), al).unwrap();
        let mut top = a.create_label();
        a.set_label(&mut top).unwrap();
        a.hlt().unwrap();
        a.jmp(top).unwrap();
    })?;
    guest.load(HANDLER, |a| {
        a.mov(al, 0x55).unwrap();
        a.out(u32::from(PORT), al).unwrap();
        write_msr(a, X2APIC_FIRST + 0xb, 0);
        a.iret().unwrap();
    });
    guest.set_vector(VECTOR, HANDLER);
    Some(guest)
}

/// What a guest does next that is to be seen from here.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Out(u8),
    Eoi(u8),
}

fn next(guest: &mut Guest) -> Seen {
    loop {
        match guest.vcpu.run().unwrap() {
            Exit::PioOut { port: PORT, data, .. } => return Seen::Out(data[0]),
            Exit::IoApicEoi { vector } => return Seen::Eoi(vector),
            Exit::Interrupted | Exit::InterruptWindow => {}
            other => panic!("{other:?}"),
        }
    }
}

fn split(vm: &Vm) {
    vm.create_local_apics(24).unwrap();
    vm.use_32_bit_apic_ids(false).unwrap();
}

#[test]
fn the_eoi_of_a_level_message_exits_if_it_has_a_route_and_another_does_not() {
    let Some(mut guest) = halting(split) else { return };
    assert_eq!(next(&mut guest), Seen::Out(0xff));
    let level = msi(0, LEVEL | u32::from(VECTOR));
    guest.vm.set_routes([(3, Route::Msi(level))]).unwrap();
    assert!(guest.vm.send_msi(level).unwrap());
    assert_eq!(next(&mut guest), Seen::Out(0x55));
    assert_eq!(next(&mut guest), Seen::Eoi(VECTOR));

    guest.vm.set_routes([]).unwrap();
    for _ in 0..2 {
        assert!(guest.vm.send_msi(level).unwrap());
        assert_eq!(next(&mut guest), Seen::Out(0x55), "the EOI before had no route");
    }
}

/// Red when: a GSI's route is not the one that counts at the time of the write.
#[test]
fn an_event_is_the_message_of_its_route() {
    const OTHER: u8 = VECTOR + 0x10;
    let Some(mut guest) = halting(|vm| vm.create_irqchip().unwrap()) else { return };
    guest.load(0x3000, |a| {
        a.mov(al, 0x66).unwrap();
        a.out(u32::from(PORT), al).unwrap();
        write_msr(a, X2APIC_FIRST + 0xb, 0);
        a.iret().unwrap();
    });
    guest.set_vector(OTHER, 0x3000);
    assert_eq!(next(&mut guest), Seen::Out(0xff));
    let event = EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK).unwrap();
    guest.vm.connect_irq(&event, 24).unwrap();
    for (vector, seen) in [(VECTOR, 0x55), (OTHER, 0x66), (VECTOR, 0x55)] {
        guest.vm.set_routes([(24, Route::Msi(msi(0, vector.into())))]).unwrap();
        event.write(1).unwrap();
        assert_eq!(next(&mut guest), Seen::Out(seen));
    }
    guest.vm.disconnect_irq(&event, 24).unwrap();
    event.write(1).unwrap();
    assert_eq!(event.read().unwrap(), 1, "nobody takes it any more");
}

#[test]
fn a_message_to_nobody_is_no_error() {
    let Some(mut guest) = halting(split) else { return };
    assert!(!guest.vm.send_msi(msi(0, u32::from(VECTOR))).unwrap(), "its local APIC is not enabled yet");
    assert_eq!(next(&mut guest), Seen::Out(0xff));
    assert!(!guest.vm.send_msi(msi(5, u32::from(VECTOR))).unwrap());
    assert!(!guest.vm.send_msi(msi(0x100, u32::from(VECTOR))).unwrap(), "256 is not 0");
    assert!(guest.vm.send_msi(msi(0, u32::from(VECTOR))).unwrap());
}

#[test]
fn an_external_interrupt_gets_in_by_lint0_once_the_guest_is_ready() {
    let Some(mut guest) = halting(split) else { return };
    assert!(guest.vcpu.give_external_interrupt(VECTOR).is_err(), "it has never run");
    assert_eq!(next(&mut guest), Seen::Out(0xff));
    // Out of its HLT.
    guest.vcpu.set_immediate_exit(true);
    assert!(matches!(guest.vcpu.run().unwrap(), Exit::Interrupted));
    guest.vcpu.set_immediate_exit(false);
    assert!(guest.vcpu.ready_for_interrupt(), "LINT0 is open after reset: ExtINT, KVM's old quirk");
    guest.vcpu.give_external_interrupt(VECTOR).unwrap();
    assert!(guest.vcpu.give_external_interrupt(VECTOR).is_err(), "one at a time");
    assert_eq!(next(&mut guest), Seen::Out(0x55));
}

/// The 8259A pair of KVM serves its inputs from the start, its vectors from 0 up.
#[test]
fn a_line_reaches_the_input_that_its_route_names_unless_that_is_masked() {
    for masked in [false, true] {
        let prepare = |vm: &Vm| {
            vm.create_irqchip().unwrap();
            vm.set_routes([(2, Route::PicMaster(6)), (2, Route::IoApic(2))]).unwrap();
            if masked {
                vm.mask_pics().unwrap();
            }
        };
        let Some(mut guest) = halting(prepare) else { return };
        guest.load(0x3000, |a| {
            a.mov(al, 6).unwrap();
            a.out(u32::from(PORT), al).unwrap();
            a.hlt().unwrap();
        });
        guest.set_vector(6, 0x3000);
        assert_eq!(next(&mut guest), Seen::Out(0xff));
        guest.vm.set_line(2, true).unwrap();
        // Behind it, and of lower priority than the pair.
        assert!(guest.vm.send_msi(msi(0, u32::from(VECTOR))).unwrap());
        assert_eq!(next(&mut guest), Seen::Out(if masked { 0x55 } else { 6 }));
    }
}

#[test]
fn the_local_apic_keeps_what_is_set() {
    const SVR: u32 = 0xf0;
    let Some(mut guest) = halting(split) else { return };
    let mut page = guest.vcpu.lapic().unwrap();
    assert_eq!(page.register(SVR), 0xff, "after reset");
    page.set_register(SVR, 0x1fe);
    guest.vcpu.set_lapic(&page).unwrap();
    assert_eq!(guest.vcpu.lapic().unwrap().register(SVR), 0x1fe);
    assert_eq!(page.register(0x4000), 0, "beyond the page");
    page.set_register(0x4000, 1);
}

#[test]
fn each_8259a_keeps_what_is_set_and_the_io_apic_shows_its_table() {
    let Some(kvm) = crate::testing::kvm() else { return };
    let vm = kvm.create_vm().unwrap();
    vm.create_irqchip().unwrap();
    let before = vm.pic(PicChip::Slave).unwrap();
    vm.set_pic(PicChip::Master, &kvm_pic_state { imr: 0x5a, irq_base: 0x30, ..vm.pic(PicChip::Master).unwrap() })
        .unwrap();
    let master = vm.pic(PicChip::Master).unwrap();
    assert_eq!((master.imr, master.irq_base), (0x5a, 0x30));
    assert_eq!(vm.pic(PicChip::Slave).unwrap(), before, "the other one is as it was");
    let ioapic = vm.ioapic().unwrap();
    assert_eq!((ioapic.id, ioapic.select, ioapic.entries), (0, 0, [1 << 16; 24]), "after reset all pins are masked");
}

#[test]
fn a_processor_that_waits_can_be_made_to_run() {
    let Some(kvm) = crate::testing::kvm() else { return };
    let vm = kvm.create_vm().unwrap();
    split(&vm);
    let _boot = vm.create_vcpu(0).unwrap();
    let mut other = vm.create_vcpu(1).unwrap();
    assert_eq!(other.mp_state().unwrap(), MpState::Uninitialized);
    other.set_runnable().unwrap();
    assert_eq!(other.mp_state().unwrap(), MpState::Runnable);
}

#[test]
fn the_boot_processor_is_the_one_that_was_named() {
    let Some(kvm) = crate::testing::kvm() else { return };
    let vm = kvm.create_vm().unwrap();
    split(&vm);
    vm.set_boot_cpu(7).unwrap();
    let states = [3, 7].map(|id| vm.create_vcpu(id).unwrap().mp_state().unwrap());
    assert_eq!(states, [MpState::Uninitialized, MpState::Runnable]);
}

#[test]
fn a_host_without_a_mode_says_what_to_do() {
    let Some(kvm) = crate::testing::kvm() else { return };
    for result in [kvm.check_irqchip(), kvm.check_split_irqchip()] {
        if let Err(e) = result {
            assert_eq!(e.remedy(), Some("use --irqchip user"));
        }
    }
    assert!(kvm.max_vcpu_ids() >= 1);
}
