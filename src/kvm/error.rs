//! What can go wrong on the host's side. A guest can cause none of these but [`Error::Run`], which ends it.

use std::io;

/// A failure of the host or of our use of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This host cannot run virtual machines as it is; the user can do something about it.
    #[error("{cause}; {remedy}")]
    Host {
        /// What is wrong.
        cause: String,
        /// What to do about it.
        remedy: String,
    },
    /// A KVM call failed that should not have.
    #[error("KVM call {call} failed: {source}")]
    Call {
        /// The call's name in the KVM documentation.
        call: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// KVM refused one MSR.
    #[error("KVM does not accept {value:#x} in MSR {index:#x}")]
    Msr {
        /// The MSR's number.
        index: u32,
        /// The value.
        value: u64,
    },
    /// KVM_RUN failed for another reason than a signal: this vCPU cannot go on.
    #[error("vCPU {vcpu} cannot run: {source}")]
    Run {
        /// The vCPU's index.
        vcpu: u32,
        /// The system's error.
        source: io::Error,
    },
    /// Something that the KVM documentation excludes, or a mistake of ours.
    #[error("unexpected in dealing with KVM: {0}")]
    Unexpected(&'static str),
    /// An interrupt was to be injected while the guest could not take it, or where KVM would lose it.
    #[error("vCPU {vcpu} cannot take an interrupt now")]
    NotReady {
        /// The vCPU's index.
        vcpu: u32,
    },
    /// A system call outside KVM failed.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

impl Error {
    /// What the user can do about it, where there is something.
    pub fn remedy(&self) -> Option<&str> {
        match self {
            Self::Host { remedy, .. } => Some(remedy),
            _ => None,
        }
    }

    /// For `map_err` behind a kvm-ioctls call.
    pub(crate) fn call(call: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |e| Self::Call { call, source: io::Error::from_raw_os_error(e.errno()) }
    }

    /// For a call of our own that returned -1 just now.
    pub(crate) fn last(call: &'static str) -> Self {
        Self::Call { call, source: io::Error::last_os_error() }
    }

    pub(crate) fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
