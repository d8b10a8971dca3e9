//! A machine without KVM under it: memory, controllers, devices and the vCPUs' local APICs, wired as [`crate::run`] wires
//! them, and nothing that moves by itself. Whoever holds it plays the guest, the clock, the devices' outside and the user:
//! tests and fuzzers do.

use std::path::Path;
use std::sync::Arc;

use bottom_half::CpuOwner;
use devices::{Pm, Serial, fw_cfg};
use irqchip::ioapic::IoApic;
use irqchip::lapic::{self, Config as ApicConfig, Effect, LocalApic, Now, PvEoi};
use irqchip::line::{Line, MsiTarget};
use irqchip::mailbox::Events;
use irqchip::pic::PicPair;
use kvm::Exit;
use parking_lot::Mutex;
use vm_memory::GuestMemoryMmap;

use crate::agent::{AgentMachine, Calibration, Reports};
use crate::boot::{self, Boot};
use crate::bottom_halves::{BottomHalves, Deadlines, Drain, Owners, Places, SerialWork};
use crate::clock::Clock;
use crate::doorbells::GuestDoorbells;
use crate::exec::Streams;
use crate::interrupts::Interrupts;
use crate::machine::IOAPIC_ID;
use crate::main_loop::Doorbell;
use crate::memory::GuestRam;
use crate::monitor::{Chips, Questions};
use crate::pci::Pci;
use crate::stop::Stopper;
use crate::trace::Watch;
use crate::vcpu::{Core, Shared};
use crate::wiring::{FrontPanel, Wiring};
use crate::{BootError, Error, test_devices};

/// The machine's memory in bytes.
pub const MEMORY: u64 = 16 << 20;

/// All of a machine but KVM.
pub struct BareMachine {
    cores: Vec<Core>,
    interrupts: Arc<Interrupts>,
    /// A holder of each wire, for a device that is not there.
    lines: Vec<Line>,
    bottom_halves: BottomHalves,
    /// Of the vCPUs' threads that are not there.
    owners: Vec<CpuOwner>,
    main_loop: CpuOwner,
    deadlines: Arc<Deadlines>,
    /// The serial port.
    pub serial: Arc<Mutex<Serial>>,
    /// The ACPI fixed hardware.
    pub pm: Arc<Mutex<Pm>>,
}

fn apic_config(index: u32) -> ApicConfig {
    ApicConfig { id: index, bsp: index == 0, x2apic: true, tsc_deadline: true, cmci: true, physical_bits: 40 }
}

impl BareMachine {
    /// A machine with every device there is, `--testdev`, `--exec`'s and the test agent included; the agent's reports go to
    /// the file at `reports`. The application processors wait for start-up.
    ///
    /// # Errors
    ///
    /// Host errors: no memory, no descriptor.
    pub fn new(cpus: u32, clock: Clock, reports: &Path) -> Result<Self, Error> {
        let apic_ids: Vec<u32> = (0..cpus).collect();
        let ram = GuestRam::new(MEMORY)?;
        let apics: Vec<_> = apic_ids.iter().map(|&id| LocalApic::new(apic_config(id))).collect();
        let addresses = apics.iter().map(LocalApic::address).collect();
        let interrupts = Arc::new(Interrupts::new(clock, IOAPIC_ID, addresses));

        let doorbell = Doorbell::new().map_err(|e| Error::host("no eventfd for the main loop", e))?;
        let stopper = Stopper::new(Arc::clone(&doorbell));
        let processors = Arc::clone(interrupts.processors());
        let (bottom_halves, owners) =
            BottomHalves::new(clock, Arc::clone(&processors), &doorbell, &stopper, Places::default())?;
        let doorbells = GuestDoorbells::new(None).map_err(|e| Error::host("no epoll descriptor", e))?;
        // Without a console: whoever holds the machine reads the port's output.
        let drain = Drain::new(&doorbell);
        let mut inline = Vec::new();
        let serial_work = SerialWork::new(&bottom_halves, &drain, &doorbell, &mut inline);
        let mut wiring = Wiring::new(&bottom_halves, &doorbells, Arc::clone(&interrupts) as _, &stopper);
        wiring.interrupt_controllers(&interrupts);
        let FrontPanel { serial, pm } = wiring.devices(&serial_work);
        test_devices::insert(&mut wiring, fw_cfg::Contents::default(), &ram);
        wiring.command_port(&Arc::new(Streams::default()));
        let reports = Reports::open(reports)?;
        reports.start()?;
        let machine = AgentMachine {
            reports,
            processors: Arc::clone(&processors),
            apic_ids,
            stopper: Arc::clone(&stopper),
            tsc: Calibration::begin(clock),
        };
        wiring.agent(ram.memory().clone(), machine);
        wiring.storm();
        let mut pci = Pci::new();
        wiring.watchdog(&mut pci, &Arc::default())?;
        pci.wire(&mut wiring);
        let lines = wiring.wires.iter().map(|wire| wire.holder()).collect();
        let Wiring { ports, mmio, wakers, .. } = wiring;

        let memory = ram.memory().clone();
        let questions = Questions::new(apics.len());
        let shared =
            Arc::new(Shared { clock, ports, mmio, memory, processors, stopper, rest: None, questions, wakers, inline });
        let core = |(index, apic)| {
            let (interrupts, shared) = (Arc::clone(&interrupts), Arc::clone(&shared));
            if index > 0 {
                interrupts.mailbox(index).wait_for_start_up();
            }
            Core { index, apic, pv_eoi: Some(PvEoi::new()), watch: Watch::default(), interrupts, shared }
        };
        let cores = apics.into_iter().enumerate().map(core).collect();
        let Owners { vcpus: owners, main_loop, deadlines } = owners;
        Ok(Self { cores, interrupts, lines, bottom_halves, owners, main_loop, deadlines, serial, pm })
    }

