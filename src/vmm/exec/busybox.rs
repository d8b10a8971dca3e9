//! Finding a busybox that runs in a guest: one without shared libraries.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// Where Debian's busybox-static has it, for a `$PATH` that leaves these out.
const USUAL: [&str; 2] = ["/bin", "/usr/bin"];
/// Larger than any busybox.
const MAX_BYTES: u64 = 64 << 20;

/// The contents of `given`, or of the first static busybox in the folders of `path`.
pub fn find(given: Option<&Path>, path: &OsStr) -> Result<Vec<u8>, Error> {
    if let Some(given) = given {
        return read(given).map_err(|why| Error::Usage(format!("--busybox {}: {why}", given.display())));
    }
    let folders = std::env::split_paths(path).chain(USUAL.map(PathBuf::from));
    let mut unusable = None;
    for candidate in folders.map(|folder| folder.join("busybox")).filter(|candidate| candidate.is_file()) {
        match read(&candidate) {
            Ok(bytes) => return Ok(bytes),
            Err(why) => unusable = unusable.or_else(|| Some(format!(" ({}: {why})", candidate.display()))),
        }
    }
    Err(Error::Usage(format!(
        "--exec needs a static busybox for the guest and found none{}; install busybox-static, name one with --busybox, or \
         give an initramfs with a shell by --initrd",
        unusable.unwrap_or_default()
    )))
}

/// Reads a static program; else says in a few words what is wrong with it.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let metadata = fs::metadata(path).map_err(|e| e.to_string())?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err("it is no program; name a static busybox".to_owned());
    }
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    match is_static(&bytes) {
        Some(true) => Ok(bytes),
        Some(false) => Err("it needs shared libraries; name a static one, such as busybox-static's".to_owned()),
        None => Err("it is no x86-64 program; name a static busybox".to_owned()),
    }
}

/// Whether an x86-64 ELF file names no interpreter, and so needs no shared library; `None` for other files.
fn is_static(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    const EM_X86_64: u16 = 62;
    let u16_at = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    // ELF magic, 64 bits, little-endian.
    if !elf.starts_with(b"\x7fELF\x02\x01") || u16_at(18)? != EM_X86_64 {
        return None;
    }
    let table = usize::try_from(u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (usize::from(u16_at(54)?), usize::from(u16_at(56)?));
    for number in 0..count {
        let at = table.checked_add(number * size)?;
        let kind = elf.get(at..at.checked_add(4)?)?;
        if kind == PT_INTERP.to_le_bytes() {
            return Some(false);
        }
    }
    Some(true)
}
