use vm_memory::Bytes;

use super::super::testing::{
    CMDLINE_SIZE, INIT_SIZE, LOAD, PAYLOAD, SETUP, Scratch, assert_parts, bzimage, bzimage_with, read, refused,
};
use super::super::{layout, load};
use super::{Boot, GuestAddress, GuestRam};

const MIB: u64 = 1 << 20;
const RSDP: u64 = 0xe_0000;
const KERNEL_END: u64 = LOAD + INIT_SIZE as u64;

fn boot<'a>(kernel: &'a Scratch, initrd: Option<&'a Scratch>, cmdline: &'a str) -> Boot<'a> {
    Boot {
        kernel: kernel.path(),
        initrd: initrd.map(Scratch::path),
        overlay: &[],
        modules: &[],
        cmdline: Some(cmdline),
        rsdp: RSDP,
    }
}

fn zero_page_dword(ram: &GuestRam, offset: u64) -> u32 {
    ram.memory().read_obj(GuestAddress(layout::ZERO_PAGE + offset)).unwrap()
}

fn refused_kernel(image: &[u8]) -> String {
    let kernel = Scratch::file(image);
    let line = refused(&GuestRam::new(64 * MIB).unwrap(), &boot(&kernel, None, ""));
    assert!(line.starts_with(&format!("kernel {:?} ", kernel.path())), "{line}");
    line
}

#[test]
fn kernel_initrd_and_command_line_are_where_the_zero_page_says() {
    let ram = GuestRam::new(64 * MIB).unwrap();
    let (kernel, initrd) = (Scratch::file(&bzimage()), Scratch::file(&[0xa5; 5000]));
    let state = load(&ram, &boot(&kernel, Some(&initrd), "console=ttyS0")).unwrap();

    assert_eq!(read(&ram, LOAD, PAYLOAD), bzimage()[SETUP..]);
    assert_eq!(state.rip, LOAD + 0x200);
    assert_eq!(state.rsi, layout::ZERO_PAGE);
    assert_eq!(zero_page_dword(&ram, 0x214), LOAD as u32);
    // 5000 bytes end in the last two pages of memory.
    let (start, len) = (zero_page_dword(&ram, 0x218), zero_page_dword(&ram, 0x21c));
    assert_eq!((u64::from(start), len), (64 * MIB - 2 * 4096, 5000));
    assert_eq!(read(&ram, start.into(), 5001), [&[0xa5; 5000][..], &[0]].concat());
    let cmdline = zero_page_dword(&ram, 0x228);
    assert_eq!(read(&ram, cmdline.into(), 14), b"console=ttyS0\0");
}

#[test]
fn without_initrd_the_zero_page_has_none() {
    let ram = GuestRam::new(64 * MIB).unwrap();
    let kernel = Scratch::file(&bzimage_with(0x218, &[0xff; 8]));
    load(&ram, &boot(&kernel, None, "")).unwrap();
    assert_eq!((zero_page_dword(&ram, 0x218), zero_page_dword(&ram, 0x21c)), (0, 0));
}

#[test]
fn a_header_is_copied_up_to_its_own_end_only() {
    let ram = GuestRam::new(64 * MIB).unwrap();
    let kernel = Scratch::file(&bzimage());
    load(&ram, &boot(&kernel, None, "")).unwrap();
    assert_eq!(zero_page_dword(&ram, 0x268), 0x1234);

    let ram = GuestRam::new(64 * MIB).unwrap();
    let kernel = Scratch::file(&bzimage_with(0x201, &[0x66]));
    load(&ram, &boot(&kernel, None, "")).unwrap();
    assert_eq!(zero_page_dword(&ram, 0x268), 0);
}

#[test]
fn setup_sects_0_means_4() {
    let mut image = bzimage_with(0x1f1, &[0]);
    image.splice(SETUP..SETUP, vec![0; 1024]);
    let ram = GuestRam::new(64 * MIB).unwrap();
    let kernel = Scratch::file(&image);
    // linux-loader follows the same rule, so the payload must arrive whole.
    load(&ram, &boot(&kernel, None, "")).unwrap();
    assert_eq!(read(&ram, LOAD, PAYLOAD), bzimage()[SETUP..]);
}

#[test]
fn a_file_that_is_no_bzimage_is_refused_with_offset_found_and_expected() {
    let cases: [(&[u8], &[&str]); 8] = [
        (&bzimage()[..0x260], &["offset 0x260", "the end of the file", "up to offset 0x268"]),
        (&bzimage_with(0x1fe, &[0, 0]), &["offset 0x1fe", "found 00 00", "boot flag 55 aa"]),
        (&bzimage_with(0x206, &[0x0b, 2]), &["offset 0x206", "protocol 2.11", "2.12 or later", "version 3.8"]),
        (&bzimage_with(0x201, &[0x10]), &["offset 0x201", "ends at offset 0x212", "0x268 or later"]),
        (&bzimage_with(0x211, &[0]), &["offset 0x211", "loadflags 0x0", "bit 0"]),
        (&bzimage_with(0x236, &[0x7e, 0]), &["offset 0x236", "xloadflags 0x7e", "64-bit entry point"]),
        (&bzimage_with(0x258, &[0; 8]), &["offset 0x258", "preferred address 0x0", "1 MiB or above"]),
        (&bzimage_with(0x260, &[0; 4]), &["offset 0x260", "init_size 0"]),
    ];
    for (image, parts) in cases {
        assert_parts(&refused_kernel(image), parts);
    }
}

#[test]
fn a_header_that_points_beyond_a_short_file_is_refused() {
    let image = &bzimage_with(0x201, &[0xff])[..0x280];
    assert_parts(&refused_kernel(image), &["offset 0x201", "ends at offset 0x301", "inside the file"]);
}

