//! The CPUID table of one vCPU, made from what KVM supports.
//!
//! The machine is one package of single-threaded cores that share the last-level cache; every leaf that tells an APIC ID
//! or counts processors says so. Follows the Intel SDM vol. 2A, instruction CPUID, and vol. 3A, section "Hierarchical
//! Mapping of Shared Resources"; the AMD APM vol. 3, appendix E ("Obtaining Processor Information Via the CPUID
//! Instruction"); and the Linux kernel's "KVM CPUID bits".
//!
//! Hidden where the local APICs are not KVM's: paravirtual features that need one of its own. Hidden in all modes, so that
//! they can be compared: the virtual PMU (its interrupt goes to KVM's local APIC), virtualization inside the guest. Hidden, because nothing of the kind is
//! here: MONITOR/MWAIT, thermal sensors, SGX, memory encryption, crystal clock (leaf 15H: a guest would take the local
//! APIC timer's frequency from it).

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use x86::cpuid::{
    KVM_FEATURES, KVM_SIGNATURE, LEAF1_ECX_HYPERVISOR, LEAF1_ECX_MONITOR, LEAF1_ECX_TSC_DEADLINE, LEAF1_ECX_X2APIC,
    LEAF1_EDX_APIC, LEAF1_EDX_HTT,
};

#[cfg(test)]
mod tests;

/// What the table has to say about one vCPU of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuidConfig {
    /// This vCPU's APIC ID.
    pub apic_id: u32,
    /// How many vCPUs the machine has, at least 1.
    pub cpus: u32,
    /// The highest APIC ID of the machine.
    pub max_apic_id: u32,
    /// Offer x2APIC mode ([`crate::probe::HostFeatures::x2apic`]).
    pub x2apic: bool,
    /// Offer the TSC-deadline timer ([`crate::probe::HostFeatures::tsc_deadline`]).
    pub tsc_deadline: bool,
    /// Offer paravirtual EOI ([`crate::probe::HostFeatures::pv_eoi`]): the MSR is filtered and answered.
    pub pv_eoi: bool,
    /// Offer the invariant TSC: the host's kernel trusts its TSC to count at one rate on every processor. KVM offers it
    /// only where the host's own CPUID says so, which emulated hosts leave out.
    pub invariant_tsc: bool,
    /// Which of KVM's paravirtual features work.
    pub paravirtual: Paravirtual,
    /// Offer destinations of 15 bits in messages and redirection entries: those who decode them know the extension.
    pub ext_destination: bool,
}

/// Which of KVM's paravirtual features work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paravirtual {
    /// Those that don't need KVM's local APIC.
    WithoutLocalApic,
    /// All but those by which a guest calls the hypervisor.
    WithoutHypercalls,
    /// All that KVM offers.
    All,
}

impl Paravirtual {
    fn mask(self) -> u32 {
        match self {
            Self::WithoutLocalApic => PARAVIRTUAL_WITHOUT_APIC,
            Self::WithoutHypercalls => !PARAVIRTUAL_HYPERCALLS,
            Self::All => !0,
        }
    }
}

/// Paravirtual features that work without KVM's local APIC: CLOCKSOURCE, NOP_IO_DELAY, CLOCKSOURCE2, STEAL_TIME,
/// CLOCKSOURCE_STABLE_BIT. None of them makes a guest use hypercalls.
const PARAVIRTUAL_WITHOUT_APIC: u32 = 1 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 24;
/// Paravirtual features that make a guest use hypercalls: MMU_OP, PV_UNHALT, PV_SEND_IPI, PV_SCHED_YIELD,
/// HC_MAP_GPA_RANGE, MIGRATION_CONTROL.
const PARAVIRTUAL_HYPERCALLS: u32 = 1 << 2 | 1 << 7 | 1 << 11 | 1 << 13 | 1 << 16 | 1 << 17;
/// MSI_EXT_DEST_ID, which is for the one to offer who decodes messages and redirection entries.
const EXT_DESTINATION: u32 = 1 << 15;
/// PV_EOI: needs KVM's local APIC, or ours behind the MSR filter.
const PARAVIRTUAL_EOI: u32 = 1 << 6;

/// Leaf 1 ECX: DTES64, DS-CPL, VMX, EST, TM2, PDCM (performance capabilities).
const LEAF1_ECX_HIDDEN: u32 = LEAF1_ECX_MONITOR | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 15;
/// Leaf 7 EBX: SGX.
const LEAF7_EBX_HIDDEN: u32 = 1 << 2;
/// Leaf 7 ECX: SGX launch configuration.
const LEAF7_ECX_HIDDEN: u32 = 1 << 30;
/// Leaf 7 EDX: hybrid processor, architectural LBRs.
const LEAF7_EDX_HIDDEN: u32 = 1 << 15 | 1 << 19;
/// Leaf 7 subleaf 1 EAX: performance monitoring leaf 23H.
const LEAF7_1_EAX_HIDDEN: u32 = 1 << 8;
/// Leaf 80000001H ECX: SVM, extended APIC space, instruction-based sampling, SKINIT, watchdog, core, northbridge and
/// last-level performance counters, performance TSC, MONITORX.
const EXT1_ECX_HIDDEN: u32 =
    1 << 2 | 1 << 3 | 1 << 10 | 1 << 12 | 1 << 13 | 1 << 23 | 1 << 24 | 1 << 27 | 1 << 28 | 1 << 29;
