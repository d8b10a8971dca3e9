//! A snapshot in words, for the monitor: what a kernel person knows from /proc/interrupts, and the ledger.

use std::fmt::Write;

use irqchip::ledger::{Account, Source};

use super::{Snapshot, VcpuStats};

impl Snapshot {
    /// Interrupts by vector and vCPU, as /proc/interrupts has them; then exits, kicks and ioctls; then the ledger.
    pub fn table(&self) -> String {
        let mut text = String::new();
        self.interrupts(&mut text);
        text.push('\n');
        self.costs(&mut text);
        text.push('\n');
        self.accounts(&mut text);
        text
    }

    // Writing to a String can't fail.
    fn interrupts(&self, text: &mut String) {
        let _ = write!(text, "{:>6}", "");
        for cpu in 0..self.vcpus.len() {
            let _ = write!(text, " {:>10}", format!("CPU{cpu}"));
        }
        text.push('\n');
        let row = |text: &mut String, name: &str, count: &dyn Fn(&VcpuStats) -> u64, label: &str| {
            let _ = write!(text, "{name:>5}:");
            self.vcpus.iter().for_each(|vcpu| {
                let _ = write!(text, " {:>10}", count(vcpu));
            });
            let _ = writeln!(text, "  {label}");
        };
        for vector in 0..=u8::MAX {
            if self.vcpus.iter().any(|vcpu| vcpu.vectors.contains_key(&vector)) {
                let gsis = self.wires.iter().filter(|wire| wire.vector == Some(vector) && wire.masked == Some(false));
                let label = gsis.map(|wire| format!("GSI {}", wire.gsi)).collect::<Vec<_>>().join(" ");
                let count = |vcpu: &VcpuStats| vcpu.vectors.get(&vector).copied().unwrap_or(0);
                row(text, &format!("{vector:#04x}"), &count, &label);
            }
        }
        row(text, "NMI", &|vcpu| vcpu.nmis, "non-maskable interrupts");
        row(text, "EXT", &|vcpu| vcpu.extints, "of the 8259A pair, among those above");
        let own = |vcpu: &VcpuStats, source| vcpu.ledger.map_or(0, |ledger| ledger.apic.sources.of(source).asserted);
        row(text, "LOC", &|vcpu| own(vcpu, Source::Timer), "expiries of the local APIC's timer");
        row(text, "IPI", &|vcpu| vcpu.ledger.map_or(0, |ledger| ledger.apic.ipis.asserted), "interrupt commands");
        if let Some(ends) = &self.ends {
            let _ = writeln!(text, "{ends}");
        }
    }

    fn costs(&self, text: &mut String) {
        text.push_str("vCPU      exits  kicks by signal, futex  exits and ioctls an interrupt  exits by reason\n");
        for (number, vcpu) in self.vcpus.iter().enumerate() {
            let all: u64 = vcpu.exits.values().sum();
            let reasons: Vec<_> =
                vcpu.exits.iter().filter(|(_, n)| **n > 0).map(|(kind, n)| format!("{kind}={n}")).collect();
            let _ = writeln!(
                text,
                "{number:>4} {all:>10} {:>15}, {:>5} {:>20.2} {:>9.2}  {}",
                vcpu.signal_kicks,
                vcpu.futex_kicks,
                vcpu.exits_per_interrupt,
                vcpu.ioctls_per_interrupt,
                reasons.join(" ")
            );
        }
    }

    fn accounts(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "{:<18} {:>10} {:>10} {:>10} {:>8}  dropped",
            "ledger", "asserted", "delivered", "merged", "pending"
        );
        for source in &self.sources {
            account(text, &source.name, &source.account, source.pending);
        }
        for (number, vcpu) in self.vcpus.iter().enumerate() {
            let Some(ledger) = vcpu.ledger else { continue };
            let apic = &ledger.apic;
            for source in Source::ALL {
                account(text, &format!("vCPU {number} {}", source.name()), apic.sources.of(source), 0);
            }
            account(text, &format!("vCPU {number} IRR"), &apic.requests, ledger.pending.requests);
            account(text, &format!("vCPU {number} ISR"), &apic.in_service, ledger.pending.in_service);
            account(text, &format!("vCPU {number} NMIs"), &ledger.nmis, ledger.pending_nmis);
            account(text, &format!("vCPU {number} IPIs"), &apic.ipis, 0);
        }
    }
}

/// A row, if there is anything in it.
fn account(text: &mut String, name: &str, account: &Account, pending: u64) {
    if account.is_unused() {
        return;
    }
    let reasons = account.dropped.reasons();
    let dropped: Vec<_> = reasons.iter().filter(|(_, n)| *n > 0).map(|(reason, n)| format!("{reason}={n}")).collect();
    let Account { asserted, delivered, merged, .. } = account;
    let _ =
        writeln!(text, "{name:<18} {asserted:>10} {delivered:>10} {merged:>10} {pending:>8}  {}", dropped.join(" "));
}
