//! Finds out what this host's KVM really delivers, with tiny real-mode guests in a machine that is thrown away.
//!
//! api.rst says that x2APIC cannot be emulated in user space, some kernels take the TSC-deadline write before the MSR
//! filter sees it, and some KVM modules have no TSC of the guest's own: no capability tells, so we try. A guest that
//! never comes out of KVM_RUN is ended by a timer and counts as "does not work". Every program pays for this at its start, so all guests
//! share one machine, each with a virtual CPU and a page of its own: making and unmaking machines is what takes time.

use std::thread;

use kvm_bindings::kvm_cpuid_entry2;
use sys::clock::monotonic_ns;
use sys::timer::ThreadTimer;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use x86::cpuid::{LEAF1_ECX_TSC_DEADLINE, LEAF1_ECX_X2APIC};
use x86::msr::{ApicBase, IA32_APIC_BASE, IA32_TSC_DEADLINE, KVM_PV_EOI, X2APIC_FIRST};
use x86::platform::LAPIC_BASE;

use crate::{Error, Exit, Kvm, MsrRange, MsrReason, Reset, Vcpu, Vm, cpuid};

pub mod modes;
#[cfg(test)]
mod tests;

/// What works on this host without an in-kernel interrupt controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct HostFeatures {
    /// x2APIC register accesses exit, both ways, and answers reach the guest.
    pub x2apic: bool,
    /// Accesses to IA32_TSC_DEADLINE exit under a filter.
    pub tsc_deadline: bool,
    /// Accesses to the paravirtual EOI's MSR exit under a filter.
    pub pv_eoi: bool,
    /// Writes of IA32_APIC_BASE exit under a filter.
    pub apic_base_filter: bool,
    /// An interrupt window is reported at the instruction where it opens, before a later HLT.
    pub exact_interrupt_window: bool,
    /// An interrupt's shadow (of STI, say) outlives an exit that comes in it. If not, an interrupt can come between STI and HLT.
    pub shadow_outlives_exit: bool,
    /// The run page can carry the general registers.
    pub sync_regs: bool,
    /// The guest's TSC follows the offset set for it; if not, it is the host's.
    pub tsc_offset: bool,
}

/// Longest that one guest may take, in ns; each needs a few microseconds to a few milliseconds.
const PATIENCE: u64 = 2_000_000_000;
/// The same for a hypercall, which stops some hosts' vCPUs until a signal comes: such a host pays this at every start.
const HYPERCALL_PATIENCE: u64 = 200_000_000;
/// Most exits of one guest, against one that comes out again and again.
const MOST_EXITS: usize = 32;

const PAGE: u64 = 0x1000;
/// The first guest's page; the next ones follow.
const CODE: u64 = PAGE;
const MEMORY: usize = 0x10000;

/// x2APIC register 0x0b (EOI), to be written, and 0x02 (ID), to be read.
const X2APIC_EOI: u32 = X2APIC_FIRST + 0x0b;
const X2APIC_ID: u32 = X2APIC_FIRST + 0x02;
/// A value to be recognised.
const COOKIE: u32 = 0x5a17_c0de;

impl HostFeatures {
    /// Tries everything, on a thread of its own. Takes some milliseconds.
    pub fn probe(kvm: &Kvm) -> Result<Self, Error> {
        // A thread of its own: the kick registration and the timer are not to meet the caller's.
        thread::scope(|scope| {
            let probing = scope.spawn(|| Self::probe_here(kvm));
            probing.join().unwrap_or(Err(Error::Unexpected("the probe has failed")))
        })
    }

    fn probe_here(kvm: &Kvm) -> Result<Self, Error> {
        let apic_base = MsrRange { read: false, ..both_ways(IA32_APIC_BASE) };
        let machine = &mut Machine::new(kvm, &[apic_base, both_ways(IA32_TSC_DEADLINE), both_ways(KVM_PV_EOI)])?;
        let apic_base_filter = apic_base_filter(machine)?;
        Ok(Self {
            // Without the filter we could not follow the guest into x2APIC mode.
            x2apic: apic_base_filter && x2apic(machine)?,
            tsc_deadline: filtered_msr(machine, IA32_TSC_DEADLINE)?,
            pv_eoi: filtered_msr(machine, KVM_PV_EOI)?,
            apic_base_filter,
            exact_interrupt_window: exact_interrupt_window(machine)?,
            shadow_outlives_exit: shadow_outlives_exit(machine)?,
            sync_regs: kvm.has_sync_regs(),
            tsc_offset: tsc_offset(machine)?,
        })
    }
}

/// What a guest did last; what is missing here ends the trial as failed.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Write(u32, u64, MsrReason),
    Read(u32, MsrReason),
    Window,
    Halt,
    /// Timed out, died, or did something else.
    Lost,
}

/// Whether a guest's hypercalls come back. On a KVM that interprets the guest's kernel they don't, and the features
/// that make use of them are not to be offered. For machines with KVM's own local APICs only; takes a fraction of a
/// millisecond where it works and a fifth of a second where it does not.
pub fn hypercalls_work(kvm: &Kvm) -> Result<bool, Error> {
    // A thread of its own, as above.
    thread::scope(|scope| {
        scope.spawn(|| hypercall(kvm)).join().unwrap_or(Err(Error::Unexpected("the probe has failed")))
    })
}

