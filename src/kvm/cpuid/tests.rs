use super::*;

fn entry(function: u32, index: u32, regs: [u32; 4]) -> kvm_cpuid_entry2 {
    let mut entry = kvm_cpuid_entry2 { function, index, ..Default::default() };
    set(&mut entry, regs);
    entry
}

fn vendor(name: &[u8; 12], max_leaf: u32) -> kvm_cpuid_entry2 {
    let word = |at: usize| u32::from_le_bytes([name[at], name[at + 1], name[at + 2], name[at + 3]]);
    entry(0, 0, [max_leaf, word(0), word(8), word(4)])
}

/// A host of 8 cores and 16 threads, running KVM on its CPU number 5, with everything switched on.
fn host(name: &[u8; 12], max_leaf: u32) -> Vec<kvm_cpuid_entry2> {
    let all = [u32::MAX; 4];
    let mut host = vec![
        vendor(name, max_leaf),
        entry(1, 0, [0x00a2_0f12, 5 << 24 | 16 << 16 | 0x0800, u32::MAX, u32::MAX]),
        entry(5, 0, all),
        entry(6, 0, all),
        entry(7, 0, all),
        entry(7, 1, all),
        entry(0xa, 0, all),
        entry(0x15, 0, all),
        entry(0x4000_0000, 0, [0x4000_0010, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
        entry(0x4000_0001, 0, all),
        entry(0x4000_0010, 0, all),
        entry(0x8000_0000, 0, [0x8000_0026, 0, 0, 0]),
        entry(0x8000_0001, 0, all),
        entry(0x8000_0008, 0, [0x3030, 0, 0xf00f, 0]),
        entry(0x8000_000a, 0, all),
        entry(0x8000_001e, 0, [5, 0x0105, 0x0300, 0]),
        entry(0x8000_0022, 0, all),
    ];
    // Data, instruction, level 2, level 3, end: each shared by 2, 2, 2 and 16 threads.
    for (index, (kind, level, sharing)) in [(1, 1, 1), (2, 1, 1), (3, 2, 1), (3, 3, 15), (0, 0, 0)].iter().enumerate() {
        let eax = if *kind == 0 { 0 } else { kind | level << 5 | sharing << 14 | 7 << 26 };
        host.push(entry(4, index as u32, [eax, 0, 0, 0]));
        host.push(entry(0x8000_001d, index as u32, [eax & 0x03ff_ffff, 0, 0, 0]));
    }
    for index in 0..3 {
        host.push(entry(0xb, index, [1, 2, 0x100 | index, 5]));
        host.push(entry(0x1f, index, [1, 2, 0x100 | index, 5]));
    }
    host
}

fn config(apic_id: u32, cpus: u32) -> CpuidConfig {
    CpuidConfig {
        apic_id,
        cpus,
        max_apic_id: cpus - 1,
        x2apic: true,
        tsc_deadline: true,
        pv_eoi: true,
        invariant_tsc: true,
        paravirtual: Paravirtual::WithoutLocalApic,
        ext_destination: false,
    }
}

fn leaf(table: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
    *table.iter().find(|e| e.function == function && e.index == index).expect("the leaf is there")
}

const INTEL: &[u8; 12] = b"GenuineIntel";
const AMD: &[u8; 12] = b"AuthenticAMD";

/// Where the guest finds its own ID.
fn ids(table: &[kvm_cpuid_entry2]) -> Vec<u32> {
    let mut ids = vec![leaf(table, 1, 0).ebx >> 24];
    ids.extend(table.iter().filter(|e| matches!(e.function, 0xb | 0x1f)).map(|e| e.edx));
    ids
}

#[test]
fn every_leaf_tells_the_same_apic_id() {
    for vendor in [INTEL, AMD] {
        let host = host(vendor, 0x20);
        for apic_id in [0, 1, 6, 7] {
            let table = table(&host, &config(apic_id, 8));
            let ids = ids(&table);
            assert_eq!(ids, vec![apic_id; 7]);
            if vendor == AMD {
                let ext = leaf(&table, 0x8000_001e, 0);
                assert_eq!((ext.eax, ext.ebx, ext.ecx), (apic_id, apic_id, 0));
            }
        }
    }
}

#[test]
fn an_id_above_255_is_whole_in_the_x2apic_leaf_and_cut_in_leaf_1() {
    let table = table(&host(INTEL, 0x20), &config(300, 400));
    assert_eq!(leaf(&table, 1, 0).ebx >> 24, 300 & 0xff);
    assert_eq!(leaf(&table, 0xb, 0).edx, 300);
    assert_eq!(leaf(&table, 0xb, 1).eax, 9);
}

#[test]
fn widths_are_those_of_the_highest_id() {
    for (cpus, bits) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4), (255, 8), (256, 8), (257, 9)] {
        let table = table(&host(AMD, 0x10), &config(0, cpus));
        let (thread, core, end) = (leaf(&table, 0xb, 0), leaf(&table, 0xb, 1), leaf(&table, 0xb, 2));
        assert_eq!((thread.eax, thread.ebx, thread.ecx), (0, 1, 0x100), "a core is one thread");
        assert_eq!((core.eax, core.ebx, core.ecx), (bits, cpus, 0x201), "{cpus} cores");
        assert_eq!((end.eax, end.ebx, end.ecx), (0, 0, 2));
        assert_eq!(leaf(&table, 0x8000_0008, 0).ecx >> 12, bits, "{cpus} cores");
    }
}

