//! The initrd and further modules: files that go to guest memory as they are, the first behind an overlay of ours.
//!
//! Each lies on a page boundary, as high as the kernel's limit and the RAM below the device hole allow, the first one
//! highest.

use std::path::PathBuf;

use vm_memory::{Bytes, GuestAddress};
use x86::platform;

use super::Boot;
use super::error::{BootError, InputKind};
use super::file::InputFile;
use crate::memory::{GuestRam, PAGE_BYTES};

#[cfg(test)]
mod tests;

/// A file and its place in guest memory.
#[derive(Debug)]
pub struct Module<'a> {
    /// What comes in front of the file.
    overlay: &'a [u8],
    /// There may be none behind an overlay.
    file: Option<InputFile>,
    /// Its first guest address; 0 until it is placed.
    pub start: u64,
}

impl Module<'_> {
    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.overlay.len() as u64 + self.file.as_ref().map_or(0, |file| file.bytes)
    }

    /// Its name as given.
    pub fn name(&self) -> String {
        self.path().to_string_lossy().into_owned()
    }

    fn path(&self) -> PathBuf {
        // Without a file it is what --exec has made.
        self.file.as_ref().map_or_else(|| PathBuf::from("(made for --exec)"), InputFile::path)
    }

    fn what(&self) -> InputKind {
        self.file.as_ref().map_or(InputKind::Initrd, InputFile::what)
    }

    fn load(&mut self, ram: &GuestRam) -> Result<(), BootError> {
        let behind = self.start + self.overlay.len() as u64;
        if let Some(file) = &mut self.file {
            file.copy_to(ram, 0, file.bytes, behind)?;
        }
        // It was found to fit.
        let written = ram.memory().write_slice(self.overlay, GuestAddress(self.start));
        written.map_err(|e| BootError::Read { what: self.what(), path: self.path(), cause: e.to_string() })
    }
}

/// The modules in their order; the initrd is the first.
#[derive(Debug)]
pub struct Modules<'a>(Vec<Module<'a>>);

impl<'a> Modules<'a> {
    /// Opens the initrd and all modules.
    pub fn open(boot: &Boot<'a>) -> Result<Self, BootError> {
        let mut modules = Vec::new();
        let initrd = boot.initrd.map(|path| InputFile::open(InputKind::Initrd, path)).transpose()?;
        if initrd.is_some() || !boot.overlay.is_empty() {
            modules.push(Module { overlay: boot.overlay, file: initrd, start: 0 });
        }
        for path in boot.modules {
            let file = InputFile::open(InputKind::Module, path)?;
            modules.push(Module { overlay: &[], file: Some(file), start: 0 });
        }
        Ok(Self(modules))
    }

    /// Opens the initrd; Linux's own boot protocol has no modules.
    pub fn of_linux(boot: &Boot<'a>) -> Result<Self, BootError> {
        if boot.modules.is_empty() { Self::open(boot) } else { Err(BootError::ModulesForLinux) }
    }

    /// Finds a place for each between `kernel_end` and `addr_end`, which is the kernel's own limit.
    pub fn place(&mut self, ram: &GuestRam, kernel_end: u64, addr_end: u64) -> Result<(), BootError> {
        let mut limit = ram.low_end().min(addr_end);
        let mut max_end = addr_end.min(platform::MMIO_HOLE_START);
        for module in &mut self.0 {
            let bytes = module.bytes();
            module.start = place(kernel_end, limit, bytes).ok_or_else(|| BootError::ModuleTooLarge {
                what: module.what(),
                path: module.path(),
                bytes,
                kernel_end,
                limit,
                max_end,
            })?;
            // The next has that much less, however much memory there is.
            max_end = max_end.saturating_sub(limit - module.start);
            limit = module.start;
        }
        Ok(())
    }

    /// Copies them to their places.
    pub fn load(&mut self, ram: &GuestRam) -> Result<(), BootError> {
        self.0.iter_mut().try_for_each(|module| module.load(ram))
    }

    /// All of them.
    pub fn list(&self) -> &[Module<'a>] {
        &self.0
    }

    /// Address and bytes of the first; 0 and 0 if there is none. It was placed below 4 GiB.
    pub fn initrd(&self) -> (u32, u32) {
        self.0.first().map_or((0, 0), |module| (module.start as u32, module.bytes() as u32))
    }
}

/// The highest page below `limit` from which `bytes` fit, if that is not below `kernel_end`.
fn place(kernel_end: u64, limit: u64, bytes: u64) -> Option<u64> {
    let start = limit.checked_sub(bytes)? / PAGE_BYTES * PAGE_BYTES;
    (start >= kernel_end).then_some(start)
}