    /// The guest's memory.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.cores[0].shared.memory
    }

    /// The local APIC of vCPU `cpu`.
    pub fn apic(&self, cpu: usize) -> &LocalApic {
        &self.cores[cpu].apic
    }

    /// How many EOIs of vCPU `cpu` came without an exit of their own.
    pub fn spared_eois(&self, cpu: usize) -> u64 {
        self.cores[cpu].pv_eoi.as_ref().map_or(0, PvEoi::spared)
    }

    /// vCPU `cpu` has left the guest.
    pub fn exit(&mut self, cpu: usize, exit: Exit<'_>) {
        let core = &mut self.cores[cpu];
        core.disarm_pv_eoi();
        // What is left to do would be KVM's.
        let _ = core.top_half(&self.owners[cpu], exit);
    }

    /// What vCPU `cpu`'s thread does before it enters the guest, and the entry: takes what others have posted and what its
    /// timer has to give, and one interrupt if the guest `takes` one. Gives its vector, and what else there was.
    pub fn enter(&mut self, cpu: usize, takes: bool) -> (Option<u8>, Events) {
        let core = &mut self.cores[cpu];
        core.disarm_pv_eoi();
        core.mailbox().leave();
        let events = core.apic.collect(core.interrupts.mailbox(cpu));
        if events.init | core.apic.take_init() {
            core.apic.init();
            if let Some(pv_eoi) = &mut core.pv_eoi {
                pv_eoi.reset();
            }
            core.apply(Effect::Readdressed);
        }
        let ns = core.shared.clock.now();
        core.apic.expire(Now { ns, tsc: ns });
        let _ = core.apic.take_nmi();
        let vector = if takes { core.acknowledge() } else { None };
        let mailbox = core.interrupts.mailbox(cpu);
        mailbox.publish_priority(core.apic.ppr());
        if mailbox.enter_guest() {
            core.arm_pv_eoi();
        }
        (vector, events)
    }

    /// vCPU `cpu` goes to sleep, if nothing has come.
    pub fn halt(&mut self, cpu: usize) {
        let core = &mut self.cores[cpu];
        core.disarm_pv_eoi();
        // Asleep or not, the next entry is its end.
        let _ = core.mailbox().halt();
    }

    /// A device that is not there sets the wire to `gsi`, one of the machine's.
    pub fn set_line(&mut self, gsi: usize, level: bool) {
        let _held = self.interrupts.processors().hold_kicks();
        self.lines[gsi].set(level);
    }

    /// How many wires there are.
    pub fn lines(&self) -> usize {
        self.lines.len()
    }

    /// A device that is not there sends a message.
    pub fn message(&self, address: u64, data: u32) {
        self.interrupts.send(address, data);
    }

    /// The host's timer has gone off: calls what is due.
    pub fn alarm(&self) {
        let clock = self.cores[0].shared.clock;
        self.deadlines.take_due(clock.host(clock.now()));
        self.main_loop.top_half(|top| self.main_loop.expire(top));
        self.deadlines.settle();
    }

    /// Saves the controllers, makes new ones of what was saved, and puts the local APICs of them in the old ones' place.
    ///
    /// # Errors
    ///
    /// What does not come back as it was saved.
    pub fn snapshot(&mut self) -> Result<(), String> {
        for core in &mut self.cores {
            core.disarm_pv_eoi();
            let state: lapic::State = core.apic.save();
            let restored = LocalApic::restore(apic_config(core.index as u32), &state);
            core.apic = restored.map_err(|e| format!("local APIC {}: {e}: {state:?}", core.index))?;
            if core.apic.save() != state {
                return Err(format!("local APIC {}: {:?} after {state:?}", core.index, core.apic.save()));
            }
        }
        let (pic, ioapic) = (self.interrupts.pic(), self.interrupts.ioapic());
        let restored = PicPair::restore(&pic).map_err(|e| format!("PIC: {e}: {pic:?}"))?.save();
        if restored != pic {
            return Err(format!("PIC: {restored:?} after {pic:?}"));
        }
        let restored = IoApic::restore(IOAPIC_ID, &ioapic).map_err(|e| format!("I/O APIC: {e}: {ioapic:?}"))?.save();
        if restored != ioapic {
            return Err(format!("I/O APIC: {restored:?} after {ioapic:?}"));
        }
        Ok(())
    }
}

impl Drop for BareMachine {
    fn drop(&mut self) {
        self.bottom_halves.shut_down();
    }
}

/// Loads a kernel as `tophalf run` does, into memory of this many bytes that nobody runs; for tests of what files can do.
///
/// # Errors
///
/// What is wrong with the files.
pub fn load_kernel(memory: u64, kernel: &Path, initrd: Option<&Path>, cmdline: &str) -> Result<(), BootError> {
    let ram = GuestRam::new(memory)?;
    let boot = Boot { kernel, initrd, overlay: &[], modules: &[], cmdline: Some(cmdline), rsdp: 0xe_0000 };
    boot::load(&ram, &boot).map(drop)
}