/// A machine for trials.
struct Machine {
    vm: Vm,
    memory: GuestMemoryMmap,
    cpuid: Vec<kvm_cpuid_entry2>,
    trials: u32,
}

impl Machine {
    fn new(kvm: &Kvm, filter: &[MsrRange]) -> Result<Self, Error> {
        let vm = kvm.create_vm()?;
        let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)])
            .map_err(|e| Error::system("memory for the probe")(std::io::Error::other(e)))?;
        vm.add_memory(&memory)?;
        vm.filter_msrs(filter)?;
        let mut cpuid = kvm.supported_cpuid()?;
        for entry in cpuid.iter_mut().filter(|e| e.function == 1) {
            entry.ecx |= LEAF1_ECX_X2APIC | LEAF1_ECX_TSC_DEADLINE;
        }
        Ok(Self { vm, memory, cpuid, trials: 0 })
    }

    /// A virtual CPU at the first instruction of `code`.
    fn start(&mut self, code: &[u8], patience: u64) -> Result<Trial, Error> {
        let number = self.trials;
        self.trials += 1;
        let page = CODE + PAGE * u64::from(number);
        self.memory
            .write_slice(code, GuestAddress(page))
            .map_err(|e| Error::system("memory for the probe")(std::io::Error::other(e)))?;
        let mut vcpu = self.vm.create_vcpu(number)?;
        vcpu.set_cpuid(&self.cpuid)?;
        vcpu.reset_state(Reset::PowerOn { bsp: true })?;
        vcpu.start_up((page / PAGE) as u8)?;

        let kick = vcpu.register_kick()?;
        let timer = ThreadTimer::new().map_err(Error::system("a timer for the probe"))?;
        let deadline = monotonic_ns() + patience;
        timer.arm(deadline).map_err(Error::system("a timer for the probe"))?;
        Ok(Trial { vcpu, deadline, timer, _kick: kick })
    }
}

struct Trial {
    vcpu: Vcpu,
    deadline: u64,
    timer: ThreadTimer,
    _kick: crate::KickGuard,
}

impl Trial {
    /// Runs to the next event, answering reads with `answer` and accepting writes.
    fn next(&mut self, answer: u64) -> Result<Event, Error> {
        for _ in 0..MOST_EXITS {
            if monotonic_ns() >= self.deadline {
                break;
            }
            self.vcpu.set_immediate_exit(false);
            // A kick before this line would have been lost to the line above.
            self.timer.arm(self.deadline).map_err(Error::system("a timer for the probe"))?;
            match self.vcpu.run() {
                Ok(Exit::MsrWrite { index, value, reason, reply }) => {
                    reply.accept();
                    return Ok(Event::Write(index, value, reason));
                }
                Ok(Exit::MsrRead { index, reason, reply }) => {
                    reply.value(answer);
                    return Ok(Event::Read(index, reason));
                }
                Ok(Exit::InterruptWindow) => return Ok(Event::Window),
                Ok(Exit::Halt) => return Ok(Event::Halt),
                Ok(Exit::Interrupted) => {}
                // The host cannot do what is tried: that is an answer, not a failure of the probe.
                Ok(_) | Err(Error::Run { .. }) => return Ok(Event::Lost),
                Err(e) => return Err(e),
            }
        }
        Ok(Event::Lost)
    }
}

fn both_ways(base: u32) -> MsrRange {
    MsrRange { base, count: 1, read: true, write: true }
}

fn apic_base_filter(machine: &mut Machine) -> Result<bool, Error> {
    let [b0, b1, b2, b3] =
        (LAPIC_BASE as u32 | (ApicBase::ENABLE | ApicBase::BSP | ApicBase::X2APIC).bits() as u32).to_le_bytes();
    #[rustfmt::skip]
    let code = [
        0x66, 0xb9, IA32_APIC_BASE as u8, 0, 0, 0, // mov ecx, IA32_APIC_BASE
        0x66, 0xb8, b0, b1, b2, b3,                // mov eax, x2APIC mode
        0x66, 0x31, 0xd2,                          // xor edx, edx
        0x0f, 0x30,                                // wrmsr
        0xf4,                                      // hlt
    ];
    let mut trial = machine.start(&code, PATIENCE)?;
    let value = u64::from(u32::from_le_bytes([b0, b1, b2, b3]));
    Ok(trial.next(0)? == Event::Write(IA32_APIC_BASE, value, MsrReason::Filtered) && trial.next(0)? == Event::Halt)
}

