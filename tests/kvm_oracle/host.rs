//! A machine whose interrupt controllers are KVM's, and what its guest makes of one operation.

use std::fs;
use std::sync::OnceLock;

use kvm::bindings::{kvm_regs, kvm_vcpu_events};
use kvm::{Exit, Kvm, LapicPage, MpState, Vcpu, Vm};
use x86::cpuid::{LEAF1_ECX_TSC_DEADLINE, LEAF1_ECX_X2APIC};

use crate::guest::{self, Guest, Stub};

/// KVM's routes: the 8259A pair's inputs are GSIs 0 to 15, the I/O APIC's pins those from here on.
pub const FIRST_PIN: u32 = 16;
/// Interrupt flag, and the bit of RFLAGS that is always set.
const RFLAGS_IF: u64 = 0x202;
const RFLAGS: u64 = 2;
/// Runs without a word of the guest before something is wrong with it.
const MOST_RUNS: u32 = 10_000;
/// The events' NMI fields are to be set (KVM_VCPUEVENT_VALID_NMI_PENDING).
const NMI_VALID: u32 = 1;

/// What KVM and which kernel, as far as its controllers differ.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    /// AMD's hardware virtualization.
    pub svm: bool,
    /// None: KVM interprets the guest's kernel.
    pub software: bool,
    /// Its processor is QEMU's.
    pub emulated: bool,
    /// Linux, major and minor.
    pub linux: (u32, u32),
}

impl Host {
    /// This one.
    pub fn get() -> &'static Self {
        static HOST: OnceLock<Host> = OnceLock::new();
        HOST.get_or_init(|| {
            let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
            let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
            let linux = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            let has = |module: &str| fs::exists(format!("/sys/module/{module}")).unwrap_or(false);
            let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            let emulated = processor.contains("QEMU TCG CPU");
            Self { emulated, svm: has("kvm_amd"), software: has("kvm_pvm"), linux }
        })
    }
}

/// What came of a stub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, with this result.
    Done(u64),
    /// An interrupt or exception came instead.
    Vector(u8),
}

/// The registers that a stub starts with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    /// Interrupts are on.
    pub interruptible: bool,
}

/// The machine.
pub struct Machine {
    pub vm: Vm,
    pub cpus: Vec<Vcpu>,
}

impl Machine {
    /// One with so many vCPUs, all running.
    pub fn new(cpus: u32) -> Result<Self, kvm::Error> {
        let kvm = Kvm::open()?;
        let vm = kvm.create_vm()?;
        vm.create_irqchip()?;
        vm.set_routes(routes())?;
        vm.add_memory(&Guest::new().memory)?;
        let mut machine = Self { vm, cpus: Vec::new() };
        for index in 0..cpus {
            let mut vcpu = machine.vm.create_vcpu(index)?;
            let mut cpuid = kvm.supported_cpuid()?;
            for entry in cpuid.iter_mut().filter(|entry| entry.function == 1) {
                entry.ecx |= LEAF1_ECX_X2APIC | LEAF1_ECX_TSC_DEADLINE;
                entry.ebx = entry.ebx & 0xff_ffff | index << 24;
            }
            vcpu.set_cpuid(&cpuid)?;
            vcpu.set_runnable()?;
            machine.cpus.push(vcpu);
            machine.enter_long_mode(index as usize)?;
        }
        Ok(machine)
    }

    /// Puts a vCPU where it can run stubs.
    pub fn enter_long_mode(&mut self, cpu: usize) -> Result<(), kvm::Error> {
        let mut sregs = self.cpus[cpu].sregs()?;
        guest::enter_long_mode(&mut sregs);
        self.cpus[cpu].set_sregs(&sregs)
    }

    /// Runs a stub, until it is done or something comes.
    pub fn run(&mut self, cpu: usize, stub: Stub, given: Given) -> Result<Outcome, kvm::Error> {
        let vcpu = &mut self.cpus[cpu];
        vcpu.complete_pending()?;
        vcpu.set_regs(&kvm_regs {
            rip: Guest::address(stub),
            rsp: guest::stack(cpu),
            rflags: if given.interruptible { RFLAGS_IF } else { RFLAGS },
            rax: given.rax,
            rbx: given.rbx,
            rcx: given.rcx,
            rdx: given.rdx,
            ..Default::default()
        })?;
        let mut upper = 0;
        for _ in 0..MOST_RUNS {
            match vcpu.run()? {
                Exit::PioOut { port, data, .. } => {
                    let value = data.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
                    match port {
                        guest::DONE => return Ok(Outcome::Done(upper << 32 | value)),
                        guest::UPPER_HALF => upper = value,
                        guest::VECTOR => return Ok(Outcome::Vector(value as u8)),
                        _ => return Err(kvm::Error::Unexpected("an access to a port that is not the guest's")),
                    }
                }
                Exit::Interrupted => {}
                // What KVM refuses faults, as it is without us.
                Exit::MsrRead { reply, .. } => reply.fault(),
                Exit::MsrWrite { reply, .. } => reply.fault(),
                other => {
                    println!("{stub:?} {given:x?} on vCPU {cpu}: {other:x?}");
                    return Err(kvm::Error::Unexpected("an exit that the guest has no reason for"));
                }
            }
        }
        Err(kvm::Error::Unexpected("a guest that says nothing"))
    }

    /// A vCPU's local APIC.
    pub fn lapic(&self, cpu: usize) -> Result<LapicPage, kvm::Error> {
        self.cpus[cpu].lapic()
    }

    /// Whether a vCPU waits for a start-up message. It takes what has come before.
    pub fn waits(&self, cpu: usize) -> Result<bool, kvm::Error> {
        Ok(self.cpus[cpu].mp_state()? != MpState::Runnable)
    }

    /// The guest has taken an NMI, and is to take others.
    pub fn end_nmi(&mut self, cpu: usize) -> Result<(), kvm::Error> {
        // It is at a port access, which the events are not to be in the way of.
        self.cpus[cpu].complete_pending()?;
        self.cpus[cpu].set_events(&kvm_vcpu_events { flags: NMI_VALID, ..Default::default() })
    }

    /// How many bits its physical addresses have.
    pub fn physical_bits(&self) -> Result<u32, kvm::Error> {
        let leaves = self.cpus[0].cpuid()?;
        Ok(leaves.iter().find(|leaf| leaf.function == 0x8000_0008).map_or(36, |leaf| leaf.eax & 0xff))
    }

    /// Whether an NMI has come for a vCPU; it never gets there.
    pub fn take_nmi(&mut self, cpu: usize) -> Result<bool, kvm::Error> {
        let events = self.cpus[cpu].events()?;
        let came = events.nmi.pending != 0;
        if came {
            self.cpus[cpu].set_events(&kvm_vcpu_events { flags: NMI_VALID, ..Default::default() })?;
        }
        Ok(came)
    }
}

fn routes() -> impl Iterator<Item = (u32, kvm::Route)> {
    use kvm::Route::{IoApic, PicMaster, PicSlave};
    let pic = (0..16).map(|input| (input.into(), if input < 8 { PicMaster(input) } else { PicSlave(input - 8) }));
    pic.chain((0..24).map(|pin| (FIRST_PIN + u32::from(pin), IoApic(pin))))
}
