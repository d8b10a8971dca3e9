use std::os::unix::fs::PermissionsExt;

use super::*;

/// A program in place of QEMU: a shell script.
fn program(folder: &tempfile::TempDir, script: &str) -> PathBuf {
    let path = folder.path().join("qemu");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("ours");
    path
}

fn found(script: &str) -> Result<Peer, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let image = Image::open(None).expect("it is built in");
    match Peer::find(&program(&folder, script), &image, 1) {
        Ok(peer) => Ok(peer),
        Err(Error::Usage(why)) => Err(why),
        Err(e) => panic!("{e}"),
    }
}

const VERSION: &str = r#"if [ "$1" = --version ]; then echo "QEMU emulator version 9.9 (test)"; exit; fi"#;
/// What a guest says that has measured its clock.
const GUEST: &str = r#"printf '%s\n' '{"event":"begin","index":0}' \
'{"event":"samples","name":"latency","samples":[[12,0]]}' '{"event":"complete","outcome":"passed","text":""}'; exit 1"#;

#[test]
fn what_is_no_qemu_is_refused_with_the_remedy() {
    let image = Image::open(None).expect("it is built in");
    for (program, words) in [("/nonexistent/qemu", "can't be run"), ("/bin/true", "is no QEMU")] {
        let Err(Error::Usage(why)) = Peer::find(Path::new(program), &image, 1) else { panic!("{program}") };
        assert!(why.contains(words) && why.contains("--vs-qemu=PATH"), "{why}");
    }
}

#[test]
fn one_that_can_not_use_kvm_is_refused_with_its_own_words() {
    let why = found(&format!("{VERSION}\necho 'qemu: Could not access KVM kernel module: No such file' >&2; exit 1"));
    let why = why.err().expect("it has no KVM");
    assert!(why.contains("Could not access KVM kernel module") && why.contains("tophalf doctor"), "{why}");
}

#[test]
fn a_setting_that_it_does_not_have_is_left_out_with_the_reason() {
    let off = r#"case "$2" in *=off) echo "qemu: warning: old" >&2; echo "qemu: -accel: off is no more" >&2
echo "qemu: warning: older" >&2; exit 1;; esac"#;
    let peer = found(&format!("{VERSION}\n{off}\n{GUEST}")).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(
        (peer.version.as_str(), &peer.modes[..]),
        ("9.9 (test)", &[KernelIrqchip::On, KernelIrqchip::Split][..])
    );
    let [(KernelIrqchip::Off, why)] = &peer.left_out[..] else { panic!("{:?}", peer.left_out) };
    assert!(why.ends_with("-accel: off is no more"), "{why}");
}

#[test]
fn the_guest_is_told_which_of_our_modes_its_machine_is_like() {
    for (mode, accel, word) in [
        (KernelIrqchip::On, "kvm,kernel-irqchip=on", "irqchip=kernel"),
        (KernelIrqchip::Split, "kvm,kernel-irqchip=split", "irqchip=split"),
        (KernelIrqchip::Off, "kvm,kernel-irqchip=off", "irqchip=user"),
    ] {
        let command = command(Path::new("q"), Path::new("image"), mode, 3, vec!["measure=eoi".to_owned()]);
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_str().expect("text")).collect();
        let after = |name| arguments.iter().skip_while(|argument| **argument != name).nth(1).copied();
        assert_eq!((after("-accel"), after("-smp"), after("-kernel")), (Some(accel), Some("3"), Some("image")));
        assert!(after("-append").is_some_and(|words| words.starts_with("measure=eoi ") && words.contains(word)));
    }
}
