//! Whether a ledger balances. docs/ledger.md lists the identities.

use irqchip::ledger::{Posts, Source};

use super::snapshot::{Moment, Snapshot, VcpuStats};

/// An identity that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imbalance {
    /// Of which source, or between which two chips.
    pub source: String,
    /// How many are missing; below 0: how many are too many.
    pub difference: i128,
}

impl std::fmt::Display for Imbalance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = if self.difference > 0 { "missing" } else { "too many" };
        write!(f, "{}: {} {how}", self.source, self.difference.unsigned_abs())
    }
}

impl Snapshot {
    /// The identities that do not hold; none: the ledger balances. What ties two chips together is checked at the end of the
    /// machine only: before, something may be on its way between them.
    pub fn imbalances(&self) -> Vec<Imbalance> {
        let mut all = Vec::new();
        let mut check = |source: String, difference: i128| {
            if difference != 0 {
                all.push(Imbalance { source, difference });
            }
        };
        let ended = self.moment == Moment::End;
        for source in &self.sources {
            let difference = source.account.difference(source.pending);
            // Sent by any thread, counted by none in particular: one may be under way.
            let under_way = source.name == "MSI" && !ended && difference > 0;
            check(source.name.clone(), if under_way { 0 } else { difference });
        }
        if let Some(cycles) = self.pic_cycles {
            let inputs = self.sources.iter().filter(|source| source.name.starts_with("IRQ "));
            let delivered = sum(inputs.map(|source| source.account.delivered));
            check(
                "8259A cycles to inputs".to_owned(),
                sum([cycles.run, cycles.polled]) - delivered - sum([cycles.spurious]),
            );
        }
        for (number, vcpu) in self.vcpus.iter().enumerate() {
            let Some(ledger) = &vcpu.ledger else { continue };
            for (name, difference) in ledger.apic.imbalances(ledger.pending) {
                check(format!("vCPU {number} {name}"), difference);
            }
            check(format!("vCPU {number} NMIs"), ledger.nmis.difference(ledger.pending_nmis));
            let arrived = sum([ledger.posted_nmis, ledger.apic.nmis.delivered]);
            check(format!("vCPU {number} NMIs from LVT and mailbox"), arrived - sum([ledger.nmis.asserted]));
        }
        if ended {
            self.check_links(&mut check);
        }
        all
    }

    /// What one hands on must have arrived at the next.
    fn check_links(&self, check: &mut impl FnMut(String, i128)) {
        for (number, vcpu) in self.vcpus.iter().enumerate() {
            let by_vector = sum(vcpu.vectors.values().copied());
            if let Some(ledger) = &vcpu.ledger {
                let acknowledged = sum([ledger.apic.requests.delivered, vcpu.extints]);
                check(format!("vCPU {number} acknowledged to given"), acknowledged - sum([vcpu.interrupts]));
                check(format!("vCPU {number} given by vector"), sum([vcpu.interrupts]) - by_vector);
                check(format!("vCPU {number} NMIs given"), sum([ledger.nmis.delivered]) - sum([vcpu.nmis]));
            }
        }
        if let Some(cycles) = self.pic_cycles {
            let taken = sum(self.vcpus.iter().map(|vcpu| vcpu.extints));
            check("8259A cycles to vCPUs".to_owned(), sum([cycles.run]) - taken);
        }
        if !self.vcpus.iter().any(|vcpu| vcpu.ledger.is_some()) {
            return;
        }
        let mut posts = Posts::default();
        self.posts.values().for_each(|more| posts.add(more));
        let ledgers = || self.vcpus.iter().filter_map(|vcpu| vcpu.ledger);
        ledgers().for_each(|ledger| posts.add(&ledger.apic.posts));
        let total = |of: fn(&VcpuStats) -> u64| sum(self.vcpus.iter().map(of));
        let taken = sum(ledgers().map(|ledger| ledger.apic.sources.of(Source::Mailbox).asserted));
        check("posts to mailboxes".to_owned(), sum([posts.requests]) - taken - total(|vcpu| vcpu.mailbox_requests));
        let nmis = sum(ledgers().map(|ledger| ledger.posted_nmis));
        check("NMIs to mailboxes".to_owned(), sum([posts.nmis]) - nmis - total(|vcpu| vcpu.mailbox_nmis));
    }
}

fn sum(numbers: impl IntoIterator<Item = u64>) -> i128 {
    numbers.into_iter().map(i128::from).sum()
}
