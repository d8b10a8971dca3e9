//! QEMU as the peer to compare with.

use std::env;
use std::path::{Path, PathBuf};

use super::kinds::Kind;
use crate::lab::{self, Copy};

/// What QEMU needs to boot a kernel on a q35 machine without a display, where Debian puts it.
const FIRMWARE: [&str; 3] =
    ["/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/kvmvapic.bin", "/usr/share/qemu/linuxboot_dma.bin"];
/// From this version on QEMU's x86 machines have no user-space local APIC with KVM.
const NO_OFF: (u32, u32) = (8, 0);

/// An installed QEMU.
pub struct Peer {
    program: PathBuf,
    version: (u32, u32),
}

impl Peer {
    /// The one in PATH with its firmware, if it can say its version.
    pub fn find() -> Option<Self> {
        let program = env::split_paths(&env::var_os("PATH")?)
            .map(|directory| directory.join("qemu-system-x86_64"))
            .find(|file| file.is_file())?;
        let version = lab::qemu_version(&program)?;
        FIRMWARE.iter().all(|file| Path::new(file).is_file()).then_some(Self { program, version })
    }

    /// What it can be compared in.
    pub fn kinds(&self) -> Vec<Kind> {
        if self.version < NO_OFF { vec![Kind::QemuOff, Kind::QemuOn] } else { vec![Kind::QemuOn] }
    }

    /// What the emulated host needs to run it.
    pub fn files(&self) -> Vec<Copy> {
        let program = Copy { host: self.program.clone(), guest: "/usr/bin/qemu-system-x86_64".to_owned() };
        let firmware = FIRMWARE.iter().map(|path| Copy { host: path.into(), guest: (*path).to_owned() });
        std::iter::once(program).chain(firmware).collect()
    }
}
