//! Operations that the drivers leave out: those whose difference can't be undone afterwards, and those after which KVM's
//! guest could not be got hold of.

use irqchip::destination::DestinationTable;
use irqchip::lapic::LocalApic;
use irqchip::{Destination, Message};
use x86::apic::{DeliveryMode, Icr, Shorthand, reg};
use x86::ioapic::{REG_TABLE, RedirectionEntry};
use x86::msr::{APIC_BASE_ADDR_MASK, ApicBase, IA32_APIC_BASE, X2APIC_FIRST, X2APIC_LAST};
use x86::platform::LAPIC_BASE;

use crate::apic::{ApicRig, CPUS, Op};
use crate::differences::Quirk;
use crate::host::Host;

/// Counts from here on do not end while the test runs.
pub const LONG_COUNT: u32 = 0xc000_0000;
const TIMER_MODES: u64 = 3 << 17;
const TIMER_MSR: u32 = X2APIC_FIRST + (reg::LVT_TIMER >> 4);
const EOI_MSR: u32 = X2APIC_FIRST + (reg::EOI >> 4);

/// The difference that the operation would run into.
pub fn difference(rig: &ApicRig, op: &Op) -> Option<Quirk> {
    if rig.forgiven.contains(&Quirk::ApicLogicalGoesByIdInMixedModes) && is_logical_in_mixed_modes(rig, op) {
        return Some(Quirk::ApicLogicalGoesByIdInMixedModes);
    }
    if rig.forgiven.contains(&Quirk::ApicBroadcastStaysInItsMode) && is_broadcast_in_mixed_modes(rig, op) {
        return Some(Quirk::ApicBroadcastStaysInItsMode);
    }
    if let Op::Write(cpu, reg::EOI, _) | Op::WriteMsr(cpu, EOI_MSR, _) = *op {
        for (quirk, differs) in [
            (Quirk::IoApicSendsEdgesAtEois, fires_an_edge as fn(&ApicRig, usize) -> bool),
            (Quirk::IoApicHearsItsDestinationsOnly, ends_one_of_others),
        ] {
            if rig.forgiven.contains(&quirk) && differs(rig, cpu) {
                return Some(quirk);
            }
        }
    }
    let quirk = match *op {
        Op::Write(cpu, reg::ID, _) if !rig.ours.is_x2apic(cpu) => Quirk::ApicIdIsWritable,
        Op::Write(cpu, offset, value) if rig.ours.is_x2apic(cpu) => {
            return difference(rig, &Op::WriteMsr(cpu, X2APIC_FIRST + (offset >> 4), value.into()));
        }
        Op::Write(cpu, register @ (reg::LDR | reg::DFR), value)
            if rig.forgiven.contains(&Quirk::ApicTableHasOnePlaceForABit)
                && shares_a_bit(rig, cpu, register, value) =>
        {
            Quirk::ApicTableHasOnePlaceForABit
        }
        Op::Write(_, reg::DFR, value) if !matches!(value >> 28, 0x0 | 0xf) => Quirk::ApicOddModelsAreClusters,
        Op::Write(_, reg::LVT_ERROR, value) if value & 1 << 16 == 0 => Quirk::ApicHasNoErrors,
        Op::Write(_, reg::SVR, value) if value & 1 << 12 != 0 => Quirk::ApicHasNoEoiSuppression,
        Op::Write(_, reg::ICR_LOW, low) => return of_icr(low, true),
        Op::Ipi(cpu, to, low) => {
            let x2apic = rig.ours.is_x2apic(cpu);
            let several = low & 1 << 11 != 0 || to == u32::MAX || !x2apic && to & 0xff == 0xff;
            return of_icr(low, several).filter(|quirk| rig.forgiven.contains(quirk));
        }
        Op::WriteMsr(cpu, IA32_APIC_BASE, value) => {
            let change = rig.ours.apics[cpu].base() ^ value;
            if change & ApicBase::BSP.bits() != 0 {
                Quirk::ApicBspFlagIsWritable
            } else if change & ApicBase::ENABLE.bits() != 0 {
                Quirk::ApicDisabledKeepsItsRegisters
            } else {
                return None;
            }
        }
        Op::WriteMsr(cpu, msr @ X2APIC_FIRST..=X2APIC_LAST, value) if rig.ours.is_x2apic(cpu) => {
            return of_x2apic_write((msr - X2APIC_FIRST) << 4, value).filter(|quirk| rig.forgiven.contains(quirk));
        }
        Op::WriteCr8(cpu, class)
            if rig.ours.apics[cpu].cr8() == class & 0xf && rig.ours.apics[cpu].tpr() & 0xf != 0 =>
        {
            Quirk::ApicCr8OfTheSameClass
        }
        Op::IoEoi(..) => Quirk::IoApicHasNoEoiRegister,
        Op::IoWrite(_, register @ REG_TABLE..0x40, value) => return of_entry(rig, register, value),
        Op::Msi(address, data) => return of_msi(address, data).filter(|quirk| rig.forgiven.contains(quirk)),
        _ => return None,
    };
    rig.forgiven.contains(&quirk).then_some(quirk)
}

