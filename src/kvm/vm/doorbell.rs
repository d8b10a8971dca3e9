//! Writes of the guest that signal an eventfd instead of being exits (api.rst, section "KVM_IOEVENTFD").

use kvm_ioctls::{IoEventAddress, NoDatamatch};
use vmm_sys_util::eventfd::EventFd;

use super::Vm;
use crate::Error;

#[cfg(test)]
mod tests;

/// Which writes to a memory address signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// Those of any size and value.
    Any,
    /// Those of 16 bits with this value.
    U16(u16),
    /// Those of 32 bits with this value.
    U32(u32),
}

impl Vm {
    /// From now on, matching writes to guest-physical `address` add 1 to `event` and are no exits.
    pub fn connect_event(&self, address: u64, matching: Match, event: &EventFd) -> Result<(), Error> {
        let (fd, at) = (&self.inner.fd, &IoEventAddress::Mmio(address));
        match matching {
            Match::Any => fd.register_ioevent(event, at, NoDatamatch),
            Match::U16(value) => fd.register_ioevent(event, at, value),
            Match::U32(value) => fd.register_ioevent(event, at, value),
        }
        .map_err(Error::call("KVM_IOEVENTFD"))
    }

    /// Undoes [`Vm::connect_event`]: the writes are exits again.
    pub fn disconnect_event(&self, address: u64, matching: Match, event: &EventFd) -> Result<(), Error> {
        let (fd, at) = (&self.inner.fd, &IoEventAddress::Mmio(address));
        match matching {
            Match::Any => fd.unregister_ioevent(event, at, NoDatamatch),
            Match::U16(value) => fd.unregister_ioevent(event, at, value),
            Match::U32(value) => fd.unregister_ioevent(event, at, value),
        }
        .map_err(Error::call("KVM_IOEVENTFD"))
    }
}
