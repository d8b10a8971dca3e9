//! KVM's own interrupt controllers as the oracle: the same random operations for ours and for those in the kernel, where
//! a small guest reads and writes the registers and takes the interrupts; after each operation every register that both
//! show is compared.
//!
//! What differs on purpose is on the list in `kvm_oracle/differences.rs`. Needs a `/dev/kvm`, of any kind.
//! `reference_common` says how to choose seed and length; here the default is 100,000 operations for each of the two
//! drivers.

#[path = "kvm_oracle/apic.rs"]
mod apic;
#[path = "kvm_oracle/avoid.rs"]
mod avoid;
#[path = "reference_common/mod.rs"]
mod common;
#[path = "kvm_oracle/compare.rs"]
mod compare;
#[path = "kvm_oracle/differences.rs"]
mod differences;
#[path = "kvm_oracle/generate.rs"]
mod generate;
#[path = "kvm_oracle/guest.rs"]
mod guest;
#[path = "kvm_oracle/host.rs"]
mod host;
#[path = "kvm_oracle/ours.rs"]
mod ours;
#[path = "kvm_oracle/pic.rs"]
mod pic;
#[path = "kvm_oracle/timers.rs"]
mod timers;

use std::fs;

use apic::ApicRig;
use apic::Op::{Accept, Ipi, Msi, ReadMsr, Write, WriteMsr};
use common::Rig;
use differences::Trace;
use irqchip::pic::PicPort;
use pic::PicRig;
use x86::apic::reg;

/// Whether there is a KVM; says so if not.
fn can_run() -> bool {
    let can = kvm::kvm_available();
    if !can {
        println!("SKIPPED: no usable /dev/kvm");
    }
    can
}

/// For what a divergence of the 8259A pairs prints.
fn replay_pics(ops: &[pic::Op]) {
    if can_run() {
        common::replay::<PicRig>(ops);
    }
}

/// The same for local APICs and I/O APIC.
fn replay_apics(ops: &[apic::Op]) {
    if can_run() {
        common::replay::<ApicRig>(ops);
    }
}

#[test]
fn the_8259a_pairs_agree() {
    if can_run() {
        common::drive::<PicRig>();
    }
}

#[test]
fn local_apics_and_io_apic_agree() {
    if can_run() {
        common::drive::<ApicRig>();
    }
}

/// Red when KVM does what we do by now: then the entry is to go, or to say on which hosts it holds.
#[test]
fn every_difference_on_the_list_is_still_there() {
    if !can_run() {
        return;
    }
    let mut gone = Vec::new();
    for difference in differences::here() {
        let mut forgiven = differences::known();
        forgiven.remove(&difference.quirk);
        let (length, first) = match difference.trace {
            Trace::Pic(ops) => (ops.len(), first_difference(&mut PicRig::forgiving(forgiven), ops)),
            Trace::Apic(ops) => (ops.len(), first_difference(&mut ApicRig::forgiving(forgiven), ops)),
        };
        match first {
            Some((at, what)) if at + 1 == length => println!("{}: {what}", difference.quirk.name()),
            other => gone.push(format!("{}: {other:?}", difference.quirk.name())),
        }
    }
    assert!(gone.is_empty(), "not as the list says:\n{}", gone.join("\n"));
}

fn first_difference<R: Rig>(rig: &mut R, ops: &[R::Op]) -> Option<(usize, String)> {
    ops.iter().enumerate().find_map(|(at, op)| rig.step(op).err().map(|what| (at, what)))
}

/// The table in docs/spec-coverage.md is the list, row by row.
#[test]
fn the_documentation_has_the_list() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/spec-coverage.md");
    let Ok(text) = fs::read_to_string(path) else {
        println!("SKIPPED: the sources are not here");
        return;
    };
    let rows: Vec<String> =
        differences::all().map(|d| format!("| {} | {} | {} |", d.quirk.name(), d.kvm, d.why)).collect();
    let names: Vec<_> = differences::all().map(|d| format!("| {} |", d.quirk.name())).collect();
    let found: Vec<_> = text.lines().filter(|line| names.iter().any(|name| line.starts_with(name))).collect();
    assert_eq!(found, rows, "to be:\n{}", rows.join("\n"));
}

/// Every reason begins with a document, which its section follows.
#[test]
fn every_difference_cites_a_manual() {
    const DOCUMENTS: [&str; 7] =
        ["8259A, ", "82371AB (PIIX4), ", "82093AA, ", "Intel ICH, ", "SDM vol. 3A, ", "APM vol. 2, ", "Linux, "];
    for difference in differences::all() {
        let cites = DOCUMENTS.iter().any(|document| difference.why.starts_with(document));
        assert!(cites, "{}: {}", difference.quirk.name(), difference.why);
    }
}

/// PPR has the low bits of TPR when both are of one class, and none when the interrupt in service is of a higher one.
#[test]
fn ppr_has_the_sub_class_of_tpr_on_a_tie() {
    replay_apics(&[
        Write(0, reg::SVR, 0x1ff),
        Msi(0xfee0_0000, 0x3f),
        Accept(0),
        Write(0, reg::TPR, 0x35),
        Write(0, reg::TPR, 0x45),
        Write(0, reg::TPR, 0x25),
    ]);
}

/// "The high half of the Interrupt Command Register is not preserved" (SDM vol. 3A, section "State Changes From xAPIC Mode
/// to x2APIC Mode").
#[test]
fn entering_x2apic_mode_clears_the_upper_half_of_icr() {
    replay_apics(&[
        Ipi(0, 0x5a, 0x4031),
        WriteMsr(0, apic::BASE, apic::x2apic_base(0)),
        ReadMsr(0, apic::msr(reg::ICR_LOW)),
    ]);
}

/// There is no delivery status in x2APIC mode; a write that sets its bit is no fault, and the bit reads 0.
#[test]
fn bit_12_of_an_x2apic_icr_is_ignored() {
    replay_apics(&[
        WriteMsr(0, apic::BASE, apic::x2apic_base(0)),
        WriteMsr(0, apic::msr(reg::ICR_LOW), 0x7_0000_5031),
        ReadMsr(0, apic::msr(reg::ICR_LOW)),
    ]);
}

#[test]
fn a_level_input_of_the_slave_asks_again_after_its_eois() {
    replay_pics(&[
        pic::Op::Write(PicPort::ElcrSlave, 0x08),
        pic::Op::Line(11, true),
        pic::Op::Acknowledge,
        pic::Op::Write(PicPort::SlaveCommand, 0x20),
        pic::Op::Write(PicPort::MasterCommand, 0x20),
        pic::Op::Acknowledge,
    ]);
}
