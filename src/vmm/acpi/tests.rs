use super::*;
use crate::boot::ErrorKind;

const MIB: u64 = 1 << 20;

fn config(cpus: u32) -> AcpiConfig {
    AcpiConfig { apic_ids: (0..cpus).collect(), ioapic_id: 7, virtio_windows: 0 }
}

/// The tables as a guest finds them.
struct Guest {
    image: Vec<u8>,
}

impl Guest {
    fn new(config: &AcpiConfig) -> Self {
        Self { image: build(config).unwrap() }
    }

    fn at(&self, address: u64) -> &[u8] {
        &self.image[(address - layout::ACPI.start) as usize..]
    }

    /// A system description table, after checking length and checksum.
    fn table(&self, address: u64, signature: &[u8]) -> &[u8] {
        let bytes = self.at(address);
        let table = &bytes[..dword(bytes, 4) as usize];
        assert_eq!(&table[..4], signature);
        assert_eq!(sum(table), 0, "checksum of {signature:?}");
        table
    }

    /// The tables that the XSDT lists.
    fn listed(&self) -> Vec<u64> {
        let xsdt = self.table(qword(&self.image, 24), b"XSDT");
        xsdt[36..].chunks(8).map(|entry| qword(entry, 0)).collect()
    }

    fn fadt(&self) -> &[u8] {
        self.table(self.listed()[0], b"FACP")
    }

    /// The MADT's structures after its flags.
    fn madt_structures(&self) -> Vec<&[u8]> {
        let madt = self.table(self.listed()[1], b"APIC");
        let mut rest = &madt[44..];
        let mut structures = Vec::new();
        while !rest.is_empty() {
            let (structure, next) = rest.split_at(usize::from(rest[1]));
            structures.push(structure);
            rest = next;
        }
        structures
    }

    fn madt_of(&self, kind: u8) -> Vec<&[u8]> {
        self.madt_structures().into_iter().filter(|structure| structure[0] == kind).collect()
    }

