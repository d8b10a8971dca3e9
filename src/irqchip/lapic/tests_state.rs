//! Snapshots: what is no state of a local APIC is refused. That a restored one has the same future is the reference
//! drivers' and the properties' business.

use x86::apic::reg;

use super::tests::*;
use super::*;

fn refused(change: impl FnOnce(&mut State)) {
    let mut state = xapic().save();
    change(&mut state);
    assert!(LocalApic::restore(config(), &state).is_err(), "{state:x?}");
}

#[test]
fn a_snapshot_restores_what_was_saved() {
    let mut apic = xapic();
    let _ = write(&mut apic, reg::LVT_TIMER, 0x2_0041);
    let _ = write(&mut apic, reg::TIMER_INITIAL, 1_000_000);
    let _ = write(&mut apic, reg::LVT_LINT0, 1 << 15 | 0x51);
    apic.set_lint(0, true);
    service(&mut apic, 0x61, LEVEL);
    apic.accept(0x31, EDGE);
    assert_eq!(LocalApic::restore(config(), &apic.save()), Ok(apic));
}

#[test]
fn states_that_cannot_be_are_refused() {
    refused(|s| s.base = 0);
    refused(|s| s.base = 0xfee0_0400 | BSP);
    refused(|s| s.base |= 1);
    refused(|s| s.base |= 1 << 45);
    refused(|s| s.svr |= 1 << 13);
    refused(|s| s.svr = 0xff | 1 << 10);
    refused(|s| {
        s.lvt[5] &= !MASKED;
        s.svr = 0xff;
    });
    refused(|s| s.lvt[0] = 0);
    refused(|s| s.lvt[1] |= 1 << 8);
    refused(|s| s.lvt[1] |= 1 << 14);
    refused(|s| s.lvt[5] |= 1 << 14 | 1 << 15);
    refused(|s| s.ldr = 1);
    refused(|s| s.dfr = 0);
    refused(|s| s.icr = 1 << 12);
    refused(|s| s.esr = 1);
    refused(|s| s.esr_pending = 1 << 31);
    refused(|s| s.irr[0] = 1);
    refused(|s| s.isr[0] = 1 << 15);
    refused(|s| s.timer.divide = 4);
    refused(|s| s.timer.tsc_deadline = 1);
    refused(|s| s.timer.deadline = Some(1));
    refused(|s| {
        s.lvt[1] |= 1 << 18;
        s.timer.initial = 1;
    });
    refused(|s| {
        s.base |= EXTD;
        s.ldr = 0;
    });
}
