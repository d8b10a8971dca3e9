use super::*;

/// A guest that runs `code`, and its machine, or `None` without KVM.
fn trial(code: &[u8]) -> Option<(Machine, Trial)> {
    let mut machine = Machine::new(&crate::testing::kvm()?, &[]).unwrap();
    let trial = machine.start(code, PATIENCE).unwrap();
    Some((machine, trial))
}

#[test]
fn this_host_gives_an_answer_and_it_is_the_same_twice() {
    let Some(kvm) = crate::testing::kvm() else { return };
    let first = HostFeatures::probe(&kvm).unwrap();
    println!("{first:?}");
    assert_eq!(HostFeatures::probe(&kvm).unwrap(), first);
    assert!(first.apic_base_filter && first.x2apic, "every KVM with MSR filters does these: {first:?}");
    assert!(first.pv_eoi, "no fast path takes this MSR before the filter: {first:?}");
    assert_eq!(first.sync_regs, kvm.has_sync_regs());
}

#[test]
fn a_guest_that_never_comes_out_is_ended_by_the_timer() {
    // jmp $
    let Some((_machine, mut trial)) = trial(&[0xeb, 0xfe]) else { return };
    trial.deadline = monotonic_ns() + 5_000_000;
    let deadline = trial.deadline;
    assert_eq!(trial.next(0).unwrap(), Event::Lost);
    assert!(monotonic_ns() >= deadline);
}

#[test]
fn a_guest_that_dies_is_lost() {
    // lidt of an empty table, then ud2: triple fault.
    let Some((_machine, mut trial)) = trial(&[0x0f, 0x01, 0x1e, 0x00, 0x20, 0x0f, 0x0b]) else { return };
    assert_eq!(trial.next(0).unwrap(), Event::Lost);
}
