//! The page that KVM and a vCPU's thread share (`struct kvm_run`), behind accessors.
//!
//! It is mapped here a second time instead of being borrowed from kvm-ioctls, because the kick's signal handler writes
//! `immediate_exit` at any moment: there must never be a Rust reference to the whole of it.

use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use kvm_bindings::{KVM_SYNC_X86_REGS, kvm_run, kvm_run__bindgen_ty_1};
use sys::kick::KickTarget;

use crate::Error;

/// What an exit says about itself: a union that `exit_reason` selects from.
pub(crate) type ExitData = kvm_run__bindgen_ty_1;

/// Where [`ExitData`] is in the page.
pub(crate) const EXIT_DATA: usize = offset_of!(kvm_run, __bindgen_anon_1);

/// The memory, and the one byte of it that others than the vCPU may touch.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping belongs to no thread. All that is reachable through a shared Mapping is an atomic byte; the rest
// is reached through the one RunPage that made it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl KickTarget for Mapping {
    fn immediate_exit(&self) -> &AtomicU8 {
        // SAFETY: the byte is inside the mapping, which lives as long as `self`; we access it atomically only, and the
        // kernel reads it only.
        unsafe { AtomicU8::from_ptr(self.base.as_ptr().add(offset_of!(kvm_run, immediate_exit))) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and this was the last holder.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.size) };
    }
}

/// One vCPU's run page, owned by its [`crate::Vcpu`]: not cloned, read by `&self`, written by `&mut self`.
#[derive(Debug)]
pub(crate) struct RunPage(Arc<Mapping>);

/// Reads a field of the page.
macro_rules! get {
    ($page:expr, $($field:tt)+) => {
        // SAFETY: the mapping holds a whole kvm_run and lives as long as the page; every bit pattern is valid for the
        // integers and unions it consists of. KVM writes it during KVM_RUN only, which needs `&mut Vcpu`.
        unsafe { (&raw const (*$page.run()).$($field)+).read_volatile() }
    };
}

/// Writes a field of the page.
macro_rules! set {
    ($page:expr, $value:expr, $($field:tt)+) => {
        // SAFETY: as for `get!`, and `&mut self` keeps other accesses out.
        unsafe { (&raw mut (*$page.run()).$($field)+).write_volatile($value) }
    };
}

impl RunPage {
    /// Maps the page of the vCPU behind `fd`; `size` is KVM_GET_VCPU_MMAP_SIZE in bytes.
    pub fn map(fd: &impl AsRawFd, size: usize) -> Result<Self, Error> {
        if size < size_of::<kvm_run>() {
            return Err(Error::Unexpected("a run page smaller than its structure"));
        }
        // SAFETY: a new mapping where the kernel chooses; nothing of ours is replaced.
        let base = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(ptr::null_mut(), size, access, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        match NonNull::new(base.cast::<u8>()) {
            Some(at) if base != libc::MAP_FAILED => Ok(Self(Arc::new(Mapping { base: at, size }))),
            _ => Err(Error::last("mmap of the run page")),
        }
    }

    fn run(&self) -> *mut kvm_run {
        self.0.base.as_ptr().cast()
    }

    /// The holder of `immediate_exit`, for the kick.
    pub fn kick_target(&self) -> Arc<Mapping> {
        Arc::clone(&self.0)
    }

    pub fn immediate_exit(&self) -> &AtomicU8 {
        self.0.immediate_exit()
    }

    pub fn exit_reason(&self) -> u32 {
        get!(self, exit_reason)
    }

    pub fn ready(&self) -> bool {
        get!(self, ready_for_interrupt_injection) != 0
    }

    pub fn if_flag(&self) -> bool {
        get!(self, if_flag) != 0
    }

    pub fn cr8(&self) -> u64 {
        get!(self, cr8)
    }

    pub fn set_cr8(&mut self, value: u64) {
        set!(self, value, cr8);
    }

    pub fn apic_base(&self) -> u64 {
        get!(self, apic_base)
    }

    pub fn set_request_interrupt_window(&mut self, wanted: bool) {
        set!(self, u8::from(wanted), request_interrupt_window);
    }

    /// Asks KVM to leave the general registers in the page at every exit.
    pub fn sync_general_registers(&mut self) {
        set!(self, u64::from(KVM_SYNC_X86_REGS), kvm_valid_regs);
    }

    /// RFLAGS as of the last exit; only with [`Self::sync_general_registers`].
    pub fn synced_rflags(&self) -> u64 {
        get!(self, s.regs.regs.rflags)
    }

    pub fn exit_data(&self) -> ExitData {
        get!(self, __bindgen_anon_1)
    }

    /// The answer to an MSR exit: non-zero means #GP. Means nothing after other exits.
    pub fn msr_error(&self) -> u8 {
        get!(self, __bindgen_anon_1.msr.error)
    }

    /// `len` bytes at `offset` of the mapping; `None` if they are not in it, or reach before the exit data, where the
    /// fields with a meaning of their own are.
    pub fn bytes_mut(&mut self, offset: usize, len: usize) -> Option<&mut [u8]> {
        let end = offset.checked_add(len)?;
        if offset < EXIT_DATA || end > self.0.size {
            return None;
        }
        // SAFETY: the range is inside the mapping and does not hold the atomic byte; `&mut self` makes the slice the
        // only access to it, and KVM writes only during KVM_RUN, which needs `&mut Vcpu` too.
        Some(unsafe { slice::from_raw_parts_mut(self.0.base.as_ptr().add(offset), len) })
    }

    /// The answer fields of an MSR exit: error and data.
    pub fn msr_answer(&mut self) -> (&mut u8, &mut u64) {
        // SAFETY: the exit data is inside the mapping and aligned; the two fields are distinct, and `&mut self` makes
        // the references the only access to them.
        unsafe {
            let msr = &raw mut (*self.run()).__bindgen_anon_1.msr;
            (&mut (*msr).error, &mut (*msr).data)
        }
    }
}
