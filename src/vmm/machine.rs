//! A machine: what it is made of, and how the parts are wired.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;
use std::{io, panic};

use bottom_half::{Cpu, CpuOwner, Process, Stuck, System, Timer, Work};
use devices::Serial;
use irqchip::line::Wire;
use parking_lot::Mutex;
use sys::signal::SignalFd;
use x86::platform;

use crate::acpi::{self, AcpiConfig};
use crate::agent::{AgentMachine, Calibration, Reports};
use crate::boot::{self, Boot, BootState};
use crate::bottom_halves::{BottomHalves, Deadlines, Drain, SerialWork};
use crate::clock::Clock;
use crate::console::{Console, Port};
use crate::doorbells::GuestDoorbells;
use crate::exec::Command;
use crate::host::Host;
use crate::main_loop::{ConsolePlace, Doorbell, MainLoop, Stats};
use crate::memory::GuestRam;
use crate::monitor::{Chips, Monitor, Questions};
use crate::mp_table::{self, MpConfig};
use crate::pci::Pci;
use crate::power::PowerButton;
use crate::rest::Rest;
use crate::stats::{Books, Moment, Output, Server};
use crate::stop::{StopReason, Stopper};
use crate::trace::event::Event;
use crate::trace::{MarkPort, Trace};
use crate::vcpu::{self, Processor, Shared};
use crate::virtio::{Backends, Transport, Virtio};
use crate::wiring::{FrontPanel, Wiring};
use crate::{Config, Error, OnHalt, mode, monitor, test_devices};

/// I/O APIC ID. It need not differ from the local APICs' since there is no APIC bus (since the Pentium 4).
pub const IOAPIC_ID: u8 = 0;

/// How long a reset waits for what has begun, such as a disk's I/O.
const RESET_WAIT: Duration = Duration::from_secs(60);

/// A machine that is ready to run.
pub struct Machine {
    shared: Arc<Shared>,
    vcpus: Vec<Box<dyn Processor>>,
    bottom_halves: BottomHalves,
    main_cpu: CpuOwner,
    deadlines: Arc<Deadlines>,
    doorbell: Arc<Doorbell>,
    guest_doorbells: Arc<GuestDoorbells>,
    consoles: Vec<ConsolePlace>,
    serial: Arc<Mutex<Serial>>,
    power_button: PowerButton,
    wires: Vec<Arc<Wire>>,
    chips: Option<Arc<dyn Chips>>,
    virtio: Virtio,
}

impl Machine {
    /// Makes the machine: memory with the kernel in it and what a command of `--exec` needs, chips, devices, vCPUs.
    /// `reports` are for the test agent, which is there if they are; `watchdog_timed_out` is what the watchdog keeps over
    /// resets. What happens is recorded in `trace`.
    pub fn new(
        config: &Config,
        command: Option<&Command>,
        host: &Host,
        backends: &Backends,
        reports: Option<&Arc<Reports>>,
        watchdog_timed_out: &Arc<AtomicBool>,
        trace: &Trace,
    ) -> Result<Self, Error> {
        let apic_ids = config.apic_ids();
        let ram = GuestRam::new(config.memory)?;
        host.check_memory(&ram)?;
        let boot_state = load(config, command, &ram, &apic_ids, backends, host.processor())?;

        let clock = Clock::start();
        let mode = mode::make(config, host, clock, &ram, trace)?;
        trace.record(|| Event::Machine { vcpus: config.cpus, mode: config.irqchip as u8 });

        let doorbell = Doorbell::new().map_err(|e| Error::host("no eventfd for the main loop", e))?;
        let stopper = Stopper::with_watchdog(Arc::clone(&doorbell), config.watchdog.unwrap_or_default());
        let places = config.bottom_halves.clone();
        let (bottom_halves, owners) = BottomHalves::new(clock, mode.processors(), &doorbell, &stopper, places)?;
        let guest_doorbells = GuestDoorbells::new(Some(mode.vm().clone()))
            .map_err(|e| Error::host("no epoll descriptor for the guest's doorbells", e))?;
        let drain = Drain::new(&doorbell);
        let mut inline = Vec::new();
        let serial_work = SerialWork::new(&bottom_halves, &drain, &doorbell, &mut inline);
        let mut wiring = Wiring::new(&bottom_halves, &guest_doorbells, mode.inputs(), &stopper);
        mode.wire(&mut wiring);
        let FrontPanel { serial, pm } = wiring.devices(&serial_work);
        if config.testdev {
            test_devices::insert(&mut wiring, test_devices::contents(config, &ram, &apic_ids), &ram);
        }
        let mut pci = Pci::new();
        let mut consoles = vec![ConsolePlace { drain, run_soon: Box::new(move || serial_work.run_soon()) }];
        let virtio = Virtio::new(config, backends, &doorbell, &ram, &mut wiring, &mut pci)?;
        consoles.extend(virtio.console_places());
        if config.watchdog.is_some() {
            wiring.watchdog(&mut pci, watchdog_timed_out)?;
        }
        pci.wire(&mut wiring);
        if trace.is_on() {
            wiring.ports.insert(platform::TRACE_MARK.into(), 1, Arc::new(MarkPort(trace.clone())));
        }
        if let Some(command) = command {
            wiring.command_port(&command.streams);
        }
        let power_button = PowerButton::new(clock, pm);
        let memory = ram.memory().clone();
        if let Some(reports) = reports {
            let (reports, processors) = (Arc::clone(reports), mode.processors());
            let (stopper, tsc) = (Arc::clone(&stopper), Calibration::begin(clock));
            let machine = AgentMachine { reports, processors, apic_ids: apic_ids.clone(), stopper, tsc };
            wiring.agent(memory.clone(), machine);
        }
        if config.testdev || reports.is_some() {
            wiring.storm();
        }
        let Wiring { ports, mmio, wires, wakers, .. } = wiring;

        let rest = (config.on_halt == OnHalt::Exit).then(|| Rest::new(apic_ids.len()));
        let questions = Questions::new(apic_ids.len());
        let processors = mode.processors();
        let shared =
            Arc::new(Shared { clock, ports, mmio, memory, processors, stopper, rest, questions, wakers, inline });
        let chips = mode.chips();
        let vcpus = mode.vcpus(&shared, owners.vcpus, &boot_state)?;
        let (main_cpu, deadlines) = (owners.main_loop, owners.deadlines);
        Ok(Self {
            shared,
            vcpus,
            bottom_halves,
            main_cpu,
            deadlines,
            doorbell,
            guest_doorbells,
            consoles,
            serial,
            power_button,
            wires,
            chips,
            virtio,
        })
    }

