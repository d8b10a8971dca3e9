//! The guest's time-stamp counter against the host's.

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, kvm_device_attr};
use sys::clock::rdtsc;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;
use x86::msr::IA32_TSC;

use super::Vcpu;
use crate::Error;

ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);
ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);
ioctl_iow_nr!(KVM_HAS_DEVICE_ATTR, KVMIO, 0xe3, kvm_device_attr);

impl Vcpu {
    /// The guest's TSC frequency in kHz.
    pub fn tsc_khz(&self) -> Result<u32, Error> {
        self.fd().get_tsc_khz().map_err(Error::call("KVM_GET_TSC_KHZ"))
    }

    /// What to add to the host's TSC (modulo 2^64) to get the guest's, both running at the same rate. Exact on Linux
    /// 5.16 and newer; else measured, and late by the time of one call. Where
    /// [`crate::probe::HostFeatures::tsc_offset`] is false this is only what KVM believes: the true offset is 0.
    pub fn guest_tsc_offset(&self) -> Result<u64, Error> {
        let mut offset = 0u64;
        if self.has_offset_attribute() {
            let attr = offset_attribute(&raw mut offset);
            // SAFETY: reads one kvm_device_attr and writes 8 bytes to its address, which is `offset`.
            if unsafe { ioctl_with_ref(self.fd(), KVM_GET_DEVICE_ATTR(), &attr) } != 0 {
                return Err(Error::last("KVM_GET_DEVICE_ATTR(KVM_VCPU_TSC_OFFSET)"));
            }
            return Ok(offset);
        }
        let host = rdtsc();
        let guest = self.msr(IA32_TSC)?.ok_or(Error::Unexpected("no TSC"))?;
        Ok(guest.wrapping_sub(host))
    }

    /// Makes the guest's TSC read `value` now, and returns the offset that is then in effect: the caller computes
    /// deadlines from that, not from what it asked for, because some hosts cannot give the guest a TSC of its own (there,
    /// as for [`Self::guest_tsc_offset`], it is 0).
    pub fn set_guest_tsc(&mut self, value: u64) -> Result<u64, Error> {
        self.set_guest_tsc_offset(value.wrapping_sub(rdtsc()))
    }

    /// Sets what [`Self::guest_tsc_offset`] is, and returns what it then is. For one guest TSC on all vCPUs, compute
    /// the offset once and set it on each.
    pub fn set_guest_tsc_offset(&mut self, mut offset: u64) -> Result<u64, Error> {
        if self.has_offset_attribute() {
            let attr = offset_attribute(&raw mut offset);
            // SAFETY: reads one kvm_device_attr and 8 bytes at its address, which is `offset`.
            if unsafe { ioctl_with_ref(self.fd(), KVM_SET_DEVICE_ATTR(), &attr) } != 0 {
                return Err(Error::last("KVM_SET_DEVICE_ATTR(KVM_VCPU_TSC_OFFSET)"));
            }
        } else {
            self.set_msr(IA32_TSC, rdtsc().wrapping_add(offset))?;
        }
        self.guest_tsc_offset()
    }

    fn has_offset_attribute(&self) -> bool {
        let attr = offset_attribute(std::ptr::null_mut());
        // SAFETY: reads one kvm_device_attr; its address is not used.
        unsafe { ioctl_with_ref(self.fd(), KVM_HAS_DEVICE_ATTR(), &attr) == 0 }
    }
}

fn offset_attribute(at: *mut u64) -> kvm_device_attr {
    kvm_device_attr { group: KVM_VCPU_TSC_CTRL, attr: KVM_VCPU_TSC_OFFSET.into(), addr: at as u64, flags: 0 }
}
