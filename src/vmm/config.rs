//! What a machine is made from.

use std::path::PathBuf;

use crate::Error;

/// The most vCPUs a machine can have.
pub const MAX_CPUS: u32 = 64;

/// A machine's configuration, as the command line gives it.
#[derive(Debug, Clone)]
pub struct Config {
    /// The kernel image.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Number of vCPUs, 1 to [`MAX_CPUS`].
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// A reset ends the program instead of rebooting the guest.
    pub no_reboot: bool,
}

impl Config {
    /// Checks what does not need the host.
    pub fn check(&self) -> Result<(), Error> {
        match self.cpus {
            0 => Err(Error::Usage("0 vCPUs can't run anything; give --cpus 1 or more".into())),
            1..=MAX_CPUS => Ok(()),
            n => Err(Error::Usage(format!("{n} vCPUs are too many; give --cpus {MAX_CPUS} or fewer"))),
        }
    }
}
