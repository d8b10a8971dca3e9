//! Machines with interrupt controllers in KVM, tried out: whether this KVM can make one with a vCPU.

use kvm_bindings::kvm_enable_cap;
use kvm_ioctls::{Cap, VmFd};

use crate::{Error, Kvm};

/// Pins of the I/O APIC that stays in user space.
const PINS: u64 = 24;

/// Tries a machine with the local APICs in KVM and the rest in user space.
pub fn split_works(kvm: &Kvm) -> Result<(), Error> {
    let vm = machine(kvm)?;
    let cap = kvm_enable_cap { cap: Cap::SplitIrqchip as u32, args: [PINS, 0, 0, 0], ..Default::default() };
    vm.enable_cap(&cap).map_err(Error::call("KVM_ENABLE_CAP(KVM_CAP_SPLIT_IRQCHIP)"))?;
    with_local_apic(&vm)
}

/// Tries a machine with all interrupt controllers in KVM.
pub fn kernel_works(kvm: &Kvm) -> Result<(), Error> {
    let vm = machine(kvm)?;
    vm.create_irq_chip().map_err(Error::call("KVM_CREATE_IRQCHIP"))?;
    with_local_apic(&vm)
}

fn machine(kvm: &Kvm) -> Result<VmFd, Error> {
    loop {
        match kvm.fd().create_vm() {
            Ok(vm) => return Ok(vm),
            // KVM_CREATE_VM ends early when a signal comes.
            Err(e) if e.errno() == libc::EINTR => {}
            Err(e) => return Err(Error::call("KVM_CREATE_VM")(e)),
        }
    }
}

fn with_local_apic(vm: &VmFd) -> Result<(), Error> {
    let vcpu = vm.create_vcpu(0).map_err(Error::call("KVM_CREATE_VCPU"))?;
    vcpu.get_lapic().map(drop).map_err(Error::call("KVM_GET_LAPIC"))
}