#[test]
fn sparse_ids_widen_the_package_but_do_not_add_cores() {
    let sparse = CpuidConfig { max_apic_id: 9, ..config(9, 3) };
    let table = table(&host(AMD, 0x10), &sparse);
    let core = leaf(&table, 0xb, 1);
    assert_eq!((core.eax, core.ebx), (4, 3));
}

#[test]
fn topology_leaves_of_the_host_do_not_shine_through() {
    let table = table(&host(INTEL, 0x20), &config(2, 4));
    for function in [0xb, 0x1f] {
        assert_eq!(table.iter().filter(|e| e.function == function).count(), 3);
        assert!(table.iter().filter(|e| e.function == function).all(|e| e.flags == KVM_CPUID_FLAG_SIGNIFCANT_INDEX));
    }
}

#[test]
fn a_host_without_leaf_0xb_still_gives_one_and_never_0x1f() {
    let table = table(&[vendor(AMD, 7), entry(1, 0, [0; 4])], &config(1, 2));
    assert_eq!(leaf(&table, 0, 0).eax, 0xb);
    assert_eq!(leaf(&table, 0xb, 0).edx, 1);
    assert!(table.iter().all(|e| e.function != 0x1f));
}

#[test]
fn counts_in_leaf_1_are_ids_with_intel_and_cores_with_amd() {
    let count = |vendor, cpus| leaf(&table(&host(vendor, 0x20), &config(0, cpus)), 1, 0).ebx >> 16 & 0xff;
    assert_eq!((count(INTEL, 1), count(INTEL, 3), count(INTEL, 300)), (1, 4, 255));
    assert_eq!((count(AMD, 1), count(AMD, 3), count(AMD, 300)), (1, 3, 255));
}

#[test]
fn a_single_processor_has_no_htt_and_no_cmp_legacy() {
    for (cpus, expected) in [(1, false), (2, true)] {
        let table = table(&host(AMD, 0x10), &config(0, cpus));
        assert_eq!(leaf(&table, 1, 0).edx & LEAF1_EDX_HTT != 0, expected);
        assert_eq!(leaf(&table, 0x8000_0001, 0).ecx & EXT1_ECX_CMP_LEGACY != 0, expected);
        assert_eq!(leaf(&table, 0x8000_0008, 0).ecx & 0xff, cpus - 1);
    }
}

#[test]
fn inner_caches_are_private_and_the_last_level_is_shared_by_all() {
    let table = table(&host(INTEL, 0x20), &config(1, 6));
    let sharing = |function, index| leaf(&table, function, index).eax >> 14 & 0xfff;
    for index in 0..3 {
        assert_eq!((sharing(4, index), sharing(0x8000_001d, index)), (0, 0));
        assert_eq!(leaf(&table, 4, index).eax >> 26, 7, "IDs of cores in the package, less one");
    }
    assert_eq!((sharing(4, 3), sharing(0x8000_001d, 3)), (7, 5));
    assert_eq!((leaf(&table, 4, 4).eax, leaf(&table, 0x8000_001d, 4).eax), (0, 0), "the end of the list stays");
}

