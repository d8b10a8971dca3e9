//! C11: the task-priority register, by both its names, and the processor priority that it makes.

use core::sync::atomic::{AtomicU32, Ordering};

use kernel::arch::frame::Frame;
use kernel::chips::apic;
use kernel::sync::without_interrupts;
use kernel::testing::{TestResult, mode};
use kernel::{check_eq, probe, test, wait};
use x86::apic::reg;
use x86::test_record::Needs;

use crate::apic::{IN_KVM, send, with_vectors};

test!("apic.cr8_is_the_tpr", [11], cr8);
test!("apic.ppr_follows_tpr_and_service", [11], ppr; .needs(Needs::IN_SERVICE));

fn cr8() -> TestResult {
    without_interrupts(|| {
        for class in [0, 5, 15, 1, 0] {
            probe::write_cr8(class);
            check_eq!(probe::read_cr8(), class, "CR8");
            check_eq!(apic::read(reg::TPR), (class as u32) << 4, "TPR after CR8");
        }
        apic::write(reg::TPR, 0x73);
        let class = probe::read_cr8();
        apic::write(reg::TPR, 0);
        check_eq!(class, 7, "CR8 after TPR");
        Ok(())
    })
}

fn ppr() -> TestResult {
    static INSIDE: AtomicU32 = AtomicU32::new(0);
    fn handler(_: &mut Frame) {
        let low = apic::read(reg::PPR);
        let high = ppr_with_tpr(0x95);
        apic::eoi();
        INSIDE.store(high << 8 | low, Ordering::SeqCst);
    }
    INSIDE.store(0, Ordering::SeqCst);
    with_vectors(&[0x63], handler, || {
        check_eq!(ppr_with_tpr(0x25), 0x25, "PPR with TPR alone");
        send(0x63);
        wait::for_condition(|| INSIDE.load(Ordering::SeqCst) != 0)?;
        check_eq!(INSIDE.load(Ordering::SeqCst), 0x9560, "PPR in service, with a higher and a lower TPR");
        check_eq!(apic::read(reg::PPR), 0, "PPR afterwards");
        Ok(())
    })
}

/// What PPR reads with this TPR; TPR is 0 again.
///
/// SVM keeps of a guest's TPR what CR8 has, bits 7:4 (AMD APM vol. 2, "Virtual Interrupts"), and KVM's local APIC has no more of it
/// after an exit. If that is all that PPR lacks, it is what was expected.
fn ppr_with_tpr(tpr: u32) -> u32 {
    apic::write(reg::TPR, tpr);
    let (ppr, kept) = (apic::read(reg::PPR), apic::read(reg::TPR));
    apic::write(reg::TPR, 0);
    if IN_KVM.contains(mode()) && kept == tpr & 0xf0 && ppr == kept { tpr } else { ppr }
}
