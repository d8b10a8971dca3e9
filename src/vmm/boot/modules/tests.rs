use crate::boot::testing::{Scratch, boot};

use super::*;

const KERNEL_END: u64 = 0x150_0000;

#[test]
fn the_initrd_lies_as_high_as_it_may_and_never_in_the_kernel() {
    let end = 64 << 20;
    assert_eq!(place(KERNEL_END, end, 1), Some(end - 4096));
    assert_eq!(place(KERNEL_END, end, 4096), Some(end - 4096));
    assert_eq!(place(KERNEL_END, end, 4097), Some(end - 8192));
    assert_eq!(place(KERNEL_END, end, end - KERNEL_END), Some(KERNEL_END));
    assert_eq!(place(KERNEL_END, end, end - KERNEL_END + 1), None);
    // An end inside a page: the initrd must not begin in the kernel's last page before that end.
    assert_eq!(place(KERNEL_END + 1, end, end - KERNEL_END - 4096), Some(KERNEL_END + 4096));
    assert_eq!(place(KERNEL_END + 1, end, end - KERNEL_END - 1), None);
    assert_eq!(place(KERNEL_END, end, u64::MAX), None);
}

/// Linux unpacks one archive after the other: ours is in front, and the file begins on its boundary.
#[test]
fn an_overlay_comes_in_front_of_the_initrd_or_is_it() {
    let (kernel, initrd) = (Scratch::file(b"k"), Scratch::file(b"file"));
    let ram = GuestRam::new(crate::memory::MIN_BYTES).expect("memory");
    for file in [Some(initrd.path()), None] {
        let boot = Boot { initrd: file, overlay: b"overlay.", ..boot(&kernel) };
        let mut modules = Modules::of_linux(&boot).expect("there");
        modules.place(&ram, 0x10_0000, 1 << 32).expect("room");
        modules.load(&ram).expect("loaded");
        let (start, bytes) = modules.initrd();
        let mut loaded = vec![0; bytes as usize];
        ram.memory().read_slice(&mut loaded, GuestAddress(start.into())).expect("in memory");
        let expected: &[u8] = if file.is_some() { b"overlay.file" } else { b"overlay." };
        assert_eq!(loaded, expected);
        assert_eq!(modules.list()[0].name().contains("--exec"), file.is_none());
    }
}