/// KVM's guest could not go on behind it, or there is nobody to do it.
pub fn out_of_reach(rig: &ApicRig, op: &Op) -> bool {
    // QEMU's nested SVM may die of it: it takes no lock where it asserts that it holds it.
    if matches!(*op, Op::WriteCr8(..)) && Host::get().emulated {
        return true;
    }
    // The reserved timer mode: what counts in it, and whether, is anybody's guess.
    let reserved_mode = |value: u64| value & TIMER_MODES == TIMER_MODES;
    if matches!(*op, Op::Write(_, reg::LVT_TIMER, value) if reserved_mode(value.into()))
        || matches!(*op, Op::WriteMsr(_, TIMER_MSR, value) if reserved_mode(value))
    {
        return true;
    }
    let actor = match *op {
        Op::Line(..) | Op::Msi(..) => return false,
        Op::IoWrite(cpu, ..) | Op::IoRead(cpu, _) | Op::IoEoi(cpu, _) | Op::Read(cpu, _) | Op::Write(cpu, ..) => cpu,
        Op::Ipi(cpu, ..) | Op::ReadMsr(cpu, _) | Op::WriteMsr(cpu, ..) | Op::FarDeadline(cpu, _) => cpu,
        Op::ReadCr8(cpu) | Op::WriteCr8(cpu, _) | Op::Accept(cpu) => cpu,
        Op::CountEnds(cpu, _) | Op::DeadlinePasses(cpu) => cpu,
        Op::Race(first, second) => {
            return first == second || rig.ours.waits[first] || rig.ours.waits[second];
        }
    };
    // INIT to oneself: the processor is gone before it can say so.
    let init_to_self = match *op {
        Op::Ipi(cpu, to, low) => {
            let to_self = if rig.ours.is_x2apic(cpu) { to } else { to & 0xff } as usize == cpu;
            let shorthand = low >> 18 & 3;
            low >> 8 & 7 == DeliveryMode::Init as u32
                && !(shorthand == 3 || shorthand == 0 && low & 1 << 11 == 0 && !to_self)
        }
        _ => false,
    };
    // A count that may end at any time.
    let count = match *op {
        Op::Write(_, reg::TIMER_INITIAL, count) => count,
        Op::WriteMsr(_, msr, count) if msr == X2APIC_FIRST + (reg::TIMER_INITIAL >> 4) => count as u32,
        _ => 0,
    };
    // The page moved, perhaps onto another one that counts.
    let moved = match *op {
        Op::WriteMsr(_, IA32_APIC_BASE, value) => {
            let address = APIC_BASE_ADDR_MASK & ((1 << rig.physical_bits) - 1);
            value & address != LAPIC_BASE
        }
        _ => false,
    };
    moved || (count != 0 && count < LONG_COUNT) || actor >= CPUS || rig.ours.waits[actor] || init_to_self
}

/// A logical destination while some are in x2APIC mode and others are not, or what would make it one.
fn is_logical_in_mixed_modes(rig: &ApicRig, op: &Op) -> bool {
    let mixed = is_mixed(rig);
    match *op {
        Op::WriteMsr(_, IA32_APIC_BASE, value) => {
            value & ApicBase::X2APIC.bits() != 0
                && (0..24).any(|pin| rig.ours.ioapic.entry(pin).is_some_and(|entry| entry.logical()))
        }
        Op::IoWrite(_, REG_TABLE..0x40, value) => mixed && value & 1 << 11 != 0,
        Op::Msi(address, _) => mixed && address & 1 << 2 != 0,
        Op::Ipi(_, _, low) | Op::Write(_, reg::ICR_LOW, low) => mixed && low & 1 << 11 != 0,
        Op::WriteMsr(_, msr, value) => mixed && msr == X2APIC_FIRST + (reg::ICR_LOW >> 4) && value & 1 << 11 != 0,
        _ => false,
    }
}

