//! What a trace is made of: events, and their form in the rings and in the file.
//!
//! An event is a *record* of one slot of 32 bytes; one that shows a local APIC's registers has two more slots behind it, IRR
//! and ISR. A slot is four little-endian words of 64 bits. The first word is the time, the second the kind (bits 0-7), flags
//! (8-15), the thread (16-31) and a number (32-63); the others depend on the kind.

use bottom_half::{Happened, ItemKind, Vector};
use irqchip::lapic::LocalApic;
use x86::apic::DeliveryMode;

use crate::vcpu::ExitKind;

/// A slot's four words.
pub type Slot = [u64; 4];
/// Bytes of a slot.
pub const SLOT_BYTES: usize = 32;
/// Flag: the registers of a local APIC follow.
const WITH_APIC: u64 = 1 << 15;

/// The priorities and requests of a local APIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Apic {
    /// Task priority.
    pub tpr: u8,
    /// Processor priority.
    pub ppr: u8,
    /// Requested vectors, a bit each.
    pub irr: [u64; 4],
    /// Vectors in service, a bit each.
    pub isr: [u64; 4],
}

impl Apic {
    /// Those of `apic` now.
    pub fn of(apic: &LocalApic) -> Self {
        Self { tpr: apic.tpr(), ppr: apic.ppr(), irr: apic.irr().words(), isr: apic.isr().words() }
    }
}

/// How a vector came into IRR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// From the mailbox, where others post.
    Mailbox,
    /// The local APIC's timer.
    Timer,
    /// A register access: an IPI to itself, or an entry of the local vector table.
    Register,
    /// Another step of the owner's.
    Other,
}

/// How an interrupt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eoi {
    /// By a write of the EOI register.
    Register,
    /// By the paravirtual flag, without an exit.
    Paravirtual,
    /// INIT or a switched-off APIC has cleared it.
    Cleared,
}

/// Who has the controllers, as the trace says it.
pub const MODES: [&str; 3] = ["user", "split", "kernel"];

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are named like what they hold")]
pub enum Event {
    /// The thread's name, cut off after 16 bytes: its first record.
    Thread { name: [u8; 16] },
    /// So many records of this thread, before this one, found no room and are lost.
    Dropped { records: u64 },
    /// A machine begins: the first, or the next one after a reset. `mode` is an index of [`MODES`].
    Machine { vcpus: u32, mode: u8 },
    /// A wire rises or falls.
    Line { gsi: u8, level: bool },
    /// A request of the 8259A pair: bit set in an IRR.
    PicRequested { input: u8 },
    /// It is gone, not acknowledged.
    PicWithdrawn { input: u8 },
    /// The 8259A pair was acknowledged.
    PicAcknowledged { input: u8, vector: u8 },
    /// The 8259A pair's in-service bit is cleared.
    PicEnded { input: u8 },
    /// An I/O APIC pin begins to send.
    PinSent { pin: u8, vector: u8, level: bool },
    /// Nobody has accepted what a pin sent: a level stays pending, an edge is gone.
    PinRefused { pin: u8, level: bool },
    /// A pin's remote IRR is cleared by an EOI, and its line looked at again: its level, and whether the damper holds it.
    PinEnded { pin: u8, asserted: bool, damped: bool },
    /// A device writes a message.
    Msi { address: u64, data: u32 },
    /// Nobody has accepted a device's message.
    MsiRefused,
    /// A vCPU writes its ICR.
    Ipi { from: u32, vector: u8, mode: DeliveryMode },
    /// KVM has it from here on.
    InKvm { vector: u8 },
    /// About to be set in a mailbox, or for the own vCPU in IRR.
    Posted { vcpu: u32, vector: u8, mode: DeliveryMode, level: bool },
    /// A vCPU's thread is woken: from the guest by a signal, from its sleep by a futex.
    Kicked { vcpu: u32, futex: bool },
    /// About to enter the guest.
    Entered { vcpu: u32 },
    /// The vCPU has left the guest.
    Left { vcpu: u32, exit: ExitKind },
    /// The vCPU has left the guest that it was about to enter at that time: both in one, as a vCPU's thread writes them. Reading
    /// makes two of it.
    Stayed { vcpu: u32, exit: ExitKind, entered: u64 },
    /// About to sleep, or to wait for start-up.
    Slept { vcpu: u32 },
    /// Awake.
    Woke { vcpu: u32 },
    /// All that was posted to it has been taken.
    Collected { vcpu: u32 },
    /// INIT, start-up, or an NMI was taken from the mailbox.
    Taken { vcpu: u32, mode: DeliveryMode },
    /// Now in IRR.
    Requested { vcpu: u32, vector: u8, cause: Cause, apic: Apic },
    /// From IRR into ISR, and given to KVM for the next entry.
    Injected { vcpu: u32, vector: u8, apic: Apic },
    /// From the 8259A pair, past the local APIC.
    ExtIntInjected { vcpu: u32, vector: u8 },
    /// Given to KVM for the next entry.
    NmiInjected { vcpu: u32 },
    /// The guest has marked the entry of its handler.
    Marked { vector: u8 },
    /// Out of ISR.
    Ended { vcpu: u32, vector: u8, how: Eoi, apic: Apic },
    /// Out of IRR, and into nothing.
    Cleared { vcpu: u32, vector: u8, apic: Apic },
    /// TPR has changed.
    Priority { vcpu: u32, apic: Apic },
    /// A deferred item; the queue's name is cut off after 8 bytes.
    Deferred { happened: Happened, kind: ItemKind, vector: Option<Vector>, cpu: Option<u32>, key: u64, queue: [u8; 8] },
}

