//! Writes cpio archives in the "newc" format, the one the kernel unpacks as initramfs.
//!
//! Follows the kernel's "initramfs buffer format" document. Not written: hard links, checksums, owners
//! other than root, time stamps.

use std::collections::BTreeSet;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// An archive under construction.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<String>,
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the directory `path` (leading slash optional) and those above it, once each.
    pub fn directory(&mut self, path: &str) {
        let path = clean(path);
        if path.is_empty() || self.directories.contains(path) {
            return;
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent);
        }
        self.directories.insert(path.to_owned());
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// Adds a regular file with permission bits `mode`.
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.parent(path);
        self.entry(clean(path), REGULAR | (mode & 0o7777), (0, 0), contents);
    }

    /// Adds a symbolic link at `path` that points to `to`.
    pub fn symlink(&mut self, path: &str, to: &str) {
        self.parent(path);
        self.entry(clean(path), SYMLINK | 0o777, (0, 0), to.as_bytes());
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.parent(path);
        self.entry(clean(path), CHARACTER | 0o600, (major, minor), &[]);
    }

    /// Ends the archive and gives its bytes, padded to 512 as cpio itself pads.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.pad(512);
        self.bytes
    }

    fn parent(&mut self, path: &str) {
        if let Some((parent, _)) = clean(path).rsplit_once('/') {
            self.directory(parent);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.entries += 1;
        let trailer = mode == 0;
        // The size field has eight hex digits; lab and guest files are far below 4 GiB.
        let fields = [
            if trailer { 0 } else { self.entries },
            mode,
            0,
            0,
            1,
            0,
            contents.len() as u32,
            0,
            0,
            device.0,
            device.1,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend_from_slice(contents);
        self.pad(4);
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }
}

fn clean(path: &str) -> &str {
    path.trim_matches('/')
}

#[cfg(test)]
mod tests;
