//! A virtual machine: guest memory, the MSR filter, its vCPUs, and KVM's interrupt controllers where they are used.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_MEM_READONLY, KVM_MSR_EXIT_REASON_VALID_MASK, KVM_MSR_FILTER_MAX_BITMAP_SIZE, KVM_MSR_FILTER_MAX_RANGES,
    kvm_enable_cap, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};
use vm_memory::bitmap::Bitmap;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::{Error, Kvm, Vcpu};

mod chips;
mod doorbell;
mod irqchip;
mod refault;

#[cfg(test)]
mod tests;

pub use chips::{IoApicState, PicChip};
pub use doorbell::Match;
pub use irqchip::{Msi, Route};
pub use refault::refault;

/// Three pages that Intel processors without unrestricted guests need for real mode, at the end of the device hole.
const TSS_ADDR: usize = 0xfffb_d000;
/// One page they need for an identity map, below the three.
const IDENTITY_MAP_ADDR: u64 = 0xfffb_c000;

/// A run of MSRs whose accesses become exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsrRange {
    /// First MSR.
    pub base: u32,
    /// How many, at least 1.
    pub count: u32,
    /// RDMSR exits.
    pub read: bool,
    /// WRMSR exits.
    pub write: bool,
}

/// A virtual machine. Clones are handles on the same one, for any thread; its vCPUs keep it and its memory alive.
#[derive(Debug, Clone)]
pub struct Vm {
    inner: Arc<Inner>,
}

struct Inner {
    fd: VmFd,
    sync_regs: bool,
    // Memory is only added, never taken away, so that no vCPU can see freed memory.
    memory: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    used: u32,
    keep: Vec<Box<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vm").field("fd", &self.fd).finish_non_exhaustive()
    }
}

impl Vm {
    pub(crate) fn new(kvm: &Kvm) -> Result<Self, Error> {
        let fd = loop {
            match kvm.fd().create_vm() {
                Ok(fd) => break fd,
                // KVM_CREATE_VM ends early when a signal comes.
                Err(e) if e.errno() == libc::EINTR => {}
                Err(e) => return Err(Error::call("KVM_CREATE_VM")(e)),
            }
        };
        fd.set_identity_map_address(IDENTITY_MAP_ADDR).map_err(Error::call("KVM_SET_IDENTITY_MAP_ADDR"))?;
        fd.set_tss_address(TSS_ADDR).map_err(Error::call("KVM_SET_TSS_ADDR"))?;

        let reasons = KVM_MSR_EXIT_REASON_VALID_MASK;
        let cap =
            kvm_enable_cap { cap: Cap::X86UserSpaceMsr as u32, args: [reasons.into(), 0, 0, 0], ..Default::default() };
        fd.enable_cap(&cap).map_err(Error::call("KVM_ENABLE_CAP(KVM_CAP_X86_USER_SPACE_MSR)"))?;

        let inner = Inner { fd, sync_regs: kvm.has_sync_regs(), memory: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Gives the guest every region of `memory`, one slot each, and keeps the memory alive as long as the machine or a
    /// vCPU of it. Fails if a region is not made of whole pages or overlaps what is there.
    pub fn add_memory<B>(&self, memory: &GuestMemoryMmap<B>) -> Result<(), Error>
    where
        B: Bitmap + Send + Sync + 'static,
    {
        self.add_slots(memory, 0)
    }

    /// The same for memory that the guest can't write: its writes are [`crate::Exit::MmioWrite`].
    pub fn add_rom<B>(&self, memory: &GuestMemoryMmap<B>) -> Result<(), Error>
    where
        B: Bitmap + Send + Sync + 'static,
    {
        self.add_slots(memory, KVM_MEM_READONLY)
    }

    fn add_slots<B>(&self, memory: &GuestMemoryMmap<B>, flags: u32) -> Result<(), Error>
    where
        B: Bitmap + Send + Sync + 'static,
    {
        let mut slots = self.inner.memory.lock().unwrap_or_else(PoisonError::into_inner);
        // Kept first: from the first slot on, the guest may use it.
        slots.keep.push(Box::new(memory.clone()));
        for region in memory.iter() {
            let slot = kvm_userspace_memory_region {
                slot: slots.used,
                flags,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: the range is a live mapping of guest memory, which only volatile accesses touch; the clone in
            // `keep` holds it until the machine and all its vCPUs are gone.
            unsafe { self.inner.fd.set_user_memory_region(slot) }.map_err(Error::call("KVM_SET_USER_MEMORY_REGION"))?;
            slots.used += 1;
        }
        Ok(())
    }

    /// Makes these accesses exits with [`crate::MsrReason::Filtered`], and no others; replaces an earlier filter. At
    /// most 16 ranges of at most 12,288 MSRs. KVM ignores 0x800-0x8ff here: x2APIC registers exit anyway.
    pub fn filter_msrs(&self, ranges: &[MsrRange]) -> Result<(), Error> {
        let call = "KVM_X86_SET_MSR_FILTER";
        let fits = |r: &MsrRange| r.count > 0 && r.count <= KVM_MSR_FILTER_MAX_BITMAP_SIZE * 8 && (r.read || r.write);
        if ranges.len() > KVM_MSR_FILTER_MAX_RANGES as usize || !ranges.iter().all(fits) {
            return Err(Error::Call { call, source: io::ErrorKind::InvalidInput.into() });
        }
        // A clear bit denies, and a denied access exits. KVM reads whole 64-bit words.
        let bitmaps: Vec<Vec<u8>> = ranges.iter().map(|r| vec![0; r.count.div_ceil(64) as usize * 8]).collect();
        let ranges: Vec<MsrFilterRange<'_>> = ranges
            .iter()
            .zip(&bitmaps)
            .map(|(range, bitmap)| {
                let mut flags = MsrFilterRangeFlags::empty();
                flags.set(MsrFilterRangeFlags::READ, range.read);
                flags.set(MsrFilterRangeFlags::WRITE, range.write);
                MsrFilterRange { flags, base: range.base, msr_count: range.count, bitmap }
            })
            .collect();
        self.inner.fd.set_msr_filter(MsrFilterDefaultAction::ALLOW, &ranges).map_err(Error::call(call))
    }

    /// Makes vCPU number `index`, which is also the ID of its local APIC if that is KVM's. It is in KVM's own reset state until [`Vcpu::reset_state`].
    pub fn create_vcpu(&self, index: u32) -> Result<Vcpu, Error> {
        let fd = self.inner.fd.create_vcpu(index.into()).map_err(Error::call("KVM_CREATE_VCPU"))?;
        Vcpu::new(self.clone(), fd, index, self.inner.fd.run_size(), self.inner.sync_regs)
    }
}
