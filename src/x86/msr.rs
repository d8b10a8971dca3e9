//! Model-specific registers that the interrupt path knows by number.

/// Time-stamp counter.
pub const IA32_TSC: u32 = 0x10;
/// Local APIC base and mode (Intel SDM vol. 3A, section "Local APIC Status and Location").
pub const IA32_APIC_BASE: u32 = 0x1b;
/// Per-thread TSC adjustment.
pub const IA32_TSC_ADJUST: u32 = 0x3b;
/// MTRR capabilities.
pub const IA32_MTRR_CAP: u32 = 0xfe;
/// Miscellaneous enables; bit 0 is fast strings.
pub const IA32_MISC_ENABLE: u32 = 0x1a0;
/// MTRR default type and enable bits.
pub const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
/// TSC-deadline (Intel SDM vol. 3A, section "TSC-Deadline Mode").
pub const IA32_TSC_DEADLINE: u32 = 0x6e0;
/// First x2APIC register (section "x2APIC Register Address Space").
pub const X2APIC_FIRST: u32 = 0x800;
/// Last register number of the x2APIC address space.
pub const X2APIC_LAST: u32 = 0x8ff;
/// Paravirtual EOI (Linux kernel, Documentation/virt/kvm/x86/msr.rst, MSR_KVM_EOI_EN).
pub const KVM_PV_EOI: u32 = 0x4b56_4d04;
/// Enable bit of [`KVM_PV_EOI`]; the rest is the address of a 4-byte field, bit 1 reserved.
pub const PV_EOI_ENABLE: u64 = 1;
/// Extended feature enables (AMD APM vol. 2, section "Extended Feature Enable Register (EFER)").
pub const EFER: u32 = 0xc000_0080;

bitflags::bitflags! {
    /// Bits of [`IA32_APIC_BASE`] besides the base address.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ApicBase: u64 {
        /// This is the bootstrap processor (read only in effect).
        const BSP = 1 << 8;
        /// x2APIC mode (EXTD).
        const X2APIC = 1 << 10;
        /// Global enable (EN).
        const ENABLE = 1 << 11;
    }
}

/// The page-aligned base address in [`IA32_APIC_BASE`], with 52 physical-address bits.
pub const APIC_BASE_ADDR_MASK: u64 = 0x000f_ffff_ffff_f000;