/// An IPI for the destination that means everyone, while some are in x2APIC mode and others are not.
fn is_broadcast_in_mixed_modes(rig: &ApicRig, op: &Op) -> bool {
    let to_all = match *op {
        Op::Ipi(cpu, to, _) => to == u32::MAX || !rig.ours.is_x2apic(cpu) && to & 0xff == 0xff,
        Op::WriteMsr(_, msr, value) => msr == X2APIC_FIRST + (reg::ICR_LOW >> 4) && value >> 32 == 0xffff_ffff,
        Op::Write(cpu, reg::ICR_LOW, _) => rig.ours.apics[cpu].page(0)[reg::ICR_HIGH as usize >> 4] >> 24 == 0xff,
        _ => false,
    };
    to_all && is_mixed(rig)
}

fn is_mixed(rig: &ApicRig) -> bool {
    let x2apics = (0..CPUS).filter(|&cpu| rig.ours.is_x2apic(cpu)).count();
    x2apics != 0 && x2apics != CPUS
}

/// After this write of LDR or DFR somebody in xAPIC mode has several bits in its logical ID, or one that another has.
fn shares_a_bit(rig: &ApicRig, cpu: usize, register: u32, value: u32) -> bool {
    let ids = (0..CPUS).filter(|&other| !rig.ours.is_x2apic(other)).map(|other| {
        let page = rig.ours.apics[other].page(0);
        let now = |at: u32| if (other, at) == (cpu, register) { value } else { page[at as usize >> 4] };
        let (id, flat) = (now(reg::LDR) >> 24, now(reg::DFR) >> 28 == 0xf);
        if flat { (u32::MAX, id) } else { (id >> 4, id & 0xf) }
    });
    let ids: Vec<_> = ids.collect();
    let meet = |&(model, bits): &(u32, u32)| ids.iter().filter(|id| id.0 == model && id.1 & bits != 0).count() > 1;
    ids.iter().any(|id| id.1.count_ones() > 1 || meet(id))
}

/// An EOI of a level interrupt, while an edge pin with its vector is high.
fn fires_an_edge(rig: &ApicRig, cpu: usize) -> bool {
    let (apic, ioapic) = (&rig.ours.apics[cpu], &rig.ours.ioapic);
    let Some(vector) = apic.isr().highest().filter(|&vector| apic.tmr().contains(vector)) else { return false };
    let edge = |entry: RedirectionEntry| entry.vector() == vector && !entry.level() && !entry.masked();
    (0..24).any(|pin| ioapic.line(pin) == Some(true) && ioapic.entry(pin).is_some_and(edge))
}

/// An EOI of a level interrupt, while a pin waits for one of its vector and does not go to this processor.
fn ends_one_of_others(rig: &ApicRig, cpu: usize) -> bool {
    let (apic, ioapic) = (&rig.ours.apics[cpu], &rig.ours.ioapic);
    let Some(vector) = apic.isr().highest().filter(|&vector| apic.tmr().contains(vector)) else { return false };
    let table = DestinationTable::new(rig.ours.apics.iter().map(LocalApic::address).collect());
    let goes_here = |entry: RedirectionEntry| {
        let mut here = false;
        if let Some(message) = Message::from_redirection(entry) {
            table.for_each(message.destination, |index| here |= index == cpu);
        }
        here
    };
    let entries = (0..24).filter_map(|pin| ioapic.entry(pin));
    entries.filter(|entry| entry.vector() == vector && entry.remote_irr()).any(|entry| !goes_here(entry))
}

fn of_icr(low: u32, several: bool) -> Option<Quirk> {
    let icr = Icr::from_bits(low.into());
    let (mode, shorthand) = (icr.mode(), icr.shorthand());
    let with_self = matches!(shorthand, Shorthand::Myself | Shorthand::All);
    if mode != DeliveryMode::Fixed && with_self {
        return Some(Quirk::ApicSendsInvalidCombinations);
    }
    if mode == DeliveryMode::LowestPriority && (several || shorthand != Shorthand::None) {
        return Some(Quirk::ApicLowestPriorityGoesByVector);
    }
    let counts = matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority);
    if !counts && icr.logical() && shorthand == Shorthand::None {
        return Some(Quirk::ApicLogicalMissesTheDisabled);
    }
    (counts && low & 1 << 15 != 0).then_some(Quirk::ApicSendsLevelIpis)
}