fn x2apic(machine: &mut Machine) -> Result<bool, Error> {
    let [w0, w1, ..] = X2APIC_EOI.to_le_bytes();
    let [r0, r1, ..] = X2APIC_ID.to_le_bytes();
    #[rustfmt::skip]
    let code = [
        0x66, 0xb9, w0, w1, 0, 0,       // mov ecx, EOI register
        0x66, 0xb8, 7, 0, 0, 0,         // mov eax, 7
        0x66, 0xba, 5, 0, 0, 0,         // mov edx, 5
        0x0f, 0x30,                     // wrmsr
        0x66, 0xb9, r0, r1, 0, 0,       // mov ecx, ID register
        0x0f, 0x32,                     // rdmsr
        0xf4,                           // hlt
    ];
    let mut trial = machine.start(&code, PATIENCE)?;
    let base = LAPIC_BASE | (ApicBase::ENABLE | ApicBase::BSP | ApicBase::X2APIC).bits();
    trial.vcpu.set_apic_base(base)?;
    // The whole 64 bits: the ICR has its destination in the upper half.
    Ok(trial.next(0)? == Event::Write(X2APIC_EOI, 5 << 32 | 7, MsrReason::Invalid)
        && trial.next(COOKIE.into())? == Event::Read(X2APIC_ID, MsrReason::Invalid)
        && trial.next(0)? == Event::Halt
        && trial.vcpu.regs()?.rax as u32 == COOKIE)
}

/// Writes and reads of `msr` exit under a filter, and answers reach the guest.
fn filtered_msr(machine: &mut Machine, msr: u32) -> Result<bool, Error> {
    let [m0, m1, m2, m3] = msr.to_le_bytes();
    #[rustfmt::skip]
    let code = [
        0x66, 0xb9, m0, m1, m2, m3,     // mov ecx, msr
        0x66, 0xb8, 7, 0, 0, 0,         // mov eax, 7
        0x66, 0x31, 0xd2,               // xor edx, edx
        0x0f, 0x30,                     // wrmsr
        0x0f, 0x32,                     // rdmsr
        0xf4,                           // hlt
    ];
    let mut trial = machine.start(&code, PATIENCE)?;
    Ok(trial.next(0)? == Event::Write(msr, 7, MsrReason::Filtered)
        && trial.next(COOKIE.into())? == Event::Read(msr, MsrReason::Filtered)
        && trial.next(0)? == Event::Halt
        && trial.vcpu.regs()?.rax as u32 == COOKIE)
}

fn exact_interrupt_window(machine: &mut Machine) -> Result<bool, Error> {
    #[rustfmt::skip]
    let code = [
        0xfb,       // sti
        0x90,       // nop (in the shadow of sti)
        0x90,       // nop
        0xfa,       // cli
        0xf4,       // hlt
    ];
    let mut trial = machine.start(&code, PATIENCE)?;
    trial.vcpu.set_request_interrupt_window(true);
    let seen = trial.next(0)? == Event::Window;
    // Behind the shadow, and before cli has had its effect.
    Ok(seen && trial.vcpu.regs()?.rip == 2)
}

/// AMD APM vol. 2, section "Virtual Interrupts": INTERRUPT_SHADOW is in the VMCB for VMRUN to load as well, which QEMU's emulation of
/// SVM does not do.
fn shadow_outlives_exit(machine: &mut Machine) -> Result<bool, Error> {
    #[rustfmt::skip]
    let code = [
        0x90,       // nop (in the shadow)
        0xfa,       // cli
        0xf4,       // hlt
    ];
    let mut trial = machine.start(&code, PATIENCE)?;
    trial.vcpu.set_sti_executed()?;
    trial.vcpu.set_request_interrupt_window(true);
    let window = trial.next(0)? == Event::Window;
    Ok(!window || trial.vcpu.regs()?.rip != 0)
}

fn tsc_offset(machine: &mut Machine) -> Result<bool, Error> {
    /// Some hundreds of years: no host's counter is there.
    const FAR: u64 = 1 << 62;
    #[rustfmt::skip]
    let code = [
        0x0f, 0x31, // rdtsc
        0xf4,       // hlt
    ];
    let mut trial = machine.start(&code, PATIENCE)?;
    // Refused is as good an answer as ignored.
    if trial.vcpu.set_guest_tsc_offset(FAR).is_err() || trial.next(0)? != Event::Halt {
        return Ok(false);
    }
    Ok(trial.vcpu.regs()?.rdx as u32 >= (FAR >> 32) as u32)
}

fn hypercall(kvm: &Kvm) -> Result<bool, Error> {
    /// KVM_HC_VAPIC_POLL_IRQ, which does nothing and gives 0.
    const POLL_IRQ: u8 = 1;
    // VMMCALL or VMCALL: as the processor's maker has it.
    let opcode = if cpuid::is_amd(&kvm.supported_cpuid()?) { 0xd9 } else { 0xc1 };
    #[rustfmt::skip]
    let code = [
        0x66, 0xb8, POLL_IRQ, 0, 0, 0,  // mov eax, POLL_IRQ
        0x0f, 0x01, opcode,             // vmmcall or vmcall
        0xf4,                           // hlt
    ];
    let mut machine = Machine::new(kvm, &[])?;
    let mut trial = machine.start(&code, HYPERCALL_PATIENCE)?;
    Ok(trial.next(0)? == Event::Halt && trial.vcpu.regs()?.rax == 0)
}