/// An event, when and where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// CLOCK_MONOTONIC in ns; no two of a thread are the same.
    pub stamp: u64,
    /// The thread's number in this trace.
    pub thread: u16,
    /// What.
    pub event: Event,
}

/// No vector, no CPU.
const NONE: u64 = 0xff;
const CAUSES: [Cause; 4] = [Cause::Mailbox, Cause::Timer, Cause::Register, Cause::Other];
const EOIS: [Eoi; 3] = [Eoi::Register, Eoi::Paravirtual, Eoi::Cleared];
const HAPPENED: [Happened; 4] = [Happened::Activated, Happened::Run, Happened::Done, Happened::Cancelled];
const ITEMS: [ItemKind; 4] = [ItemKind::Softirq, ItemKind::Tasklet, ItemKind::Work, ItemKind::Timer];

/// A record before it is packed: kind, flags, number, two words.
struct Parts(u8, u64, u64, u64, u64);

impl Record {
    /// The first record of `slots`, and how many slots it has; `None` if it is none.
    pub fn decode(slots: &[Slot]) -> Option<(Self, usize)> {
        let &[stamp, head, b, c] = slots.first()?;
        let (kind, thread, number) = (head as u8, (head >> 16) as u16, (head >> 32) as u32);
        let (apic, used) = if head & WITH_APIC == 0 {
            (None, 1)
        } else {
            let apic = Apic { tpr: c as u8, ppr: (c >> 8) as u8, irr: *slots.get(1)?, isr: *slots.get(2)? };
            (Some(apic), 3)
        };
        let flags = (head >> 8) & ((WITH_APIC >> 8) - 1);
        let event = Event::from_parts(kind, flags, number, b, c, apic)?;
        Some((Self { stamp, thread, event }, used))
    }
}

impl Record {
    /// `slots` are the beginning of a record whose registers are missing.
    pub fn is_cut(slots: &[Slot]) -> bool {
        slots.len() < 3 && slots.first().is_some_and(|head| head[1] & WITH_APIC != 0)
    }
}

impl Event {
    /// The kind of [`Event::Dropped`].
    pub const DROPPED: u8 = 2;

