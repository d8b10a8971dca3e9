//! The initramfs, or what comes in front of the user's: a cpio archive in the "newc" format.
//!
//! Linux's Documentation/driver-api/early-userspace/buffer-format.rst: an initramfs is any number of archives, each compressed or
//! not, with zeros between them, unpacked one over the other. Ours comes first and uncompressed, as the archives with
//! microcode do, so that the user's may be compressed in any way.

use std::io;

use cpio::newc::{Builder, ModeFileType, trailer};

use super::INIT;

/// The next archive begins on such a boundary.
const ALIGNMENT: usize = 4;

/// The init alone.
pub fn layer(init: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.init(init)?;
    archive.finish()
}

/// A whole initramfs: the init, and busybox as the shell.
pub fn with_busybox(init: &[u8], busybox: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        archive.entry(folder, ModeFileType::Directory, 0o755, b"")?;
    }
    archive.entry("bin/busybox", ModeFileType::Regular, 0o755, busybox)?;
    archive.entry("bin/sh", ModeFileType::Symlink, 0o777, b"busybox")?;
    archive.entry("etc/passwd", ModeFileType::Regular, 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    archive.entry("etc/group", ModeFileType::Regular, 0o644, b"root:x:0:\n")?;
    archive.init(init)?;
    archive.finish()
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn init(&mut self, init: &[u8]) -> io::Result<()> {
        let folder = INIT.split('/').next().unwrap_or(INIT);
        self.entry(folder, ModeFileType::Directory, 0o700, b"")?;
        self.entry(INIT, ModeFileType::Regular, 0o700, init)
    }

    fn entry(&mut self, name: &str, kind: ModeFileType, permissions: u32, contents: &[u8]) -> io::Result<()> {
        let size = u32::try_from(contents.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.entries += 1;
        let entry = Builder::new(name).ino(self.entries).mode(permissions).set_mode_file_type(kind);
        let mut writer = entry.write(&mut self.bytes, size);
        io::Write::write_all(&mut writer, contents)?;
        writer.finish()?;
        Ok(())
    }

    fn finish(mut self) -> io::Result<Vec<u8>> {
        trailer(&mut self.bytes)?;
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        Ok(self.bytes)
    }
}
