//! The guest kernel's image: its records can be read, and its kernel keeps off what hosts that interpret ring 0 do not know.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use iced_x86::{CpuidFeature, Decoder, DecoderOptions, Mnemonic};
use x86::test_record::{RECORD_SIZE, SECTION, TestRecord};

static IMAGE: &[u8] = include_bytes!(env!("TOPHALF_GUEST"));

/// A section of the image: its name, its address and its bytes.
struct Section {
    name: String,
    address: u64,
    bytes: &'static [u8],
}

fn word(at: usize, size: usize) -> usize {
    IMAGE[at..at + size].iter().rev().fold(0, |word, &byte| word << 8 | usize::from(byte))
}

/// Sections with contents, by the section headers of a 64-bit ELF file.
fn sections() -> Vec<Section> {
    assert_eq!(&IMAGE[..5], b"\x7fELF\x02");
    let (table, size, count, names) = (word(40, 8), word(58, 2), word(60, 2), word(62, 2));
    let header = |index: usize| table + index * size;
    let names = word(header(names) + 24, 8);
    let has_bytes = |at: &usize| word(at + 4, 4) != 8;
    let section = |at: usize| {
        let name = IMAGE[names + word(at, 4)..].split(|&byte| byte == 0).next().unwrap_or_default();
        let start = word(at + 24, 8);
        Section {
            name: String::from_utf8_lossy(name).into_owned(),
            address: word(at + 16, 8) as u64,
            bytes: &IMAGE[start..start + word(at + 32, 8)],
        }
    };
    (0..count).map(header).filter(has_bytes).map(section).collect()
}

fn section(name: &str) -> Section {
    sections().into_iter().find(|section| section.name == name).unwrap_or_else(|| panic!("no section {name}"))
}

#[test]
fn every_test_record_can_be_read_and_names_are_unique() {
    let (records, rest) = section(SECTION).bytes.as_chunks::<RECORD_SIZE>();
    assert!(rest.is_empty() && !records.is_empty());
    let text = section(".text");
    let mut names = HashSet::new();
    for record in records {
        let record = TestRecord::from_bytes(record).expect("a record of this version");
        assert!(names.insert(record.name().to_owned()), "two tests are called {}", record.name());
        assert!(record.name().contains('.'), "{} does not say which part of the kernel it is about", record.name());
        let body = record.body.checked_sub(text.address).expect("a body before the code");
        assert!(body < text.bytes.len() as u64, "{}: its body is not code", record.name());
        assert!(record.cpus >= 1 && record.limit_ms > 0 && record.modes != 0, "{} can never run", record.name());
        assert_eq!(record.known_modes != 0, !record.why_known().is_empty(), "{}", record.name());
    }
}

/// Instructions that a host which interprets ring 0 does not carry out, or wrongly.
fn not_interpreted(instruction: &iced_x86::Instruction) -> bool {
    use CpuidFeature::{
        ADX, AES, AVX, AVX2, BMI1, BMI2, CLWB, CLZERO, CMPXCHG16B, D3NOW, FMA, INVPCID, LZCNT, MMX, MONITOR, MOVBE,
        MOVDIRI, PCLMULQDQ, PKU, POPCNT, RDPID, RDTSCP, SHA, SMAP, SSE, SSE2, SSE3, SSE4_1, SSE4_2, SSSE3, VMX, XSAVE,
    };
    let features = [
        ADX, AES, AVX, AVX2, BMI1, BMI2, CLWB, CLZERO, CMPXCHG16B, D3NOW, FMA, INVPCID, LZCNT, MMX, MONITOR, MOVBE,
        MOVDIRI, PCLMULQDQ, PKU, POPCNT, RDPID, RDTSCP, SHA, SMAP, SSE, SSE2, SSE3, SSE4_1, SSE4_2, SSSE3, VMX, XSAVE,
    ];
    // TZCNT is BSF with a prefix that is ignored where it is not known; compilers use it where the operand is not 0.
    let fine =
        [Mnemonic::Lfence, Mnemonic::Mfence, Mnemonic::Sfence, Mnemonic::Pause, Mnemonic::Clflush, Mnemonic::Tzcnt];
    let mnemonics = [
        Mnemonic::Int,
        Mnemonic::Int1,
        Mnemonic::Int3,
        Mnemonic::Ud1,
        Mnemonic::Sysenter,
        Mnemonic::Lsl,
        Mnemonic::Lar,
        Mnemonic::Verr,
        Mnemonic::Verw,
        Mnemonic::Rdpmc,
        Mnemonic::Emms,
        Mnemonic::Wait,
        Mnemonic::Vmcall,
        Mnemonic::Vmmcall,
    ];
    let used = instruction.cpuid_features();
    mnemonics.contains(&instruction.mnemonic())
        || (!fine.contains(&instruction.mnemonic()) && used.iter().any(|feature| features.contains(feature)))
}

#[test]
fn the_kernel_keeps_off_what_is_not_interpreted() {
    // What is meant for ring 3, or for tests that need a processor, lies in sections of its own.
    let text = section(".text");
    let decoder = Decoder::with_ip(64, text.bytes, text.address, DecoderOptions::NONE);
    // The linker fills gaps between functions with int3.
    let padding = |bytes: &[u8]| bytes == [0xcc];
    let bad: Vec<_> = decoder
        .into_iter()
        .filter(|instruction| {
            let at = (instruction.ip() - text.address) as usize;
            not_interpreted(instruction) && !padding(&text.bytes[at..at + instruction.len()])
        })
        .map(|instruction| format!("{:#x} {instruction:?}", instruction.ip()))
        .collect();
    assert!(bad.is_empty(), "{}", bad.join("\n"));

    let mut popcnt = Decoder::new(64, &[0xf3, 0x0f, 0xb8, 0xc0], DecoderOptions::NONE);
    assert!(not_interpreted(&popcnt.decode()));
    let mut pxor = Decoder::new(64, &[0x66, 0x0f, 0xef, 0xc0], DecoderOptions::NONE);
    assert!(not_interpreted(&pxor.decode()));
    let mut pause = Decoder::new(64, &[0xf3, 0x90], DecoderOptions::NONE);
    assert!(!not_interpreted(&pause.decode()));
}

/// The groups of tests (what is before the dot of their names) that belong to each row of the table of concepts.
fn groups_of_rows() -> BTreeMap<u8, BTreeSet<String>> {
    let mut rows = BTreeMap::<_, BTreeSet<_>>::new();
    for record in section(SECTION).bytes.as_chunks::<RECORD_SIZE>().0 {
        let record = TestRecord::from_bytes(record).expect("a record of this version");
        let group = record.name().split('.').next().unwrap_or_default();
        for row in record.row_numbers() {
            rows.entry(row).or_default().insert(group.to_owned());
        }
    }
    rows
}

#[test]
fn the_table_in_the_documentation_is_that_of_the_image() {
    let document = include_str!("../docs/guest.md");
    for (row, groups) in groups_of_rows() {
        let groups: Vec<_> = groups.iter().map(|group| format!("`{group}`")).collect();
        let end = format!("| {} |", groups.join(", "));
        let found = document.lines().find(|line| line.starts_with(&format!("| C{row} |")));
        let complaint = format!("docs/guest.md, row C{row}: should end in {end}");
        assert!(found.is_some_and(|line| line.ends_with(&end)), "{complaint}");
    }
}
