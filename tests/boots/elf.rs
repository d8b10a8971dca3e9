//! The ELF kernel, started by its PVH note, and by Linux's 64-bit protocol where it has none.
//!
//! The kernel says by which way it came: its boot loader's number is one of our making, or the one that its own PVH entry
//! puts there.

use std::fs;

use crate::guest::{Guest, variable};
use crate::{assert_chip, assert_healthy};

/// `type_of_loader` as Linux's PVH entry fills it in without Xen: 11, in the upper half.
const BY_PVH: &str = "176";
/// What a loader without a number says.
const BY_LOADER: &str = "255";

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn a_vmlinux_boots_by_its_pvh_note() {
    let report = Guest::new().cpus(2).kernel(variable("TOPHALF_VMLINUX")).boot();
    assert_healthy(&report, 2);
    assert_chip(&report, "4", "IO-APIC");
    assert_eq!(report.lines("loader"), [BY_PVH], "{report}");
}

#[test]
#[ignore = "needs real KVM: run by cargo xtask test"]
fn a_vmlinux_without_the_note_boots_by_the_64_bit_protocol() {
    // Name and contents of 4 bytes or 8, kind 18, Xen.
    let note = |bytes: u8| [&[4, 0, 0, 0, bytes, 0, 0, 0, 18, 0, 0, 0][..], b"Xen\0"].concat();
    let mut vmlinux = fs::read(variable("TOPHALF_VMLINUX")).expect("the test command made it");
    let places: Vec<usize> = [4, 8]
        .into_iter()
        .flat_map(|bytes| {
            let note = note(bytes);
            vmlinux.windows(note.len()).enumerate().filter(|(_, w)| *w == note).map(|(at, _)| at).collect::<Vec<_>>()
        })
        .collect();
    assert!(!places.is_empty(), "this kernel has no PVH note anyway");
    for place in places {
        vmlinux[place + 12] = b'Z';
    }
    let path = std::env::temp_dir().join(format!("vmlinux-{}", std::process::id()));
    fs::write(&path, vmlinux).expect("the temporary directory is writable");
    let guest = Guest::new().cpus(2).kernel(&path);
    let report = std::panic::catch_unwind(|| guest.boot());
    fs::remove_file(&path).expect("just written");
    let report = report.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_healthy(&report, 2);
    assert_chip(&report, "4", "IO-APIC");
    assert_eq!(report.lines("loader"), [BY_LOADER], "{report}");
}
