//! Who has a machine's interrupt controllers: this program (`user`), KVM the local APICs and this program the rest
//! (`split`), or KVM all of them (`kernel`). Devices, memory and boot are the same in each.

mod firmware;
mod kernel;
mod split;
mod user;

use std::sync::Arc;

use bottom_half::CpuOwner;
use kvm::bindings::kvm_cpuid_entry2;
use kvm::{LapicPage, Reset, Vcpu, Vm};
use x86::apic::{DeliveryMode, Lvt, Svr, reg};
use x86::msr::{self, ApicBase};

use crate::boot::BootState;
use crate::clock::Clock;
use crate::host::Host;
use crate::interrupts::{Inputs, Processors};
use crate::memory::GuestRam;
use crate::monitor::Chips;
use crate::trace::Trace;
use crate::vcpu::{Processor, Shared};
use crate::wiring::Wiring;
use crate::{Config, Error, Irqchip, boot_registers};

/// IA32_MTRR_DEF_TYPE as firmware leaves it: MTRRs enabled, write-back by default (a guest without it maps its memory
/// uncached).
const MTRR_ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;
/// IA32_MISC_ENABLE: fast strings.
const FAST_STRINGS: u64 = 1;

/// The interrupt controllers of one machine in the making.
pub trait Mode {
    /// The machine in KVM.
    fn vm(&self) -> &Vm;
    /// Where devices' lines and messages go.
    fn inputs(&self) -> Arc<dyn Inputs>;
    /// Puts the controllers' registers that are this program's on the buses.
    fn wire(&self, wiring: &mut Wiring);
    /// Those that are this program's, for the monitor; `None` if none is.
    fn chips(&self) -> Option<Arc<dyn Chips>>;
    /// The vCPUs' mailboxes and threads.
    fn processors(&self) -> Arc<Processors>;
    /// KVM's vCPUs in the state that firmware leaves: after reset, MTRRs on, the bootstrap processor at the kernel's entry
    /// with its local APIC in virtual-wire mode. `owners` are their halves of their CPUs of the bottom halves.
    fn vcpus(
        self: Box<Self>,
        shared: &Arc<Shared>,
        owners: Vec<CpuOwner>,
        boot: &BootState,
    ) -> Result<Vec<Box<dyn Processor>>, Error>;
}

/// Makes the controllers, and the machine in KVM that they belong to, with `ram` in it.
pub fn make<'a>(
    config: &Config,
    host: &'a Host,
    clock: Clock,
    ram: &GuestRam,
    trace: &Trace,
) -> Result<Box<dyn Mode + 'a>, Error> {
    let vm = host.kvm.create_vm()?;
    vm.add_memory(ram.memory())?;
    let ids = config.apic_ids();
    Ok(match config.irqchip {
        Irqchip::User => Box::new(user::User::new(vm, ids, host, clock, trace)?),
        Irqchip::Split => Box::new(split::Split::new(vm, ids, host, clock, trace)?),
        Irqchip::Kernel => Box::new(kernel::Kernel::new(vm, ids, host, trace)?),
    })
}

/// Some local APIC has an ID that only x2APIC mode can tell from a broadcast or another ID. Firmware hands all processors
/// over in that mode then (Intel SDM vol. 3A, section "Initialization by BIOS"; it could not start them otherwise).
fn is_wide(ids: &[u32]) -> bool {
    ids.iter().any(|&id| id >= 0xff)
}

/// IA32_APIC_BASE as firmware leaves it; `reset` is its value after reset.
fn apic_base(reset: u64, ids: &[u32]) -> u64 {
    if is_wide(ids) { reset | ApicBase::X2APIC.bits() } else { reset }
}

/// KVM's vCPU `number` as firmware leaves it, the bootstrap processor at the kernel's entry.
fn vcpu(
    vm: &Vm,
    number: u32,
    cpuid: &[kvm_cpuid_entry2],
    ids: &[u32],
    boot: Option<&BootState>,
) -> Result<Vcpu, Error> {
    let mut cpu = vm.create_vcpu(number)?;
    cpu.set_cpuid(cpuid)?;
    cpu.reset_state(Reset::PowerOn { bsp: boot.is_some() })?;
    cpu.set_msr(msr::IA32_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK)?;
    // Not every host has this one; it is a hint to the guest.
    let _ = cpu.set_msr(msr::IA32_MISC_ENABLE, FAST_STRINGS);
    if is_wide(ids) {
        let reset = cpu.sregs()?.apic_base;
        cpu.set_apic_base(apic_base(reset, ids))?;
    }
    if let Some(boot) = boot {
        boot_registers::enter(&mut cpu, boot)?;
    }
    Ok(cpu)
}

/// Makes KVM's vCPUs with KVM's local APICs, whose IDs are the vCPUs' numbers.
fn kernel_apic_vcpus(
    vm: &Vm,
    ids: &[u32],
    boot: &BootState,
    cpuid: impl Fn(u32) -> Vec<kvm_cpuid_entry2>,
) -> Result<Vec<Vcpu>, Error> {
    vm.set_boot_cpu(ids.first().copied().unwrap_or(0))?;
    let mut vcpus = Vec::new();
    for (index, &id) in ids.iter().enumerate() {
        let boot = Some(boot).filter(|_| index == 0);
        let mut cpu = vcpu(vm, id, &cpuid(id), ids, boot)?;
        if boot.is_some() {
            let mut apic = cpu.lapic()?;
            enter_virtual_wire_mode(&mut apic);
            cpu.set_lapic(&apic)?;
        }
        vcpus.push(cpu);
    }
    Ok(vcpus)
}

/// As [`irqchip::lapic::LocalApic::enter_virtual_wire_mode`], for KVM's.
fn enter_virtual_wire_mode(apic: &mut LapicPage) {
    let lint = |mode: DeliveryMode| Lvt::new().with_delivery_mode(mode as u8).into_bits();
    apic.set_register(reg::SVR, Svr::new().with_vector(0xff).with_enabled(true).into_bits());
    apic.set_register(reg::LVT_LINT0, lint(DeliveryMode::ExtInt));
    apic.set_register(reg::LVT_LINT1, lint(DeliveryMode::Nmi));
}

/// Refuses IDs that KVM can't give its local APICs.
fn check_ids(ids: &[u32], limit: u32, mode: &str) -> Result<(), Error> {
    match ids.iter().find(|&&id| id >= limit) {
        None => Ok(()),
        Some(id) => Err(Error::Usage(format!(
            "APIC ID {id} is beyond what KVM has in the {mode} mode, IDs below {limit}; give smaller --apic-ids or --irqchip user"
        ))),
    }
}
