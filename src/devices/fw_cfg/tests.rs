use super::*;

fn machine() -> FwCfg {
    FwCfg::new(Contents {
        cpus: 3,
        max_cpus: 9,
        ram: 0x1_2345_6000,
        cmdline: "a b".into(),
        kernel_bytes: 0x10203,
        initrd_bytes: 77,
        files: vec![("etc/one", vec![1, 2, 3]), ("etc/two", vec![4])],
    })
}

fn select(device: &mut FwCfg, key: u16) {
    device.write(0, 0, &key.to_le_bytes());
}

fn bytes(device: &mut FwCfg, count: usize) -> Vec<u8> {
    (0..count).map(|_| crate::testing::inb(device, 0, DATA)).collect()
}

fn item(key: u16, count: usize) -> Vec<u8> {
    let mut device = machine();
    select(&mut device, key);
    bytes(&mut device, count)
}

#[test]
fn the_signature_is_there_from_the_start_and_whenever_it_is_selected() {
    let mut device = machine();
    assert_eq!(bytes(&mut device, 6), b"QEMU\0\0");
    select(&mut device, 0);
    assert_eq!(bytes(&mut device, 2), b"QE");
    select(&mut device, 0);
    assert_eq!(bytes(&mut device, 2), b"QE");
    assert_eq!(item(1, 5), [1, 0, 0, 0, 0]);
}

#[test]
fn numbers_are_little_endian_and_of_their_items_width() {
    assert_eq!(item(0x05, 4), [3, 0, 0, 0]);
    assert_eq!(item(0x0f, 4), [9, 0, 0, 0]);
    assert_eq!(item(0x03, 9), [0, 0x60, 0x45, 0x23, 1, 0, 0, 0, 0]);
    assert_eq!(item(0x08, 4), [3, 2, 1, 0]);
    assert_eq!(item(0x0b, 4), [77, 0, 0, 0]);
    assert_eq!(item(0x14, 4), [4, 0, 0, 0]);
    assert_eq!(item(0x15, 5), b"a b\0\0");
}

#[test]
fn the_directory_names_every_file_with_its_number_and_size() {
    let directory = item(0x19, 4 + 2 * 64);
    assert_eq!(directory[..4], [0, 0, 0, 2]);
    for (entry, key, contents, name) in
        [(&directory[4..68], 0x20, &[1, 2, 3][..], &b"etc/one\0"[..]), (&directory[68..], 0x21, &[4], b"etc/two\0")]
    {
        assert_eq!(entry[..4], (contents.len() as u32).to_be_bytes());
        assert_eq!(entry[4..8], [0, key as u8, 0, 0]);
        assert_eq!(&entry[8..16], name);
        assert_eq!(item(key, contents.len()), contents);
    }
}

#[test]
fn what_is_not_there_reads_as_zeros() {
    for key in [0x06, 0x22, 0x3fff, 0x4000, 0x8000, 0xffff] {
        assert_eq!(item(key, 3), [0; 3], "{key:#x}");
    }
}

#[test]
fn only_a_word_selects_and_only_the_data_port_reads() {
    let mut device = machine();
    select(&mut device, 0x15);
    device.write(0, 0, &[5]);
    device.write(0, DATA, &[5, 0]);
    let mut data = [0; 4];
    device.read(0, 0, &mut data);
    assert_eq!(data, [0xff; 4]);
    // Eight bits wide, whatever the access.
    device.read(0, DATA, &mut data);
    assert_eq!(data, [b'a', 0xff, 0xff, 0xff]);
    assert_eq!(bytes(&mut device, 2), b" b");
}