    /// The first slot of its record.
    pub fn head(&self, stamp: u64, thread: u16) -> Slot {
        let Parts(kind, flags, number, b, c) = self.parts();
        let (flags, c) = match self.registers() {
            Some(apic) => (flags | WITH_APIC >> 8, u64::from(apic.tpr) | u64::from(apic.ppr) << 8),
            None => (flags, c),
        };
        [stamp, u64::from(kind) | flags << 8 | u64::from(thread) << 16 | number << 32, b, c]
    }

    /// The registers whose IRR and ISR are its other two slots, if it has any.
    pub fn registers(&self) -> Option<&Apic> {
        match self {
            Self::Requested { apic, .. }
            | Self::Injected { apic, .. }
            | Self::Ended { apic, .. }
            | Self::Cleared { apic, .. }
            | Self::Priority { apic, .. } => Some(apic),
            _ => None,
        }
    }

    fn parts(&self) -> Parts {
        let simple = |kind, flags, number: u32, b: u64, c: u64| Parts(kind, flags, number.into(), b, c);
        match *self {
            Self::Thread { name } => {
                let value = u128::from_le_bytes(name);
                simple(1, 0, 0, value as u64, (value >> 64) as u64)
            }
            Self::Dropped { records } => simple(Self::DROPPED, 0, 0, records, 0),
            Self::Machine { vcpus, mode } => simple(3, mode.into(), vcpus, 0, 0),
            Self::Line { gsi, level } => simple(4, level.into(), gsi.into(), 0, 0),
            Self::PicRequested { input } => simple(5, 0, input.into(), 0, 0),
            Self::PicWithdrawn { input } => simple(6, 0, input.into(), 0, 0),
            Self::PicAcknowledged { input, vector } => simple(7, 0, input.into(), vector.into(), 0),
            Self::PicEnded { input } => simple(8, 0, input.into(), 0, 0),
            Self::PinSent { pin, vector, level } => simple(9, level.into(), pin.into(), vector.into(), 0),
            Self::PinRefused { pin, level } => simple(10, level.into(), pin.into(), 0, 0),
            Self::PinEnded { pin, asserted, damped } => {
                simple(11, u64::from(asserted) | u64::from(damped) << 1, pin.into(), 0, 0)
            }
            Self::Msi { address, data } => simple(12, 0, data, address, 0),
            Self::MsiRefused => simple(13, 0, 0, 0, 0),
            Self::Ipi { from, vector, mode } => simple(14, mode as u64, from, vector.into(), 0),
            Self::InKvm { vector } => simple(15, 0, 0, vector.into(), 0),
            Self::Posted { vcpu, vector, mode, level } => {
                simple(16, mode as u64 | u64::from(level) << 3, vcpu, vector.into(), 0)
            }
            Self::Kicked { vcpu, futex } => simple(17, futex.into(), vcpu, 0, 0),
            Self::Entered { vcpu } => simple(18, 0, vcpu, 0, 0),
            Self::Left { vcpu, exit } => simple(19, exit as u64, vcpu, 0, 0),
            Self::Slept { vcpu } => simple(20, 0, vcpu, 0, 0),
            Self::Woke { vcpu } => simple(21, 0, vcpu, 0, 0),
            Self::Collected { vcpu } => simple(22, 0, vcpu, 0, 0),
            Self::Taken { vcpu, mode } => simple(23, mode as u64, vcpu, 0, 0),
            Self::Requested { vcpu, vector, cause, .. } => simple(24, cause as u64, vcpu, vector.into(), 0),
            Self::Injected { vcpu, vector, .. } => simple(25, 0, vcpu, vector.into(), 0),
            Self::ExtIntInjected { vcpu, vector } => simple(26, 0, vcpu, vector.into(), 0),
            Self::NmiInjected { vcpu } => simple(27, 0, vcpu, 0, 0),
            Self::Marked { vector } => simple(28, 0, 0, vector.into(), 0),
            Self::Ended { vcpu, vector, how, .. } => simple(29, how as u64, vcpu, vector.into(), 0),
            Self::Cleared { vcpu, vector, .. } => simple(30, 0, vcpu, vector.into(), 0),
            Self::Priority { vcpu, .. } => simple(31, 0, vcpu, 0, 0),
            Self::Deferred { happened, kind, vector, cpu, key, queue } => {
                let vector = vector.map_or(NONE, |vector| vector as u64);
                let number = vector | cpu.map_or(0, |cpu| u64::from(cpu) + 1) << 8;
                let flags = happened as u64 | (kind as u64) << 2;
                Parts(32, flags, number & 0xffff_ffff, key, u64::from_le_bytes(queue))
            }
            Self::Stayed { vcpu, exit, entered } => simple(33, exit as u64, vcpu, entered, 0),
        }
    }

