//! The initramfs for guests: busybox, `guest-init.sh`, and the kernel modules it loads.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{Assets, busybox};
use crate::cpio::Archive;

/// Modules for devices of the machine that the stock kernel doesn't have built in, by directory: the panic device for all
/// guests, and virtio with a file system for those that ask for it.
const MODULES: [(&str, &[&str]); 2] = [
    ("modules", &["pvpanic-mmio"]),
    ("virtio", &["virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_console", "virtio-rng", "ext4"]),
];

pub(super) fn initrd(assets: &Assets) -> Result<PathBuf> {
    let program = assets.busybox()?;
    let contents = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    let mut archive = Archive::new();
    for directory in ["dev", "proc", "sys", "tmp", "root"] {
        archive.directory(directory);
    }
    archive.character_device("dev/console", 5, 1);
    archive.file("bin/busybox", 0o755, &contents);
    for applet in busybox::applets(&program)?.iter().filter(|applet| *applet != "busybox") {
        archive.symlink(&format!("bin/{applet}"), "busybox");
    }
    for (directory, modules) in MODULES {
        add_modules(&mut archive, directory, &assets.kernel()?.modules(modules)?)?;
    }
    archive.file("init", 0o755, include_bytes!("guest-init.sh"));
    assets.file("guest-initrd.cpio", &archive.finish())
}

pub(super) fn generic_initrd(assets: &Assets) -> Result<PathBuf> {
    let mut archive = Archive::new();
    add_modules(&mut archive, "generic", &assets.generic_kernel()?.modules)?;
    let path = initrd(assets)?;
    let mut whole = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    whole.extend(archive.finish());
    assets.file("generic-initrd.cpio", &whole)
}

fn add_modules(archive: &mut Archive, directory: &str, modules: &[PathBuf]) -> Result<()> {
    archive.directory(directory);
    for (index, module) in modules.iter().enumerate() {
        let contents = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
        // In the order of their names, each after what it needs.
        archive.file(&format!("{directory}/{index:02}.ko"), 0o644, &contents);
    }
    Ok(())
}
