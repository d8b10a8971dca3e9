//! A machine: what it is made of, and how the parts are wired.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;

use devices::Serial;
use irqchip::lapic::LocalApic;
use kvm::{MsrRange, Reset};
use parking_lot::Mutex;
use sys::signal::SignalFd;
use x86::msr;

use crate::acpi::{self, AcpiConfig};
use crate::boot::{self, BootState, LinuxBoot};
use crate::clock::Clock;
use crate::console::Console;
use crate::host::Host;
use crate::interrupts::Interrupts;
use crate::main_loop::{Alarms, Doorbell, Expire, MainLoop};
use crate::memory::GuestRam;
use crate::stop::{StopReason, Stopper};
use crate::vcpu::{Core, Shared, VcpuThread};
use crate::wiring::Wiring;
use crate::{Config, Error, boot_registers};

/// I/O APIC ID. It need not differ from the local APICs' since there is no APIC bus (since the Pentium 4).
const IOAPIC_ID: u8 = 0;
/// The MSRs whose accesses are ours.
const FILTERED_MSRS: [MsrRange; 4] = [
    MsrRange { base: msr::IA32_APIC_BASE, count: 1, read: true, write: true },
    MsrRange { base: msr::IA32_TSC_DEADLINE, count: 1, read: true, write: true },
    MsrRange { base: msr::IA32_TSC, count: 1, read: false, write: true },
    MsrRange { base: msr::IA32_TSC_ADJUST, count: 1, read: false, write: true },
];
/// IA32_MTRR_DEF_TYPE as firmware leaves it: MTRRs enabled, write-back by default (a guest without it maps its memory
/// uncached).
const MTRR_ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;
/// IA32_MISC_ENABLE: fast strings.
const FAST_STRINGS: u64 = 1;

/// A machine that is ready to run.
pub struct Machine {
    shared: Arc<Shared>,
    vcpus: Vec<VcpuThread>,
    alarms: Arc<Alarms>,
    expire: Vec<Expire>,
    doorbell: Arc<Doorbell>,
    serial: Arc<Mutex<Serial>>,
}

impl Machine {
    /// Makes the machine: memory with the kernel in it, chips, devices, vCPUs.
    pub fn new(config: &Config, host: &Host) -> Result<Self, Error> {
        let apic_ids: Vec<u32> = (0..config.cpus).collect();
        let ram = GuestRam::new(config.memory)?;
        host.check_memory(&ram)?;
        let boot_state = load(config, &ram, &apic_ids)?;

        let clock = Clock::start();
        let apics: Vec<LocalApic> = apic_ids.iter().map(|&id| LocalApic::new(host.apic_config(id))).collect();
        let addresses = apics.iter().map(LocalApic::address).collect();
        let interrupts = Arc::new(Interrupts::new(clock, IOAPIC_ID, addresses));

        let doorbell = Doorbell::new().map_err(|e| Error::host("no eventfd for the main loop", e))?;
        let stopper = Stopper::new(Arc::clone(&doorbell));
        let mut wiring = Wiring::new(clock, &interrupts, &stopper)?;
        let serial = wiring.devices(&doorbell);
        let Wiring { ports, mmio, alarms, expire, .. } = wiring;

        let memory = ram.memory().clone();
        let shared = Arc::new(Shared { clock, ports, mmio, memory, interrupts, stopper });
        let vcpus = make_vcpus(&ram, apics, host, &shared, &boot_state)?;
        Ok(Self { shared, vcpus, alarms, expire, doorbell, serial })
    }

    /// The serial port, for the console.
    pub fn serial(&self) -> Arc<Mutex<Serial>> {
        Arc::clone(&self.serial)
    }

