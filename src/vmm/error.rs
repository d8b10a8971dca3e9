//! What can keep a machine from running, as the user sees it: one line with cause and remedy, and an exit code.

use std::fmt::Display;

use crate::boot::{BootError, ErrorKind};

/// Exit codes of the program. All but one are even; the odd ones are the debug exit's.
pub mod exit_code {
    /// A wrong argument or input file.
    pub const USAGE: u8 = 2;
    /// A budget of `bench compare` is not met. It may be odd: that command runs no guest that could write a debug exit.
    pub const BUDGET: u8 = 3;
    /// The host lacks something, or failed.
    pub const HOST: u8 = 4;
    /// The guest reset, and was not to be rebooted.
    pub const RESET: u8 = 32;
    /// The guest panicked, and said so by its pvpanic device.
    pub const GUEST_PANIC: u8 = 34;
    /// The guest can't go on: a triple fault, or KVM gave up on a vCPU.
    pub const GUEST_BROKEN: u8 = 36;
    /// All vCPUs have halted for good.
    pub const HALTED: u8 = 38;
}

/// An error before or beside the guest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument is wrong.
    #[error("{0}")]
    Usage(String),
    /// Memory, kernel, initrd or tables.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] kvm::Error),
    /// Another part of the host.
    #[error("{0}")]
    Host(String),
}

impl Error {
    /// For `map_err`: `what` failed on the host.
    pub fn host(what: &str, source: impl Display) -> Self {
        Self::Host(format!("{what}: {source}"))
    }

    /// The program's exit code for this.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit_code::USAGE,
            Self::Boot(e) if e.kind() == ErrorKind::Input => exit_code::USAGE,
            Self::Boot(_) | Self::Kvm(_) | Self::Host(_) => exit_code::HOST,
        }
    }
}
