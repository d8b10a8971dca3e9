//! What a vCPU has done since the machine was made: exits by kind, interrupts given, EOIs, system calls of its thread.
//!
//! Always on: its thread alone writes, by plain loads and stores on lines of its own. What others do to it (kicks) is counted
//! where they do it, on other lines. Anybody may read at any time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use irqchip::ledger::{Account, ApicLedger, Pending};
use kvm::Exit;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sys::calls::{Call, Calls};

#[cfg(test)]
mod tests;

/// A kind of exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitKind {
    /// IN or OUT.
    Port,
    /// Memory that is none.
    Memory,
    /// RDMSR or WRMSR.
    Msr,
    /// HLT.
    Halt,
    /// The interrupt window.
    Window,
    /// A kick, a timer's signal, or `immediate_exit`.
    Interrupted,
    /// A single step of ours.
    Step,
    /// KVM's local APIC has ended a level interrupt.
    IoApicEoi,
    /// Any other.
    Other,
}

impl ExitKind {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 9] = [
        Self::Port,
        Self::Memory,
        Self::Msr,
        Self::Halt,
        Self::Window,
        Self::Interrupted,
        Self::Step,
        Self::IoApicEoi,
        Self::Other,
    ];

    /// The kind of `exit`.
    pub fn of(exit: &Exit<'_>) -> Self {
        match exit {
            Exit::PioIn { .. } | Exit::PioOut { .. } => Self::Port,
            Exit::MmioRead { .. } | Exit::MmioWrite { .. } => Self::Memory,
            Exit::MsrRead { .. } | Exit::MsrWrite { .. } => Self::Msr,
            Exit::Halt => Self::Halt,
            Exit::InterruptWindow => Self::Window,
            Exit::Interrupted => Self::Interrupted,
            Exit::Debug { .. } => Self::Step,
            Exit::IoApicEoi { .. } => Self::IoApicEoi,
            _ => Self::Other,
        }
    }

    /// A name for tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::Memory => "memory",
            Self::Msr => "msr",
            Self::Halt => "halt",
            Self::Window => "window",
            Self::Interrupted => "interrupted",
            Self::Step => "step",
            Self::IoApicEoi => "ioapic-eoi",
            Self::Other => "other",
        }
    }
}

/// A number that one thread counts up and others read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more; by the one thread that counts here.
    pub fn add(&self) {
        self.set(self.get().wrapping_add(1));
    }

    /// It has been counted elsewhere.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// A number for each vector.
#[derive(Debug)]
pub struct PerVector([Count; 256]);

impl Default for PerVector {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Count::default()))
    }
}

impl PerVector {
    /// The number of `vector`.
    pub fn of(&self, vector: u8) -> &Count {
        &self.0[usize::from(vector)]
    }
}

/// A vCPU's ledger, as its thread last published it: all of one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuLedger {
    /// Its local APIC's.
    pub apic: ApicLedger,
    /// What is pending there.
    pub pending: Pending,
    /// NMIs from there and from the mailbox: *delivered* were given to KVM.
    pub nmis: Account,
    /// Among them, those from the mailbox.
    pub posted_nmis: u64,
    /// Those that wait.
    pub pending_nmis: u64,
}

/// One vCPU's.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counts {
    exits: [Count; ExitKind::ALL.len()],
    /// Interrupts given to the guest.
    pub interrupts: Count,
    /// The same by vector; exceptions are none of them.
    pub vectors: PerVector,
    /// Among them, those that the 8259A pair gave.
    pub extints: Count,
    /// NMIs given to the guest.
    pub nmis: Count,
    /// EOIs that the guest wrote to the register: an exit each, and among those above.
    pub eois: Count,
    /// EOIs that cost no exit of their own.
    pub spared_eois: Count,
    /// System calls of its thread.
    pub calls: Arc<Calls>,
    /// Leaf lock. Its thread only tries it while it runs.
    ledger: Mutex<VcpuLedger>,
}

impl Counts {
    /// Its thread has left the guest, or not even entered it.
    pub fn exit(&self, exit: &Exit<'_>) {
        self.exits[ExitKind::of(exit) as usize].add();
    }

    /// An interrupt is given to the guest.
    pub fn interrupt(&self, vector: u8) {
        self.interrupts.add();
        self.vectors.of(vector).add();
    }

    /// Publishes the ledger, unless somebody is just reading it; then it is done the next time. Whether it was. For its thread.
    pub fn publish(&self, ledger: &VcpuLedger) -> bool {
        self.ledger.try_lock().map(|mut published| *published = *ledger).is_some()
    }

    /// Publishes the ledger for the last time.
    pub fn publish_last(&self, ledger: &VcpuLedger) {
        *self.ledger.lock() = *ledger;
    }

    /// The ledger as last published.
    pub fn ledger(&self) -> VcpuLedger {
        *self.ledger.lock()
    }

    /// How many exits of all kinds.
    pub fn all_exits(&self) -> u64 {
        self.exits.iter().map(Count::get).sum()
    }

    /// How many exits of this kind.
    pub fn exits(&self, kind: ExitKind) -> u64 {
        self.exits[kind as usize].get()
    }
}

/// `name=number`, one after the other.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interrupts, nmis, eois, spared_eois, .. } = self;
        write!(f, "interrupts={} nmis={} eois={}", interrupts.get(), nmis.get(), eois.get())?;
        write!(f, " spared-eois={}", spared_eois.get())?;
        ExitKind::ALL.iter().try_for_each(|&kind| write!(f, " exit:{}={}", kind.name(), self.exits(kind)))?;
        Call::ALL.iter().try_for_each(|&call| write!(f, " call:{}={}", call.name(), self.calls.get(call)))
    }
}