/// Leaf 80000001H ECX: CmpLegacy: leaf 1's count is one of cores.
const EXT1_ECX_CMP_LEGACY: u32 = 1 << 1;

/// Leaves that read as zero: MONITOR, SGX, processor trace, crystal clock, frequencies, LBRs, performance monitoring
/// (Intel and AMD), SVM, instruction-based sampling, lightweight profiling, memory encryption, AMD's extended topology.
const ZERO_LEAVES: [u32; 14] = [
    0x5,
    0xa,
    0x12,
    0x14,
    0x15,
    0x16,
    0x1c,
    0x23,
    0x8000_000a,
    0x8000_001b,
    0x8000_001c,
    0x8000_001f,
    0x8000_0022,
    0x8000_0026,
];
/// Leaf 80000007H EDX: invariant TSC.
const APM_EDX_INVARIANT_TSC: u32 = 1 << 8;
/// Leaf 7 EBX: processor trace, whose leaf is hidden.
const LEAF7_EBX_PT: u32 = 1 << 25;
/// Leaf 6 EAX: the local APIC timer always runs (ARAT). Ours does.
const LEAF6_EAX_ARAT: u32 = 1 << 2;

const TOPOLOGY: u32 = 0xb;
const TOPOLOGY_V2: u32 = 0x1f;

/// The table for one vCPU. `supported` is [`crate::Kvm::supported_cpuid`].
pub fn table(supported: &[kvm_cpuid_entry2], config: &CpuidConfig) -> Vec<kvm_cpuid_entry2> {
    let topology = Topology::new(supported, config);
    let max_leaf = supported.iter().find(|e| e.function == 0).map_or(0, |e| e.eax);
    let mut table: Vec<_> = supported
        .iter()
        .filter(|e| !matches!(e.function, TOPOLOGY | TOPOLOGY_V2) && !beyond_kvm_features(e.function))
        .copied()
        .collect();
    for entry in &mut table {
        topology.describe(entry);
        restrict(entry, config);
    }
    for leaf in [TOPOLOGY, TOPOLOGY_V2] {
        // Every x2APIC guest wants the first; the second is there only where the host's table reaches it.
        if leaf == TOPOLOGY || max_leaf >= leaf {
            table.extend(topology.levels(leaf));
        }
    }
    table
}

/// Whether these are the entries of a processor that counts, and calls its hypervisor, in AMD's way.
pub(crate) fn is_amd(entries: &[kvm_cpuid_entry2]) -> bool {
    entries.iter().find(|e| e.function == 0).is_some_and(|e| {
        let vendor = [e.ebx.to_le_bytes(), e.edx.to_le_bytes(), e.ecx.to_le_bytes()].concat();
        vendor == b"AuthenticAMD" || vendor == b"HygonGenuine"
    })
}

/// In the hypervisor's range, but behind the two leaves that are KVM's.
fn beyond_kvm_features(function: u32) -> bool {
    (KVM_FEATURES + 1..KVM_SIGNATURE + 0x1_0000).contains(&function)
}

/// Hides what does not work here.
fn restrict(entry: &mut kvm_cpuid_entry2, config: &CpuidConfig) {
    match entry.function {
        0x1 => {
            entry.ecx &= !(LEAF1_ECX_HIDDEN | LEAF1_ECX_X2APIC | LEAF1_ECX_TSC_DEADLINE);
            entry.ecx |= LEAF1_ECX_HYPERVISOR;
            if config.x2apic {
                entry.ecx |= LEAF1_ECX_X2APIC;
            }
            if config.tsc_deadline {
                entry.ecx |= LEAF1_ECX_TSC_DEADLINE;
            }
            entry.edx |= LEAF1_EDX_APIC;
        }
        0x6 => set(entry, [LEAF6_EAX_ARAT, 0, 0, 0]),
        0x7 if entry.index == 0 => {
            entry.ebx &= !(LEAF7_EBX_HIDDEN | LEAF7_EBX_PT);
            entry.ecx &= !LEAF7_ECX_HIDDEN;
            entry.edx &= !LEAF7_EDX_HIDDEN;
        }
        0x7 if entry.index == 1 => entry.eax &= !LEAF7_1_EAX_HIDDEN,
        0x8000_0001 => entry.ecx &= !EXT1_ECX_HIDDEN,
        0x8000_0007 if config.invariant_tsc => entry.edx |= APM_EDX_INVARIANT_TSC,
        0x8000_0007 => entry.edx &= !APM_EDX_INVARIANT_TSC,
        KVM_SIGNATURE => entry.eax = KVM_FEATURES,
        KVM_FEATURES => {
            let kvms = entry.eax & config.paravirtual.mask() & !EXT_DESTINATION;
            let pv_eoi = if config.pv_eoi { PARAVIRTUAL_EOI } else { 0 };
            let ext_destination = if config.ext_destination { EXT_DESTINATION } else { 0 };
            set(entry, [kvms | pv_eoi | ext_destination, 0, 0, 0]);
        }
        leaf if ZERO_LEAVES.contains(&leaf) => set(entry, [0; 4]),
        _ => {}
    }
}