    fn dsdt(&self) -> &[u8] {
        self.table(qword(self.fadt(), 140), b"DSDT")
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn word(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(bytes[offset..offset + 2].try_into().unwrap())
}

fn dword(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

fn qword(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

fn count(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len()).filter(|window| *window == needle).count()
}

#[test]
fn the_root_pointer_is_at_the_start_of_the_range_with_both_checksums() {
    let ram = GuestRam::new(16 * MIB).unwrap();
    let address = write_tables(&ram, &config(2)).unwrap();
    assert_eq!(address, 0xe_0000);
    let mut rsdp = [0; 36];
    ram.memory().read_slice(&mut rsdp, GuestAddress(address)).unwrap();
    assert_eq!(&rsdp[..8], b"RSD PTR ");
    assert_eq!((sum(&rsdp[..20]), sum(&rsdp)), (0, 0));
    assert_eq!((rsdp[15], dword(&rsdp, 20)), (2, 36));
    assert!(layout::ACPI.contains(&qword(&rsdp, 24)));
}

#[test]
fn the_xsdt_lists_fadt_madt_hpet_and_mcfg() {
    let guest = Guest::new(&config(1));
    assert_eq!(guest.listed().len(), 4);
    guest.fadt();
    guest.table(guest.listed()[1], b"APIC");
    guest.table(guest.listed()[2], b"HPET");
    guest.table(guest.listed()[3], b"MCFG");
}

#[test]
fn the_rsdt_lists_the_same_tables() {
    let guest = Guest::new(&config(3));
    let rsdt = guest.table(dword(&guest.image, 16).into(), b"RSDT");
    let listed: Vec<_> = rsdt[36..].chunks(4).map(|entry| u64::from(dword(entry, 0))).collect();
    assert_eq!(listed, guest.listed());
    assert_eq!(rsdt[8], 1, "revision");
}

#[test]
fn the_hpet_table_names_the_block_and_its_address() {
    let guest = Guest::new(&config(1));
    let hpet = guest.table(guest.listed()[2], b"HPET");
    assert_eq!((hpet.len(), hpet[8]), (56, 1));
    // Vendor, legacy replacement, 64-bit counter, last timer 3, revision.
    assert_eq!(dword(hpet, 36), 0x8086_a301);
    assert_eq!((&hpet[40..44], qword(hpet, 44)), (&[0, 64, 0, 0][..], 0xfed0_0000), "in memory");
    assert_eq!((hpet[52], word(hpet, 53), hpet[55]), (0, 2_000, 0));
}

#[test]
fn the_fadt_describes_the_fixed_hardware() {
    let guest = Guest::new(&config(1));
    let fadt = guest.fadt();
    assert_eq!(fadt.len(), 276);
    assert_eq!((fadt[8], fadt[131] & 0xf), (6, 5), "revision");
    assert_eq!(word(fadt, 46), 9, "SCI_INT");
    assert_eq!(dword(fadt, 48), 0, "SMI_CMD: always in ACPI mode");
    assert_eq!((dword(fadt, 56), fadt[88]), (0x600, 4), "PM1a event block");
    assert_eq!((dword(fadt, 64), fadt[89]), (0x604, 2), "PM1a control block");
    assert_eq!((dword(fadt, 76), fadt[91]), (0x608, 4), "PM timer block");
    assert_eq!(fadt[108], 0x32, "CENTURY");
    // Address space 1 is I/O; then width, offset, access size, address.
    let gas =
        |offset: usize| (fadt[offset], fadt[offset + 1], fadt[offset + 2], fadt[offset + 3], qword(fadt, offset + 4));
    assert_eq!(gas(148), (1, 32, 0, 2, 0x600), "X_PM1a_EVT_BLK");
    assert_eq!(gas(172), (1, 16, 0, 2, 0x604), "X_PM1a_CNT_BLK");
    assert_eq!(gas(208), (1, 32, 0, 3, 0x608), "X_PM_TMR_BLK");
    assert_eq!(gas(116), (1, 8, 0, 1, 0xcf9), "RESET_REG");
    assert_eq!(fadt[128], 0x06, "RESET_VALUE");
    // No power management block that is not there.
    assert_eq!([60, 68, 72, 80, 84].map(|offset| dword(fadt, offset)), [0; 5]);
}

#[test]
fn the_fadt_flags_say_what_there_is() {
    let guest = Guest::new(&config(1));
    let fadt = guest.fadt();
    let flags = dword(fadt, 112);
    let is_set = |bit: u32| flags >> bit & 1 == 1;
    assert!(is_set(0), "WBINVD");
    assert!(!is_set(4), "PWR_BUTTON: the power button is a fixed feature");
    assert!(is_set(5), "SLP_BUTTON: no fixed sleep button");
    assert!(!is_set(8), "TMR_VAL_EXT: the PM timer has 24 bits");
    assert!(is_set(10), "RESET_REG_SUP");
    assert!(!is_set(20), "HW_REDUCED_ACPI");
    let boot_arch = word(fadt, 109);
    assert_eq!(boot_arch & 1, 1, "legacy devices");
    assert_eq!(boot_arch >> 1 & 1, 0, "no 8042");
    assert_eq!(boot_arch >> 5 & 1, 0, "there is a CMOS RTC");
}

#[test]
fn facs_and_dsdt_are_found_through_the_fadt() {
    let guest = Guest::new(&config(1));
    let fadt = guest.fadt();
    let facs = u64::from(dword(fadt, 36));
    assert_eq!(qword(fadt, 132), 0, "only one FACS field may be set");
    assert_eq!(facs % 64, 0);
    assert_eq!((&guest.at(facs)[..4], dword(guest.at(facs), 4)), (&b"FACS"[..], 64));
    assert_eq!(u64::from(dword(fadt, 40)), qword(fadt, 140), "DSDT and X_DSDT");
    guest.dsdt();
}

#[test]
fn the_madt_lists_processors_the_ioapic_overrides_and_nmi() {
    let guest = Guest::new(&AcpiConfig { apic_ids: vec![0, 1, 4], ioapic_id: 7, virtio_windows: 0 });
    let madt = guest.table(guest.listed()[1], b"APIC");
    assert_eq!((dword(madt, 36), dword(madt, 40)), (0xfee0_0000, 1), "address and PCAT_COMPAT");
    assert_eq!(
        guest.madt_structures(),
        [
            &[0, 8, 0, 0, 1, 0, 0, 0][..],
            &[0, 8, 1, 1, 1, 0, 0, 0],
            &[0, 8, 2, 4, 1, 0, 0, 0],
            &[1, 12, 7, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
            &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
            &[2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0],
            &[4, 6, 0xff, 0, 0, 1],
        ]
    );
}

#[test]
fn ids_from_255_up_are_x2apic_structures_with_their_own_nmi() {
    let guest = Guest::new(&AcpiConfig { apic_ids: vec![0, 254, 255, 0x1_0000], ioapic_id: 0, virtio_windows: 0 });
    assert_eq!(guest.madt_of(0), [&[0, 8, 0, 0, 1, 0, 0, 0], &[0, 8, 1, 254, 1, 0, 0, 0]]);
    assert_eq!(
        guest.madt_of(9),
        [&[9, 16, 0, 0, 255, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0], &[9, 16, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 3, 0, 0, 0],]
    );
    assert_eq!(guest.madt_of(4).len(), 1);
    assert_eq!(guest.madt_of(10), [&[10, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]]);
}

#[test]
fn a_uid_that_does_not_fit_8_bits_needs_an_x2apic_structure() {
    // UID 255 would say "all processors".
    let guest = Guest::new(&AcpiConfig { apic_ids: (0..256).rev().collect(), ioapic_id: 0, virtio_windows: 0 });
    let uids: Vec<_> = guest.madt_of(9).iter().map(|structure| dword(structure, 12)).collect();
    assert_eq!(uids, [0, 255]);
    assert_eq!(guest.madt_of(0).len(), 254);
}

#[test]
fn the_dsdt_has_soft_off_and_the_isa_devices() {
    let guest = Guest::new(&config(1));
    let dsdt = guest.dsdt();
    // Name (_S5, Package (4) {5, 5, 0, 0})
    assert_eq!(count(dsdt, b"\x08_S5_\x12\x08\x04\x0a\x05\x0a\x05\x00\x00"), 1);
    // 16-bit decoded I/O ports 0x3f8, 8 of them, and IRQ 4 as an ISA interrupt.
    assert_eq!(count(dsdt, b"\x47\x01\xf8\x03\xf8\x03\x01\x08\x22\x10\x00\x79"), 1, "COM1");
    assert_eq!(count(dsdt, b"\x47\x01\x70\x00\x70\x00\x01\x02\x22\x00\x01\x79"), 1, "RTC");
    assert_eq!(count(dsdt, b"\x08_HID\x0dQEMU0001\0\x08_STA\x0a\x0f"), 1, "pvpanic, present and enabled");
    assert_eq!(count(dsdt, b"\x47\x01\x05\x05\x05\x05\x01\x01\x79"), 1, "its port");
    assert_eq!(count(dsdt, b"\x86\x09\x00\x01\x00\x00\xd0\xfe\x00\x04\x00\x00\x79"), 1, "HPET");
    // Compressed EISA IDs: PNP0501, PNP0B00.
    assert_eq!((count(dsdt, b"\x41\xd0\x05\x01"), count(dsdt, b"\x41\xd0\x0b\x00")), (1, 1));
}

#[test]
fn configuration_space_is_in_memory_and_nobody_else_gets_it() {
    let guest = Guest::new(&config(1));
    let mcfg = guest.table(guest.listed()[3], b"MCFG");
    assert_eq!((mcfg.len(), qword(mcfg, 44)), (60, 0xe000_0000));
    assert_eq!(&mcfg[52..], [0; 8], "segment 0, bus 0 to 0");
    // Memory32Fixed of 1 MiB in a device PNP0C02.
    assert_eq!(count(guest.dsdt(), b"\x86\x09\x00\x01\x00\x00\x00\xe0\x00\x00\x10\x00\x79"), 1);
    assert_eq!(count(guest.dsdt(), b"\x41\xd0\x0c\x02"), 1);
}

#[test]
fn the_host_bridge_has_its_window_and_its_routes() {
    let guest = Guest::new(&config(1));
    let dsdt = guest.dsdt();
    assert_eq!((count(dsdt, b"\x41\xd0\x0a\x08"), count(dsdt, b"\x41\xd0\x0a\x03")), (1, 1), "PNP0A08 and PNP0A03");
    let window = b"\x00\x00\x00\xd0\xff\xff\xff\xdf\x00\x00\x00\x00\x00\x00\x00\x10";
    assert_eq!(count(dsdt, window), 1, "0xd0000000 to 0xdfffffff");
    // Package (4) {0x1ffff, 0, 0, 17}, and the last, device 31 at pin 19.
    assert_eq!(count(dsdt, b"\x12\x0b\x04\x0c\xff\xff\x01\x00\x00\x00\x0a\x11"), 1);
    assert_eq!(count(dsdt, b"\x12\x0b\x04\x0c\xff\xff\x1f\x00\x00\x00\x0a\x13"), 1);
}

#[test]
fn virtio_windows_are_devices_of_their_own() {
    assert_eq!(count(Guest::new(&config(1)).dsdt(), b"LNRO0005"), 0);
    let guest = Guest::new(&AcpiConfig { virtio_windows: 5, ..config(1) });
    let dsdt = guest.dsdt();
    assert_eq!(count(dsdt, b"LNRO0005"), 5);
    // The fifth has the first one's interrupt: level, active low, shared.
    let fifth = b"\x86\x09\x00\x01\x00\x40\x00\xe8\x00\x10\x00\x00\x89\x06\x00\x0d\x01\x10\x00\x00\x00\x79";
    assert_eq!(count(dsdt, fifth), 1);
}

#[test]
fn the_dsdt_has_one_processor_device_for_each_uid() {
    let guest = Guest::new(&config(300));
    let dsdt = guest.dsdt();
    assert_eq!(count(dsdt, b"ACPI0007"), 300);
    // UID 0x12b = 299 in device C12B.
    assert_eq!((count(dsdt, b"C12B"), count(dsdt, b"C12C")), (1, 0));
    assert_eq!(count(dsdt, b"_UID\x0b\x2b\x01"), 1);
}

#[test]
fn tables_for_many_processors_fit_and_too_many_are_refused() {
    for cpus in [1, 8, 64, 254, 255, 256, 1024] {
        let guest = Guest::new(&config(cpus));
        assert!(guest.image.len() as u64 <= 0x1_e000, "{cpus}");
        assert_eq!(guest.madt_of(0).len() + guest.madt_of(9).len(), cpus as usize);
        guest.dsdt();
    }
    let ram = GuestRam::new(16 * MIB).unwrap();
    for cpus in [4096, 4097, 100_000] {
        let error = write_tables(&ram, &config(cpus)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        let line = error.to_string();
        assert!(line.contains(&format!("{cpus} vCPUs")) && line.contains("122880 bytes"), "{line}");
        assert!(line.contains("fewer --cpus"), "{line}");
        assert_eq!(ram.memory().read_obj::<u64>(GuestAddress(layout::ACPI.start)).unwrap(), 0);
    }
}
