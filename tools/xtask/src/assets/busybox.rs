//! A statically linked busybox: the host's own, or Debian's busybox-static unpacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::{Assets, apt};
use crate::failure;

/// Applets that lab and guests cannot do without.
const NEEDED: [&str; 9] = ["sh", "mount", "insmod", "depmod", "setsid", "stty", "poweroff", "mkfifo", "unxz"];

pub(super) fn find(assets: &Assets) -> Result<PathBuf> {
    let installed = ["/usr/bin/busybox", "/bin/busybox"].into_iter().map(PathBuf::from).find(|path| good(path));
    if let Some(path) = installed {
        return Ok(path);
    }
    let part = assets.part("busybox", |directory| apt::unpack("busybox-static", directory))?;
    ["bin/busybox", "usr/bin/busybox"].iter().map(|path| part.join(path)).find(|path| good(path)).ok_or_else(|| {
        failure::host(format!("no usable busybox in {}; remove that directory and try again", part.display()))
    })
}

fn good(path: &Path) -> bool {
    let is_static = fs::read(path).is_ok_and(|bytes| is_static(&bytes));
    is_static && applets(path).is_ok_and(|have| NEEDED.iter().all(|need| have.iter().any(|applet| applet == need)))
}

/// The applets `busybox` has.
///
/// # Errors
/// When it does not run.
pub fn applets(busybox: &Path) -> Result<Vec<String>> {
    let output = Command::new(busybox).arg("--list").stdin(Stdio::null()).output().context("cannot run busybox")?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// Whether an x86-64 ELF file names no interpreter: then it needs no shared library.
pub fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let u16_at = |at: usize| elf.get(at..at + 2).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    let header = || {
        let offset = elf.get(32..40)?.try_into().ok().map(u64::from_le_bytes)?;
        Some((usize::try_from(offset).ok()?, u16_at(54)?, u16_at(56)?))
    };
    // ELF magic, 64-bit, little-endian.
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let Some((offset, size, count)) = header() else { return false };
    (0..count).all(|n| {
        let at = offset.saturating_add(n * size);
        elf.get(at..at.saturating_add(4)).is_some_and(|kind| kind != PT_INTERP.to_le_bytes())
    })
}

#[cfg(test)]
mod tests;
