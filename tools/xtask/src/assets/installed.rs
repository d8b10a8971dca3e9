//! Programs that are installed, not unpacked: QEMU's x86 system emulator, what measures latencies, what makes file systems.

use std::env;
use std::path::PathBuf;

use anyhow::Result;

use super::apt;
use crate::failure;

/// The program in PATH; its package is installed if need be.
pub(super) fn find(program: &str, package: &str) -> Result<PathBuf> {
    if let Some(path) = in_path(program) {
        return Ok(path);
    }
    apt::install(package)?;
    in_path(program).ok_or_else(|| failure::host(format!("{package} is installed, but {program} is not in PATH")))
}

/// Also where only root's PATH leads to.
fn in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    directories.map(|directory| directory.join(program)).find(|file| file.is_file())
}
