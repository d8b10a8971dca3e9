//! The kernel command line in guest memory.

use vm_memory::{Bytes, GuestAddress};

use super::error::BootError;
use super::layout;
use crate::memory::GuestRam;

/// The longest command line there is room for, in bytes without its NUL.
pub const MAX: u64 = layout::CMDLINE_BYTES - 1;

/// Checks the command line against what the kernel takes, in bytes without the NUL, and against [`MAX`].
pub fn check(cmdline: &str, kernel_takes: u64) -> Result<(), BootError> {
    if let Some(position) = cmdline.bytes().position(|byte| byte == 0) {
        return Err(BootError::CmdlineNul { position });
    }
    let limit = kernel_takes.min(MAX) as usize;
    if cmdline.len() > limit {
        return Err(BootError::CmdlineTooLong { bytes: cmdline.len(), limit });
    }
    Ok(())
}

/// Writes it with its NUL to [`layout::CMDLINE`].
pub fn write(ram: &GuestRam, cmdline: &str) -> Result<(), BootError> {
    let bytes = [cmdline.as_bytes(), &[0]].concat();
    ram.memory()
        .write_slice(&bytes, GuestAddress(layout::CMDLINE))
        .map_err(|cause| BootError::GuestWrite { what: "the command line", cause })
}