fn set(entry: &mut kvm_cpuid_entry2, [eax, ebx, ecx, edx]: [u32; 4]) {
    (entry.eax, entry.ebx, entry.ecx, entry.edx) = (eax, ebx, ecx, edx);
}

/// The machine as the topology leaves tell it.
struct Topology {
    apic_id: u32,
    cpus: u32,
    max_apic_id: u32,
    /// Bits of an APIC ID that number the cores: the package is what is above.
    core_bits: u32,
    /// The processor counts in AMD's way.
    amd: bool,
}

impl Topology {
    fn new(supported: &[kvm_cpuid_entry2], config: &CpuidConfig) -> Self {
        let amd = is_amd(supported);
        // ceil(log2(max + 1)) is the number of bits it takes to write max.
        let core_bits = u32::BITS - config.max_apic_id.leading_zeros();
        Self { apic_id: config.apic_id, cpus: config.cpus.max(1), max_apic_id: config.max_apic_id, core_bits, amd }
    }

    /// How many APIC IDs the package spans, as far as `most` lets it be told.
    fn ids(&self, most: u32) -> u32 {
        1u32.checked_shl(self.core_bits).map_or(most, |ids| ids.min(most))
    }

    /// Corrects an entry that tells IDs or counts.
    fn describe(&self, entry: &mut kvm_cpuid_entry2) {
        match entry.function {
            0x0 => entry.eax = entry.eax.max(TOPOLOGY),
            0x1 => {
                let count = if self.amd { self.cpus.min(0xff) } else { self.ids(0xff) };
                entry.ebx = entry.ebx & 0xffff | count << 16 | (self.apic_id & 0xff) << 24;
                if self.cpus > 1 {
                    entry.edx |= LEAF1_EDX_HTT;
                } else {
                    entry.edx &= !LEAF1_EDX_HTT;
                }
            }
            // A subleaf of type 0 (bits 4:0) ends the list of caches.
            0x4 if entry.eax & 0x1f != 0 => {
                let sharing = if cache_level(entry) < 3 { 1 } else { self.ids(0x1000) };
                entry.eax = entry.eax & 0x3fff | (sharing - 1) << 14 | (self.ids(0x40) - 1) << 26;
            }
            0x8000_0001 if self.amd => {
                if self.cpus > 1 {
                    entry.ecx |= EXT1_ECX_CMP_LEGACY;
                } else {
                    entry.ecx &= !EXT1_ECX_CMP_LEGACY;
                }
            }
            // NC and ApicIdCoreIdSize; reserved with Intel.
            0x8000_0008 => {
                entry.ecx = if self.amd { (self.cpus - 1).min(0xff) | self.core_bits.min(0xf) << 12 } else { 0 };
            }
            0x8000_001d if entry.eax & 0x1f != 0 => {
                let sharing = if cache_level(entry) < 3 { 0 } else { self.max_apic_id.min(0xfff) };
                entry.eax = entry.eax & 0x3fff | sharing << 14;
            }
            // Extended APIC ID; core ID, one thread per core; node 0, one node.
            0x8000_001e if self.amd => set(entry, [self.apic_id, self.apic_id & 0xff, 0, 0]),
            _ => {}
        }
    }

    /// The subleaves of leaf 0xb or 0x1f: thread level (no bits), core level, and the level that ends the list.
    fn levels(&self, function: u32) -> [kvm_cpuid_entry2; 3] {
        const SMT: u32 = 1 << 8;
        const CORE: u32 = 2 << 8;
        let level = |index, eax, ebx, kind| kvm_cpuid_entry2 {
            function,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax,
            ebx,
            ecx: index | kind,
            edx: self.apic_id,
            ..Default::default()
        };
        [level(0, 0, 1, SMT), level(1, self.core_bits, self.cpus.min(0xffff), CORE), level(2, 0, 0, 0)]
    }
}

/// Bits 7:5 of a cache leaf's EAX.
fn cache_level(entry: &kvm_cpuid_entry2) -> u32 {
    entry.eax >> 5 & 7
}