    /// The ports for the consoles: the serial port, and those of the virtio console.
    pub fn ports(&self) -> Vec<Port> {
        let serial = Port::new(Arc::clone(&self.serial), Arc::clone(&self.shared.processors));
        std::iter::once(serial).chain(self.virtio.console_ports()).collect()
    }

    /// Runs until it stops; one thread a vCPU, the main loop on the calling one. Takes a console for each of its ports, and gives
    /// them back without. `reboots`: after a reset there is a next machine.
    pub fn run(
        self,
        config: &Config,
        consoles: Vec<Console>,
        signals: &mut SignalFd,
        reboots: bool,
        watchers: Watchers<'_>,
    ) -> Result<(Vec<Console>, StopReason), Error> {
        let Self { shared, vcpus, bottom_halves, main_cpu, power_button, wires, chips, virtio, .. } = self;
        let stopper = Arc::clone(&shared.stopper);
        let count = vcpus.len();
        let look_up = || (0..count).for_each(|index| shared.processors.attention(index));
        let attention = |index: usize| shared.processors.attention(index);
        let nmi = |index: usize| shared.processors.nmi(index);
        let books = Books {
            kernel: config.kernel.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            machine: watchers.number,
            irqchip: config.irqchip,
            clock: shared.clock,
            processors: Arc::clone(&shared.processors),
            chips: chips.clone(),
            wires: wires.clone(),
            bottom_halves: bottom_halves.system().clone(),
        };
        let write = watchers.output.map(|output| {
            let (books, output) = (books.clone(), Arc::clone(output));
            let write = move |process: &Process<'_>| process.block(|| output.write(&books.snapshot(Moment::Running)));
            bottom_halves.system().shared_queue().work(write)
        });
        let write = write.map(Arc::new);
        let interval = config.stats_interval.zip(write.clone());
        // Goes off until it is dropped.
        let _interval =
            interval.map(|(period, write)| every(period, bottom_halves.main_cpu(), bottom_halves.system(), write));
        let stats = Stats { books: books.clone(), write, server: watchers.server };
        let monitor = Monitor {
            books: books.clone(),
            stopper: Arc::clone(&stopper),
            power_button: power_button.clone(),
            wires,
            chips: chips.clone(),
            questions: &shared.questions,
            attention: &attention,
            nmi: &nmi,
            bottom_halves: bottom_halves.system().clone(),
            patience: monitor::PATIENCE,
        };
        let main_loop = MainLoop {
            processors: Arc::clone(&shared.processors),
            owner: main_cpu,
            deadlines: self.deadlines,
            doorbell: self.doorbell,
            guest_doorbells: Some(self.guest_doorbells),
            consoles: self.consoles,
            inline: shared.inline.clone(),
            signals,
            report: Box::new(|| {
                look_up();
                if !stopper.is_stopped() || stopper.has_failed() {
                    chips.iter().for_each(|chips| monitor::log_chips(&**chips));
                }
            }),
            stats,
            power_button,
            commands: Box::new(move |line| monitor.execute(line)),
            reboots,
            stopper: Arc::clone(&stopper),
        };
        let consoles = thread::scope(|scope| {
            let mut threads = Vec::with_capacity(vcpus.len());
            if let Err(e) = start_vcpus(scope, vcpus, &stopper, &mut threads) {
                stopper.stop(StopReason::Host(Error::host("no thread for a vCPU", e)));
            }
            // However the main loop ends, the vCPUs end too, or this would wait for them for ever.
            let vcpus_end = OnDrop(|| {
                stopper.stop(if thread::panicking() { StopReason::Panic } else { StopReason::Quit });
                look_up();
                watchers.reports.iter().for_each(|reports| reports.look_again());
            });
            let consoles = main_loop.run(consoles);
            drop(vcpus_end);
            join_all(threads);
            consoles
        });
        // What has not begun is forgotten with the devices.
        drop(virtio);
        if reboots && stopper.is_reset() {
            // Nothing of this machine may write to a disk when the next one starts.
            bottom_halves.stop_within(RESET_WAIT).map_err(|stuck| not_reset(&stuck))?;
        } else {
            bottom_halves.shut_down();
        }
        if let Some(output) = watchers.output {
            output.write(&books.snapshot(Moment::End));
        }
        let consoles = consoles.map_err(|e| Error::host("the main loop failed", e))?;
        Ok((consoles, stopper.take_reason()))
    }
}

