//! What the tests of this module share: scratch files and a bzImage that is only a header and a pattern.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A scratch file or directory name, removed on drop.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn file(contents: &[u8]) -> Self {
        let scratch = Self::name();
        std::fs::write(&scratch.0, contents).unwrap();
        scratch
    }

    pub fn sparse(bytes: u64) -> Self {
        let scratch = Self::name();
        std::fs::File::create(&scratch.0).unwrap().set_len(bytes).unwrap();
        scratch
    }

    pub fn directory() -> Self {
        let scratch = Self::name();
        std::fs::create_dir(&scratch.0).unwrap();
        scratch
    }

    /// A name with nothing there.
    pub fn name() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("tophalf-boot-{}-{number}", std::process::id())))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.0.is_dir() {
            let _ = std::fs::remove_dir(&self.0);
        } else {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

/// Bytes of the fake kernel's protected-mode part.
pub const PAYLOAD: usize = 0x3000;
/// Its preferred address.
pub const LOAD: u64 = 0x100_0000;
/// The memory it says it needs from there.
pub const INIT_SIZE: u32 = 0x50_0000;
/// The longest command line it says it takes.
pub const CMDLINE_SIZE: u32 = 64;
/// Bytes of its real-mode part: a boot sector and two setup sectors.
pub const SETUP: usize = 3 * 512;

/// A well-formed bzImage of protocol 2.15 with a 64-bit entry point.
pub fn bzimage() -> Vec<u8> {
    let mut image = vec![0; SETUP];
    image.extend((0..PAYLOAD).map(|i| (i % 251) as u8));
    let mut put = |offset: usize, bytes: &[u8]| image[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[2]);
    put(0x1f4, &((PAYLOAD / 16) as u32).to_le_bytes());
    put(0x1fa, &0xffff_u16.to_le_bytes());
    put(0x1fe, &[0x55, 0xaa]);
    put(0x200, &[0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes());
    put(0x211, &[0x01]);
    put(0x214, &0x10_0000_u32.to_le_bytes());
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x230, &0x20_0000_u32.to_le_bytes());
    put(0x234, &[1, 21]);
    put(0x236, &0x007f_u16.to_le_bytes());
    put(0x238, &CMDLINE_SIZE.to_le_bytes());
    put(0x250, &0xdead_beef_u64.to_le_bytes());
    put(0x258, &LOAD.to_le_bytes());
    put(0x260, &INIT_SIZE.to_le_bytes());
    put(0x268, &0x1234_u32.to_le_bytes());
    image
}

/// [`bzimage`] with some bytes replaced.
pub fn bzimage_with(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = bzimage();
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
    image
}
