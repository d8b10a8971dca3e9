use super::*;

#[test]
fn versions_are_read_as_qemu_prints_them() {
    assert_eq!(parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)"), Some((7, 2)));
    assert_eq!(parse_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright"), Some((10, 0)));
    assert_eq!(parse_version("QEMU emulator version 9"), None);
    assert_eq!(parse_version(""), None);
}

/// What [`epitaph`] says of these two files.
fn said(messages: &str, log: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let (messages_path, log_path) = (directory.path().join("messages"), directory.path().join("log"));
    fs::write(&messages_path, messages).unwrap();
    fs::write(&log_path, log).unwrap();
    epitaph(&messages_path, &log_path)
}

#[test]
fn a_panic_is_told_before_anything_qemu_says() {
    let log = "[ 1.0] BUG: x\n[ 2.0] Kernel panic - not syncing: y\n[ 3.0] Rebooting\n";
    assert_eq!(said("qemu: gone\n", log), "its kernel panicked: [ 2.0] Kernel panic - not syncing: y");
}

#[test]
fn warnings_of_qemu_are_no_cause() {
    let warning = "qemu: warning: TCG doesn't support requested feature\n";
    assert_eq!(said(warning, ""), "it was powered off");
    assert_eq!(
        said(&format!("qemu: cannot allocate memory\n{warning}"), ""),
        "QEMU said: qemu: cannot allocate memory"
    );
}

#[test]
fn a_disk_that_is_kept_is_written_at_once_and_others_not_at_all() {
    let disk = |image: &str, kept| Disk { image: image.into(), kept };
    let arguments = disks(&[disk("/a,b", true), disk("/c", false)]);
    assert_eq!(
        arguments.join(" "),
        "-drive if=none,id=disk0,format=raw,cache=writethrough,file=/a,,b -device virtio-blk-pci,drive=disk0 \
         -drive if=none,id=disk1,format=raw,snapshot=on,cache=unsafe,file=/c -device virtio-blk-pci,drive=disk1"
    );
    assert!(disks(&[]).is_empty());
}