    /// Runs until it stops; one thread a vCPU, the main loop on the calling one. Gives the console back.
    pub fn run(self, console: Console, signals: &mut SignalFd) -> Result<(Console, StopReason), Error> {
        let Self { shared, vcpus, alarms, expire, doorbell, .. } = self;
        let stopper = Arc::clone(&shared.stopper);
        let count = vcpus.len();
        let look_up = || (0..count).for_each(|index| shared.interrupts.attention(index));
        let main_loop = MainLoop {
            clock: shared.clock,
            alarms,
            expire,
            doorbell,
            console,
            signals,
            report: Box::new(look_up),
            stopper: Arc::clone(&stopper),
        };
        let console = thread::scope(|scope| {
            if let Err(e) = start_vcpus(scope, vcpus, &stopper) {
                stopper.stop(StopReason::Host(Error::host("no thread for a vCPU", e)));
            }
            let console = main_loop.run();
            // However the main loop ended, the vCPUs end too.
            stopper.stop(StopReason::Quit);
            look_up();
            console
        });
        let console = console.map_err(|e| Error::host("the main loop failed", e))?;
        Ok((console, stopper.take_reason()))
    }
}

/// Starts the application processors, waits until each can be kicked, and only then the bootstrap processor: the first
/// INIT must find somebody.
fn start_vcpus<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    vcpus: Vec<VcpuThread>,
    stopper: &Arc<Stopper>,
) -> io::Result<()> {
    for vcpu in vcpus.into_iter().rev() {
        let (ready, is_ready) = mpsc::channel();
        let panic = StopOnPanic(Arc::clone(stopper));
        thread::Builder::new().spawn_scoped(scope, move || {
            let _panic = panic;
            vcpu.run(move || {
                // The receiver waits for just this.
                let _ = ready.send(());
            });
        })?;
        // An error is a thread that panicked before it was ready: the guard has stopped the machine.
        let _ = is_ready.recv();
    }
    Ok(())
}

/// A vCPU that panics must not leave the others, and the user, waiting.
struct StopOnPanic(Arc<Stopper>);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop(StopReason::Panic);
        }
    }
}

/// Kernel, initrd, boot structures and ACPI tables into memory.
fn load(config: &Config, ram: &GuestRam, apic_ids: &[u32]) -> Result<BootState, Error> {
    let acpi = AcpiConfig { apic_ids: apic_ids.to_vec(), ioapic_id: IOAPIC_ID };
    let linux = LinuxBoot {
        kernel: &config.kernel,
        initrd: config.initrd.as_deref(),
        cmdline: &config.cmdline,
        rsdp: boot::layout::ACPI.start,
    };
    let state = boot::load_linux(ram, &linux)?;
    acpi::write_tables(ram, &acpi)?;
    Ok(state)
}

/// KVM's vCPUs in the state that firmware leaves: after reset, MTRRs on, the bootstrap processor at the kernel's entry
/// with its local APIC in virtual-wire mode.
fn make_vcpus(
    ram: &GuestRam,
    apics: Vec<LocalApic>,
    host: &Host,
    shared: &Arc<Shared>,
    boot: &BootState,
) -> Result<Vec<VcpuThread>, Error> {
    let vm = host.kvm.create_vm()?;
    vm.add_memory(ram.memory())?;
    vm.filter_msrs(&FILTERED_MSRS)?;
    let cpus = apics.len() as u32;
    let mut vcpus = Vec::new();
    for (index, mut apic) in apics.into_iter().enumerate() {
        let bsp = index == 0;
        let mut cpu = vm.create_vcpu(index as u32)?;
        cpu.set_cpuid(&host.cpuid(index as u32, cpus))?;
        cpu.reset_state(Reset::PowerOn { bsp })?;
        cpu.set_msr(msr::IA32_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK)?;
        // Not every host has this one; it is a hint to the guest.
        let _ = cpu.set_msr(msr::IA32_MISC_ENABLE, FAST_STRINGS);
        if bsp {
            boot_registers::enter(&mut cpu, boot)?;
            let effect = apic.enter_virtual_wire_mode();
            let mut core = Core { index, apic, shared: Arc::clone(shared) };
            core.apply(effect);
            vcpus.push(VcpuThread::new(core, cpu, &host.features)?);
        } else {
            let core = Core { index, apic, shared: Arc::clone(shared) };
            vcpus.push(VcpuThread::new(core, cpu, &host.features)?);
        }
    }
    Ok(vcpus)
}