fn of_x2apic_write(offset: u32, value: u64) -> Option<Quirk> {
    let (status, lint) = (1 << 12, 1 << 14);
    let writable: u64 = match offset {
        reg::TPR => 0xff,
        reg::EOI => 0,
        reg::SVR => 0x13ff,
        reg::LVT_TIMER => 0x7_00ff | status,
        reg::LVT_THERMAL | reg::LVT_PERF => 0x1_07ff | status,
        reg::LVT_LINT0 | reg::LVT_LINT1 => 0x1_a7ff | status | lint,
        reg::LVT_ERROR => 0x1_00ff | status,
        reg::TIMER_DIVIDE => 0xb,
        reg::ICR_LOW => return of_icr(value as u32, true),
        _ => return None,
    };
    // KVM checks the upper half of each.
    if value >> 32 != 0 {
        return None;
    }
    if value & !writable != 0 {
        return Some(Quirk::ApicX2ReservedBits);
    }
    match offset {
        reg::SVR if value & 1 << 12 != 0 => Some(Quirk::ApicHasNoEoiSuppression),
        reg::LVT_ERROR if value & 1 << 16 == 0 => Some(Quirk::ApicHasNoErrors),
        _ => None,
    }
}

fn of_entry(rig: &ApicRig, register: u8, value: u32) -> Option<Quirk> {
    let old = rig.ours.ioapic.entry((register - REG_TABLE) / 2)?;
    let bits = old.into_bits();
    let new = RedirectionEntry::from_bits(match register % 2 {
        0 => bits & !0xffff_ffff | u64::from(value),
        _ => bits & 0xffff_ffff | u64::from(value) << 32,
    });
    let message = |mode| matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority);
    let mode = new.mode()?;
    let quirk = if new.ext_destination() != 0 {
        Quirk::IoApicHasNoWideDestinations
    } else if matches!(mode, DeliveryMode::RemoteRead | DeliveryMode::StartUp | DeliveryMode::ExtInt) {
        Quirk::IoApicSendsReservedModes
    } else if !message(mode) && new.level() {
        Quirk::IoApicSendsLevelNmis
    } else if !message(mode) && new.logical() {
        Quirk::ApicLogicalMissesTheDisabled
    } else if mode == DeliveryMode::LowestPriority && (new.logical() || new.destination() == 0xff) {
        Quirk::ApicLowestPriorityGoesByVector
    } else if rig.parked >> ((register - REG_TABLE) / 2) & 1 == 1 && !new.level() {
        // It would be an edge for KVM when it sees the pin again.
        Quirk::IoApicTakesNobodyForSomebody
    } else if old.remote_irr() && new.vector() != old.vector() {
        Quirk::IoApicEndsByNewVectorOnly
    } else {
        return None;
    };
    rig.forgiven.contains(&quirk).then_some(quirk)
}

fn of_msi(address: u32, data: u32) -> Option<Quirk> {
    if address & 0xfe0 != 0 {
        return Some(Quirk::IoApicHasNoWideDestinations);
    }
    let mode = data >> 8 & 7;
    if mode == DeliveryMode::RemoteRead as u32 || mode >= DeliveryMode::StartUp as u32 {
        return Some(Quirk::IoApicSendsReservedModes);
    }
    if data >> 14 & 3 == 2 {
        return Some(Quirk::MsiDeassertIsSent);
    }
    if address & 1 << 3 != 0 && mode > DeliveryMode::LowestPriority as u32 {
        return Some(Quirk::MsiHintChoosesForNmis);
    }
    if address & 1 << 2 != 0 && mode > DeliveryMode::LowestPriority as u32 {
        return Some(Quirk::ApicLogicalMissesTheDisabled);
    }
    let message = Message::from_msi(address.into(), data)?;
    let one = matches!(message.destination, Destination::Physical(_));
    (message.mode == DeliveryMode::LowestPriority && !one).then_some(Quirk::ApicLowestPriorityGoesByVector)
}
