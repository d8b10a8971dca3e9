//! What a vCPU's local APIC was when it was last looked at: each difference is an event, made by its owner.

use irqchip::lapic::LocalApic;

use super::Trace;
use super::event::{Apic, Cause, Eoi, Event};

/// The last look at one local APIC.
#[derive(Debug, Clone, Copy, Default)]
pub struct Watch(Apic);

impl Watch {
    /// A look at `apic`, vCPU `vcpu`'s, after a step that `cause` and `eoi` describe. Several changes in one step are
    /// several events, in the order in which an APIC does them; all have the step's priorities at its end.
    pub fn look(&mut self, trace: &Trace, vcpu: usize, apic: &LocalApic, cause: Cause, eoi: Eoi) {
        let Some(recorder) = trace.recorder() else { return };
        // Most looks find nothing. PPR follows from TPR and ISR.
        if apic.tpr() == self.0.tpr && apic.irr().words() == self.0.irr && apic.isr().words() == self.0.isr {
            return;
        }
        let now = Apic::of(apic);
        let before = std::mem::replace(&mut self.0, now);
        let vcpu = vcpu as u32;
        let mut apic = Apic { irr: before.irr, isr: before.isr, ..now };
        let mut changed = false;
        each(&before.isr, &now.isr, |vector| {
            flip(&mut apic.isr, vector);
            recorder.record(Event::Ended { vcpu, vector, how: eoi, apic });
            changed = true;
        });
        each(&now.irr, &before.irr, |vector| {
            flip(&mut apic.irr, vector);
            recorder.record(Event::Requested { vcpu, vector, cause, apic });
            changed = true;
        });
        each(&now.isr, &before.isr, |vector| {
            if before.irr[word(vector)] & bit(vector) != 0 && now.irr[word(vector)] & bit(vector) == 0 {
                flip(&mut apic.irr, vector);
            }
            flip(&mut apic.isr, vector);
            recorder.record(Event::Injected { vcpu, vector, apic });
            changed = true;
        });
        each(&apic.irr.clone(), &now.irr, |vector| {
            flip(&mut apic.irr, vector);
            recorder.record(Event::Cleared { vcpu, vector, apic });
            changed = true;
        });
        if !changed {
            recorder.record(Event::Priority { vcpu, apic: now });
        }
    }
}

/// Calls `f` with each vector that is in `set` and not in `other`.
fn each(set: &[u64; 4], other: &[u64; 4], mut f: impl FnMut(u8)) {
    for (index, (set, other)) in set.iter().zip(other).enumerate() {
        let mut bits = set & !other;
        while bits != 0 {
            // Below 256 by construction.
            f((index as u32 * 64 + bits.trailing_zeros()) as u8);
            bits &= bits - 1;
        }
    }
}

fn word(vector: u8) -> usize {
    usize::from(vector >> 6)
}

fn bit(vector: u8) -> u64 {
    1 << (vector & 63)
}

fn flip(set: &mut [u64; 4], vector: u8) {
    set[word(vector)] ^= bit(vector);
}