#[test]
fn timer_and_x2apic_bits_are_what_the_probe_found() {
    for (x2apic, tsc_deadline) in [(false, false), (false, true), (true, false), (true, true)] {
        for bare in [vec![vendor(INTEL, 1), entry(1, 0, [0; 4])], host(INTEL, 0x20)] {
            let ecx = leaf(&table(&bare, &CpuidConfig { x2apic, tsc_deadline, ..config(0, 1) }), 1, 0).ecx;
            assert_eq!((ecx & LEAF1_ECX_X2APIC != 0, ecx & LEAF1_ECX_TSC_DEADLINE != 0), (x2apic, tsc_deadline));
            assert_ne!(ecx & LEAF1_ECX_HYPERVISOR, 0);
        }
    }
}

#[test]
fn only_listed_paravirtual_features_stay_and_the_signature_does() {
    let plain = table(&host(AMD, 0x10), &CpuidConfig { pv_eoi: false, ..config(0, 2) });
    assert_eq!(leaf(&plain, KVM_FEATURES, 0).eax, 0x0100_002b, "no PV_EOI where the MSR does not come to us");
    let table = table(&host(AMD, 0x10), &config(0, 2));
    let signature = leaf(&table, KVM_SIGNATURE, 0);
    assert_eq!((signature.eax, signature.ebx), (KVM_FEATURES, 0x4b4d_564b));
    let features = leaf(&table, KVM_FEATURES, 0);
    assert_eq!((features.eax, features.edx), (0x0100_006b, 0));
    assert!(table.iter().all(|e| e.function != 0x4000_0010));
}

#[test]
fn what_needs_the_in_kernel_apic_or_is_not_here_is_hidden() {
    let table = table(&host(AMD, 0x20), &config(0, 2));
    let ecx1 = leaf(&table, 1, 0).ecx;
    for (bit, what) in [(3, "MONITOR"), (5, "VMX"), (15, "PDCM")] {
        assert_eq!(ecx1 >> bit & 1, 0, "{what}");
    }
    let ext = leaf(&table, 0x8000_0001, 0).ecx;
    for (bit, what) in [(2, "SVM"), (10, "IBS"), (23, "PERFCTR_CORE"), (24, "PERFCTR_NB"), (28, "PERFCTR_LLC")] {
        assert_eq!(ext >> bit & 1, 0, "{what}");
    }
    for function in [5, 0xa, 0x15, 0x8000_000a, 0x8000_0022] {
        let e = leaf(&table, function, 0);
        assert_eq!([e.eax, e.ebx, e.ecx, e.edx], [0; 4], "leaf {function:#x}");
    }
    assert_eq!(leaf(&table, 6, 0).eax, LEAF6_EAX_ARAT);
}

#[test]
fn nonsense_counts_do_not_panic() {
    for (cpus, max_apic_id) in [(0, 0), (u32::MAX, u32::MAX), (1, u32::MAX), (u32::MAX, 0)] {
        let odd = CpuidConfig {
            apic_id: u32::MAX,
            cpus,
            max_apic_id,
            x2apic: false,
            tsc_deadline: false,
            pv_eoi: false,
            invariant_tsc: false,
            paravirtual: Paravirtual::All,
            ext_destination: true,
        };
        for vendor in [INTEL, AMD] {
            assert!(!table(&host(vendor, 0x20), &odd).is_empty());
        }
    }
}

#[test]
fn kvm_takes_the_table_and_answers_with_it() {
    let Some(kvm) = crate::testing::kvm() else { return };
    let supported = kvm.supported_cpuid().unwrap();
    let vm = kvm.create_vm().unwrap();
    for apic_id in 0..2 {
        let mut vcpu = vm.create_vcpu(apic_id).unwrap();
        let wanted = table(&supported, &config(apic_id, 2));
        vcpu.set_cpuid(&wanted).unwrap();
        let got = vcpu.cpuid().unwrap();
        assert_eq!(ids(&got), ids(&wanted));
        assert_eq!(leaf(&got, 0xb, 1).ebx, 2);
        assert_ne!(leaf(&got, 1, 0).ecx & LEAF1_ECX_X2APIC, 0);
    }
}

#[test]
fn the_invariant_tsc_is_offered_as_configured_whatever_kvm_says() {
    for (kvm, invariant_tsc) in [(0, true), (1 << 8, false)] {
        let supported = [kvm_cpuid_entry2 { function: 0x8000_0007, edx: kvm, ..Default::default() }];
        let table = table(&supported, &CpuidConfig { invariant_tsc, ..config(0, 1) });
        assert_eq!(leaf(&table, 0x8000_0007, 0).edx & 1 << 8 != 0, invariant_tsc);
    }
}
