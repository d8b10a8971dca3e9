//! IA32_APIC_BASE: where the APIC is and in which mode (Intel SDM vol. 3A, sections "Local APIC Status and Location"
//! and "x2APIC State Transitions").

use x86::msr::{APIC_BASE_ADDR_MASK, ApicBase};

use super::Gp;

/// The APIC's mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Globally disabled: as a processor without a local APIC.
    Disabled,
    /// Registers in a page of memory, 8-bit IDs.
    XApic,
    /// Registers in MSRs, 32-bit IDs.
    X2Apic,
}

/// The mode that the EN and EXTD bits say; `None` for EXTD without EN.
pub fn mode(base: u64) -> Option<Mode> {
    let bits = ApicBase::from_bits_truncate(base);
    match (bits.contains(ApicBase::ENABLE), bits.contains(ApicBase::X2APIC)) {
        (false, false) => Some(Mode::Disabled),
        (true, false) => Some(Mode::XApic),
        (true, true) => Some(Mode::X2Apic),
        (false, true) => None,
    }
}

/// The mode of a local APIC of `config` that has `base`, if it can have it.
pub fn check_state(base: u64, config: super::Config) -> Option<Mode> {
    let bsp = base & ApicBase::BSP.bits() != 0;
    let mode = mode(base).filter(|_| bsp == config.bsp)?;
    // Every mode is its own successor, so only the bits matter.
    check_write(base, base, config.x2apic, config.physical_bits).ok()?;
    Some(mode)
}

/// Checks a write of `new` over `old`: reserved bits and the transitions that the figure "Local x2APIC State
/// Transitions with IA32_APIC_BASE, INIT, and Reset" does not have give #GP. `x2apic` says whether CPUID offers it.
pub fn check_write(old: u64, new: u64, x2apic: bool, physical_bits: u32) -> Result<Mode, Gp> {
    let address = APIC_BASE_ADDR_MASK & ((1 << physical_bits.min(52)) - 1);
    let mut allowed = (ApicBase::BSP | ApicBase::ENABLE).bits() | address;
    if x2apic {
        allowed |= ApicBase::X2APIC.bits();
    }
    if new & !allowed != 0 {
        return Err(Gp);
    }
    let from = mode(old).ok_or(Gp)?;
    let to = mode(new).ok_or(Gp)?;
    match (from, to) {
        (Mode::X2Apic, Mode::XApic) | (Mode::Disabled, Mode::X2Apic) => Err(Gp),
        _ => Ok(to),
    }
}