/// Who sees a machine's figures.
pub struct Watchers<'a> {
    /// Which machine of this process it is, from 1.
    pub number: u32,
    /// Where the test agent's reports go.
    pub reports: Option<&'a Arc<Reports>>,
    /// The file of `--stats`.
    pub output: Option<&'a Arc<Output>>,
    /// The socket for `tophalf top`.
    pub server: Option<&'a mut Server>,
}

/// A timer of `cpu` that queues `work` every so often.
fn every(period: Duration, cpu: &Arc<Cpu>, system: &System, work: Arc<Work>) -> Timer {
    let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
    let clock = Arc::clone(system.clock());
    let next = move || clock.now().saturating_add(period);
    let first = next();
    let timer = Timer::timeout(cpu, move |_softirq| {
        // One that is still queued does for both.
        let _ = work.queue();
        Some(next())
    });
    timer.start(first);
    timer
}

/// Something of the machine that has reset does not end.
fn not_reset(stuck: &Stuck) -> Error {
    let seconds = RESET_WAIT.as_secs();
    Error::Host(format!(
        "the guest can't be reset: after {seconds} s bottom halves {stuck}, and may yet write to its disks; \
         see to the host's storage and start it anew"
    ))
}

/// Starts the application processors, waits until each can be kicked, and only then the bootstrap processor: the first
/// INIT must find somebody.
fn start_vcpus<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    vcpus: Vec<Box<dyn Processor>>,
    stopper: &Arc<Stopper>,
    threads: &mut Vec<ScopedJoinHandle<'scope, ()>>,
) -> io::Result<()> {
    for vcpu in vcpus.into_iter().rev() {
        let (ready, is_ready) = mpsc::channel();
        let panic = StopOnPanic(Arc::clone(stopper));
        threads.push(thread::Builder::new().spawn_scoped(scope, move || {
            let _panic = panic;
            vcpu::run(vcpu, move || {
                // The receiver waits for just this.
                let _ = ready.send(());
            });
        })?);
        // An error is a thread that panicked before it was ready: the guard has stopped the machine.
        let _ = is_ready.recv();
    }
    Ok(())
}

/// Waits for the threads' last instructions. The scope's end waits for what they were given to do only: what they keep for
/// themselves (a trace's ring, a stack) would be there for a while yet, beside the next machine's. A panic of one goes on here.
fn join_all(threads: Vec<ScopedJoinHandle<'_, ()>>) {
    let ends: Vec<_> = threads.into_iter().map(ScopedJoinHandle::join).collect();
    if let Some(panic) = ends.into_iter().find_map(Result::err) {
        panic::resume_unwind(panic);
    }
}

/// Does something when it goes out of scope.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
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

/// Kernel, initrd, boot structures, ACPI and MP tables into memory.
fn load(
    config: &Config,
    command: Option<&Command>,
    ram: &GuestRam,
    apic_ids: &[u32],
    backends: &Backends,
    processor: (u32, u32),
) -> Result<BootState, Error> {
    let windows = if config.virtio == Transport::Mmio { backends.count() } else { 0 };
    let acpi = AcpiConfig { apic_ids: apic_ids.to_vec(), ioapic_id: IOAPIC_ID, virtio_windows: windows };
    let boot = Boot {
        kernel: &config.kernel,
        initrd: config.initrd.as_deref(),
        modules: &config.modules,
        overlay: command.map_or(&[], |command| &command.archive),
        cmdline: command.map_or(config.cmdline.as_deref(), |command| Some(&command.cmdline)),
        rsdp: boot::layout::ACPI.start,
    };
    let state = boot::load(ram, &boot)?;
    acpi::write_tables(ram, &acpi)?;
    mp_table::write(ram, &MpConfig { apic_ids, ioapic_id: IOAPIC_ID, processor })?;
    Ok(state)
}

#[cfg(test)]
mod tests;
