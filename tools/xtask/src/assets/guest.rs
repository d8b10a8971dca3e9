//! The initramfs for guests: busybox and `guest-init.sh`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{Assets, busybox};
use crate::cpio::Archive;

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
    archive.file("init", 0o755, include_bytes!("guest-init.sh"));
    assets.file("guest-initrd.cpio", &archive.finish())
}
