use super::*;

const BASE: usize = layout::MP.start as usize;

fn image(apic_ids: &[u32]) -> Vec<u8> {
    build(&MpConfig { apic_ids, ioapic_id: 9, processor: (0x0012_0f12, 0x0789_abcd) })
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn dword(bytes: &[u8], at: usize) -> usize {
    word(bytes, at) | word(bytes, at + 2) << 16
}

/// The table that the pointer leads to, checked as a kernel does.
fn table(image: &[u8]) -> &[u8] {
    assert_eq!((&image[..4], image[8], image[9]), (&b"_MP_"[..], 1, 4));
    assert_eq!(sum(&image[..16]), 0);
    assert_eq!(&image[11..16], &[0; 5], "a configuration table, virtual wire");
    let table = &image[dword(image, 4) - BASE..];
    let table = &table[..word(table, 4)];
    assert_eq!((&table[..4], table[6]), (&b"PCMP"[..], 4));
    assert_eq!(sum(table), 0);
    assert_eq!(dword(table, 36), 0xfee0_0000);
    table
}

/// The entries of one kind, and a count of all.
fn entries(table: &[u8], kind: u8) -> Vec<&[u8]> {
    let (mut all, mut found, mut rest) = (0, Vec::new(), &table[44..]);
    while let [first, ..] = rest {
        let (entry, next) = rest.split_at(if *first == 0 { 20 } else { 8 });
        all += 1;
        if *first == kind {
            found.push(entry);
        }
        rest = next;
    }
    assert_eq!(all, word(table, 34), "entry count");
    found
}

#[test]
fn processors_are_listed_with_the_bootstrap_processor_marked() {
    let image = image(&[4, 0, 7]);
    let table = table(&image);
    let processors = entries(table, 0);
    assert_eq!(processors.iter().map(|entry| (entry[1], entry[3])).collect::<Vec<_>>(), [(4, 3), (0, 1), (7, 1)]);
    assert_eq!(processors[0][2], 0x14, "local APIC version");
    assert_eq!((dword(processors[0], 4), dword(processors[0], 8)), (0x0012_0f12, 0x0789_abcd));
    assert_eq!(&processors[0][12..], [0; 8]);
}

#[test]
fn wiring_is_that_of_the_platform() {
    let image = image(&[3, 1]);
    let table = table(&image);
    assert_eq!(entries(table, 1), [b"\x01\x00ISA   ", b"\x01\x01PCI   "]);
    assert_eq!(entries(table, 2), [&[2, 9, 0x20, 1, 0, 0, 0xc0, 0xfe]]);
    let interrupts = entries(table, 3);
    assert_eq!(interrupts[0], [3, 3, 0, 0, 0, 0, 9, 0], "the 8259A pair at pin 0");
    let (pci, isa): (Vec<&[u8]>, Vec<&[u8]>) = interrupts[1..].iter().partition(|entry| entry[4] == 1);
    let isa: Vec<_> = isa.iter().map(|entry| (entry[5], entry[7], entry[2])).collect();
    let expected = [(0, 2)].into_iter().chain([1].into_iter().chain(3..16).map(|irq| (irq, irq)));
    assert_eq!(isa, expected.map(|(irq, pin)| (irq, pin, if irq == 9 { 0x0d } else { 0 })).collect::<Vec<_>>());
    // INTA# of device 1, 2 and so on: level, active low, at the four pins in turn.
    assert_eq!(pci[0], [3, 0, 0x0f, 0, 1, 1 << 2, 9, 17]);
    let pins: Vec<_> = pci.iter().map(|entry| (entry[5] >> 2, entry[7])).collect();
    assert_eq!(pins, (1..32).map(|device| (device, 16 + device % 4)).collect::<Vec<_>>());
    assert_eq!(entries(table, 4), [&[4, 3, 0, 0, 0, 0, 3, 0], &[4, 1, 0, 0, 0, 0, 0xff, 1]]);
}

#[test]
fn processors_with_ids_beyond_eight_bits_are_left_out() {
    let image = image(&[0, 254, 255, 256, 32_766]);
    let ids: Vec<_> = entries(table(&image), 0).iter().map(|entry| entry[1]).collect();
    assert_eq!(ids, [0, 254]);
}

#[test]
fn the_most_processors_fit_and_are_found_in_guest_memory() {
    let ids: Vec<u32> = (0..=255).collect();
    assert!(image(&ids).len() as u64 <= layout::MP.end - layout::MP.start);
    let ram = GuestRam::new(crate::memory::MIN_BYTES).unwrap();
    write(&ram, &MpConfig { apic_ids: &ids, ioapic_id: 9, processor: (0, 0) }).unwrap();
    let mut signature = [0; 4];
    ram.memory().read_slice(&mut signature, GuestAddress(0xf_e000)).unwrap();
    assert_eq!(&signature, b"_MP_");
}