#[test]
fn a_truncated_kernel_is_refused_with_both_sizes() {
    let whole = bzimage();
    for cut in [1, 100, PAYLOAD, PAYLOAD + 1, whole.len() - 0x300] {
        let needed = format!("say {} bytes", whole.len());
        let has = format!("the file has {}", whole.len() - cut);
        assert_parts(&refused_kernel(&whole[..whole.len() - cut]), &["truncated", &needed, &has, "copy or build"]);
    }
}

#[test]
fn bytes_after_the_kernel_such_as_a_signature_are_no_error() {
    let mut image = bzimage();
    image.extend([0x30; 777]);
    let kernel = Scratch::file(&image);
    assert!(load(&GuestRam::new(64 * MIB).unwrap(), &boot(&kernel, None, "")).is_ok());
}

#[test]
fn a_kernel_that_needs_more_memory_says_how_much() {
    let kernel = Scratch::file(&bzimage());
    let line = refused(&GuestRam::new(KERNEL_END - 4096).unwrap(), &boot(&kernel, None, ""));
    assert_parts(&line, &["up to 0x1500000", "22016000 bytes", "--memory 21M or more"]);
    assert!(load(&GuestRam::new(KERNEL_END).unwrap(), &boot(&kernel, None, "")).is_ok());
}

#[test]
fn a_kernel_file_larger_than_memory_is_refused() {
    let kernel = Scratch::sparse(100 * MIB);
    std::fs::write(kernel.path(), bzimage()).unwrap();
    std::fs::File::options().write(true).open(kernel.path()).unwrap().set_len(100 * MIB).unwrap();
    let line = refused(&GuestRam::new(64 * MIB).unwrap(), &boot(&kernel, None, ""));
    assert_parts(&line, &["104857600 bytes", "and there is 64M", "--memory 116M or more"]);
}

#[test]
fn a_kernel_that_no_memory_could_hold_is_no_bzimage() {
    let line = refused_kernel(&bzimage_with(0x260, &[0xff; 4]));
    assert_parts(&line, &["offset 0x258", "4294967295 bytes", "below the device hole"]);
    let line = refused_kernel(&bzimage_with(0x258, &[0xff; 8]));
    assert_parts(&line, &["offset 0x258", "address 0xffffffffffffffff"]);
}

#[test]
fn the_command_line_may_be_as_long_as_the_kernel_says() {
    let kernel = Scratch::file(&bzimage());
    let longest = "x".repeat(CMDLINE_SIZE as usize);
    let ram = GuestRam::new(64 * MIB).unwrap();
    load(&ram, &boot(&kernel, None, &longest)).unwrap();
    assert_eq!(read(&ram, layout::CMDLINE, 65), [longest.as_bytes(), &[0]].concat());

    let line = refused(&GuestRam::new(64 * MIB).unwrap(), &boot(&kernel, None, &"x".repeat(65)));
    assert_parts(&line, &["65 bytes", "at most 64", "shorter --cmdline"]);
}

#[test]
fn a_kernel_without_a_command_line_limit_gets_ours() {
    let kernel = Scratch::file(&bzimage_with(0x238, &[0xff; 4]));
    let line = refused(&GuestRam::new(64 * MIB).unwrap(), &boot(&kernel, None, &"x".repeat(0x1_0000)));
    assert_parts(&line, &["65536 bytes", "at most 65535"]);
}

#[test]
fn a_command_line_with_nul_is_refused() {
    let kernel = Scratch::file(&bzimage());
    let line = refused(&GuestRam::new(64 * MIB).unwrap(), &boot(&kernel, None, "quiet\0splash"));
    assert_parts(&line, &["NUL byte at position 5"]);
}

#[test]
fn the_initrd_keeps_below_the_kernels_limit() {
    // Its limit is the highest byte, here the last one of 40 MiB.
    let kernel = Scratch::file(&bzimage_with(0x22c, &(40 * MIB as u32 - 1).to_le_bytes()));
    let initrd = Scratch::file(&[1; 4096]);
    let ram = GuestRam::new(64 * MIB).unwrap();
    load(&ram, &boot(&kernel, Some(&initrd), "")).unwrap();
    assert_eq!(u64::from(zero_page_dword(&ram, 0x218)), 40 * MIB - 4096);
}

#[test]
fn an_initrd_that_does_not_fit_asks_for_more_memory_or_a_smaller_initrd() {
    let kernel = Scratch::file(&bzimage());
    let initrd = Scratch::sparse(50 * MIB);
    let line = refused(&GuestRam::new(64 * MIB).unwrap(), &boot(&kernel, Some(&initrd), ""));
    let name = format!("initrd {:?} (52428800 bytes)", initrd.path());
    assert_parts(&line, &[&name, "up to 0x1500000", "0x4000000", "larger --memory, 71M or more"]);
    assert!(load(&GuestRam::new(71 * MIB).unwrap(), &boot(&kernel, Some(&initrd), "")).is_ok());

    // Beyond what the kernel's own limit leaves, memory does not help.
    let initrd = Scratch::sparse(2048 * MIB);
    let line = refused(&GuestRam::new(64 * MIB).unwrap(), &boot(&kernel, Some(&initrd), ""));
    assert_parts(&line, &["2147483648 bytes", "no --memory is enough, use a smaller initrd"]);
}

#[test]
fn a_missing_initrd_is_found_before_anything_is_loaded() {
    let (kernel, missing) = (Scratch::file(&bzimage()), Scratch::name());
    let line = refused(&GuestRam::new(64 * MIB).unwrap(), &boot(&kernel, Some(&missing), ""));
    assert_parts(&line, &["initrd", "No such file"]);
}
