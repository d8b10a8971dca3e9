//! CPUID leaves and bits that the interrupt path sets or hides.

/// Leaf 1 ECX: x2APIC.
pub const LEAF1_ECX_X2APIC: u32 = 1 << 21;
/// Leaf 1 ECX: TSC-deadline timer.
pub const LEAF1_ECX_TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1 ECX: MONITOR/MWAIT.
pub const LEAF1_ECX_MONITOR: u32 = 1 << 3;
/// Leaf 1 ECX: running under a hypervisor.
pub const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 EDX: on-chip APIC; clear while IA32_APIC_BASE.EN is.
pub const LEAF1_EDX_APIC: u32 = 1 << 9;
/// Leaf 1 EDX: the package may hold more than one logical processor (HTT).
pub const LEAF1_EDX_HTT: u32 = 1 << 28;
/// The hypervisor's signature leaf.
pub const KVM_SIGNATURE: u32 = 0x4000_0000;
/// KVM's feature leaf.
pub const KVM_FEATURES: u32 = 0x4000_0001;
