//! QEMU's x86 system emulator, for the emulated host.

use std::env;
use std::path::PathBuf;

use anyhow::Result;

use super::apt;
use crate::failure;

const PROGRAM: &str = "qemu-system-x86_64";

pub(super) fn find() -> Result<PathBuf> {
    if let Some(qemu) = installed() {
        return Ok(qemu);
    }
    apt::install("qemu-system-x86")?;
    installed().ok_or_else(|| failure::host(format!("qemu-system-x86 is installed, but {PROGRAM} is not in PATH")))
}

fn installed() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(PROGRAM)).find(|file| file.is_file())
}