    fn from_parts(kind: u8, flags: u64, number: u32, b: u64, c: u64, apic: Option<Apic>) -> Option<Self> {
        let (small, vector, vcpu, set) = (number as u8, b as u8, number, flags & 1 != 0);
        let mode = DeliveryMode::from_bits(flags as u8 & 7);
        Some(match kind {
            1 => Self::Thread { name: (u128::from(b) | u128::from(c) << 64).to_le_bytes() },
            Self::DROPPED => Self::Dropped { records: b },
            3 => Self::Machine { vcpus: number, mode: Some(flags as u8).filter(|&mode| mode < 3)? },
            4 => Self::Line { gsi: small, level: set },
            5 => Self::PicRequested { input: small },
            6 => Self::PicWithdrawn { input: small },
            7 => Self::PicAcknowledged { input: small, vector },
            8 => Self::PicEnded { input: small },
            9 => Self::PinSent { pin: small, vector, level: set },
            10 => Self::PinRefused { pin: small, level: set },
            11 => Self::PinEnded { pin: small, asserted: set, damped: flags & 2 != 0 },
            12 => Self::Msi { address: b, data: number },
            13 => Self::MsiRefused,
            14 => Self::Ipi { from: number, vector, mode: mode? },
            15 => Self::InKvm { vector },
            16 => Self::Posted { vcpu, vector, mode: mode?, level: flags & 8 != 0 },
            17 => Self::Kicked { vcpu, futex: set },
            18 => Self::Entered { vcpu },
            19 => Self::Left { vcpu, exit: *ExitKind::ALL.get(flags as usize)? },
            20 => Self::Slept { vcpu },
            21 => Self::Woke { vcpu },
            22 => Self::Collected { vcpu },
            23 => Self::Taken { vcpu, mode: mode? },
            24 => Self::Requested { vcpu, vector, cause: *CAUSES.get(flags as usize)?, apic: apic? },
            25 => Self::Injected { vcpu, vector, apic: apic? },
            26 => Self::ExtIntInjected { vcpu, vector },
            27 => Self::NmiInjected { vcpu },
            28 => Self::Marked { vector },
            29 => Self::Ended { vcpu, vector, how: *EOIS.get(flags as usize)?, apic: apic? },
            30 => Self::Cleared { vcpu, vector, apic: apic? },
            31 => Self::Priority { vcpu, apic: apic? },
            32 => {
                let vector = match u64::from(number) & 0xff {
                    NONE => None,
                    index => Some(*Vector::ALL.get(index as usize)?),
                };
                let cpu = (number >> 8).checked_sub(1);
                let (happened, kind) = (HAPPENED[(flags & 3) as usize], ITEMS[(flags >> 2 & 3) as usize]);
                Self::Deferred { happened, kind, vector, cpu, key: b, queue: c.to_le_bytes() }
            }
            33 => Self::Stayed { vcpu, exit: *ExitKind::ALL.get(flags as usize)?, entered: b },
            _ => return None,
        })
    }
}
