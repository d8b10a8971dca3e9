//! The emulated host's initramfs: busybox, kernel modules, our init, and what this run needs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Copy, libraries};
use crate::assets::{self, Kernel};
use crate::cpio::Archive;
use crate::failure;

/// Modules the emulated host loads, each list on a CPU of its own: the ports it talks to us through; /dev/kvm and tap
/// interfaces.
const MODULES: [(&str, &[&str]); 2] = [("ports", &["virtio_pci", "virtio_console"]), ("kvm", &["kvm_amd", "tun"])];
/// Those for disks, after the ports'.
const DISK_MODULES: &[&str] = &["virtio_blk"];

/// What goes into the archive beside busybox and the modules.
pub struct Contents<'a> {
    /// The script that runs the command.
    pub script: &'a str,
    /// Whether the command gets a terminal.
    pub terminal: bool,
    /// What init writes at the end of each output stream.
    pub marker: &'a str,
    /// Files to put in, `host` path to `guest` path.
    pub files: &'a [Copy],
    /// Files in the emulated host that come back.
    pub copy_out: &'a [Copy],
    /// Whether it has disks.
    pub disks: bool,
}

/// Builds the archive.
///
/// # Errors
/// When a file cannot be read (exit code 2), or the kernel lacks a module (exit code 4).
pub fn build(busybox: &Path, kernel: &Kernel, contents: &Contents) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    for directory in ["dev", "proc", "sys", "tmp", "run", "root", "etc", "usr/bin", "sbin"] {
        archive.directory(directory);
    }
    archive.character_device("dev/console", 5, 1);
    archive.character_device("dev/null", 1, 3);
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    archive.file("etc/group", 0o644, b"root:x:0:\n");

    archive.file("bin/busybox", 0o755, &read(busybox)?);
    for applet in assets::applets(busybox)?.iter().filter(|applet| *applet != "busybox") {
        archive.symlink(&format!("bin/{applet}"), "busybox");
    }
    archive.symlink("usr/bin/env", "../../bin/busybox");

    let disks = if contents.disks { DISK_MODULES } else { &[] };
    let ports = kernel.modules(MODULES[0].1)?;
    for (list, modules) in MODULES.into_iter().chain([("disks", disks)]) {
        let mut order = String::new();
        // What disks have in common with ports is loaded by then.
        for file in kernel.modules(modules)?.iter().filter(|file| list != "disks" || !ports.contains(file)) {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            archive.file(&format!("lab/{list}/{name}"), 0o644, &read(file)?);
            order += &format!("{name}\n");
        }
        archive.file(&format!("lab/{list}/order"), 0o644, order.as_bytes());
    }

    archive.file("init", 0o755, include_bytes!("init.sh"));
    archive.file("lab/run", 0o755, contents.script.as_bytes());
    archive.file("lab/marker", 0o644, contents.marker.as_bytes());
    if contents.terminal {
        archive.file("lab/tty", 0o644, b"");
    }
    let wanted: String = contents.copy_out.iter().map(|copy| format!("{}\n", copy.guest)).collect();
    archive.file("lab/copy-out", 0o644, wanted.as_bytes());
    add_files(&mut archive, contents.files)?;
    Ok(archive.finish())
}

/// Adds the files, and the shared libraries of those that are programs.
fn add_files(archive: &mut Archive, files: &[Copy]) -> Result<()> {
    let mut shared: Vec<PathBuf> = Vec::new();
    for copy in files {
        let contents = read(&copy.host)?;
        let mode = fs::metadata(&copy.host).map_or(0o644, |metadata| metadata.permissions().mode());
        archive.file(&copy.guest, mode, &contents);
        if mode & 0o111 != 0 && contents.starts_with(b"\x7fELF") && !assets::is_static(&contents) {
            for library in libraries::of(&copy.host)? {
                if !shared.contains(&library) {
                    shared.push(library);
                }
            }
        }
    }
    for library in &shared {
        archive.file(&library.to_string_lossy(), 0o755, &read(library)?);
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| failure::usage(format!("cannot read {}: {error}", path.display())))
}
