use super::*;

const ENTRY: u64 = 0x100_0200;

fn set_up_memory() -> (GuestMemoryMmap, BootState) {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let state = long_mode(&memory, ENTRY).unwrap();
    (memory, state)
}

fn qword(memory: &GuestMemoryMmap, address: u64) -> u64 {
    memory.read_obj(GuestAddress(address)).unwrap()
}

/// Walks the page tables as the processor does; `None` for a page that is not present and writable.
fn translate(memory: &GuestMemoryMmap, cr3: u64, address: u64) -> Option<u64> {
    let mut table = cr3;
    for level in [39, 30, 21] {
        let entry = qword(memory, table + (address >> level & 511) * 8);
        if entry & 0b11 != 0b11 {
            return None;
        }
        if entry & 1 << 7 != 0 {
            assert_eq!(level, 21, "only 2 MiB pages: 1 GiB pages need a processor that has them");
            return Some((entry & 0x000f_ffff_ffe0_0000) | (address & 0x1f_ffff));
        }
        table = entry & 0x000f_ffff_ffff_f000;
    }
    None
}

#[test]
fn the_first_4_gib_are_mapped_one_to_one_and_no_more() {
    let (memory, state) = set_up_memory();
    for address in [0, 0x8000, 0x1f_ffff, 0x20_0000, 0x100_0200, 0x3fff_ffff, 0x4000_0000, 0xfee0_0000, 0xffff_ffff] {
        assert_eq!(translate(&memory, state.cr3, address), Some(address), "{address:#x}");
    }
    assert_eq!(translate(&memory, state.cr3, 0x1_0000_0000), None);
    assert_eq!(translate(&memory, state.cr3, 1 << 39), None);
}

#[test]
fn the_gdt_holds_the_flat_segments_the_boot_protocol_names() {
    let (memory, state) = set_up_memory();
    assert_eq!(state.gdt.limit, 31);
    assert_eq!((state.cs.selector, state.data.selector), (0x10, 0x18));
    // Execute/read 64-bit code and read/write data, both accessed, base 0, limit 4 GiB.
    assert_eq!(qword(&memory, state.gdt.base + 0x10), 0x00af_9b00_0000_ffff);
    assert_eq!(qword(&memory, state.gdt.base + 0x18), 0x00cf_9300_0000_ffff);
    assert_eq!(qword(&memory, state.gdt.base), 0);
}

#[test]
fn a_descriptor_carries_base_limit_and_privilege() {
    let segment =
        Segment { base: 0x1234_5678, limit: 0x000a_bcde, granular: false, dpl: 3, ..Segment::flat(8, 3, false) };
    assert_eq!(segment.descriptor(), 0x124a_f334_5678_bcde);
}

#[test]
fn registers_say_long_mode_with_interrupts_off() {
    let (_, state) = set_up_memory();
    assert_eq!(state.rip, ENTRY);
    assert_eq!(state.rsi, layout::ZERO_PAGE);
    assert_eq!(state.rflags, 2);
    assert_eq!(state.cr0 & (1 << 31 | 1), 1 << 31 | 1);
    assert_eq!(state.cr4, 1 << 5);
    assert_eq!(state.efer, 0x500);
    assert!(state.cs.long && !state.cs.default_big);
    // VM entry into long mode needs a busy 64-bit TSS.
    assert!(state.tr.present && state.tr.kind == 0xb && !state.tr.code_or_data);
}

#[test]
fn protected_mode_has_32_bit_segments_and_no_paging() {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let state = protected_mode(&memory, 0x10_0000, 0x3000).unwrap();
    assert_eq!((state.rip, state.rflags), (0x10_0000, 2));
    assert_eq!((state.cr0, state.cr4, state.efer), (0x11, 0, 0));
    assert!(!state.cs.long && state.cs.default_big);
    assert_eq!((state.gdt.base, state.gdt.limit), (0x3000, 31));
    assert_eq!(qword(&memory, 0x3010), 0x00cf_9b00_0000_ffff);
    assert_eq!(qword(&memory, 0x3018), 0x00cf_9300_0000_ffff);
    assert_eq!((state.tr.base, state.tr.limit, state.tr.kind), (0, 0x67, 0xb));
}

#[test]
fn boot_structures_do_not_overlap() {
    let tables = layout::PAGE_TABLES..layout::PAGE_TABLES + (2 + DIRECTORIES) * TABLE_BYTES;
    let spans = [
        // The stack grows down from its top, at most to the end of the GDT.
        layout::GDT..layout::STACK_TOP,
        layout::ZERO_PAGE..layout::ZERO_PAGE + 4096,
        tables,
        layout::CMDLINE..layout::CMDLINE + layout::CMDLINE_BYTES,
        layout::EBDA..layout::EBDA + 1024,
        layout::ACPI,
        layout::MP,
    ];
    for pair in spans.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{pair:x?}");
    }
}
