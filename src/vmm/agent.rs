//! The test agent in a machine: its ports, and where its reports go.
//!
//! The vCPU's thread that reports waits for its report to be written, with no lock of the machine held ([`Reports`]).

mod reports;

use std::sync::Arc;

use devices::agent::{Agent, AgentHost, Event, Injected, Moment, Tally};
use devices::{MachineControl, MachineEvent};
use sys::calls::Call;
use vm_memory::GuestMemoryMmap;
use x86::Nanos;

use crate::clock::Clock;
use crate::interrupts::Processors;
use crate::io_bus::Handler;
use crate::stop::Stopper;
pub use reports::Reports;

/// What the agent asks of the machine.
pub struct AgentMachine {
    /// Where its reports go.
    pub reports: Arc<Reports>,
    /// The vCPUs, for NMIs.
    pub processors: Arc<Processors>,
    /// The vCPUs' APIC IDs, in their order.
    pub apic_ids: Vec<u32>,
    /// Ends the machine when the guest gives up.
    pub stopper: Arc<Stopper>,
    /// TSC and clock.
    pub tsc: Calibration,
}

/// The host's TSC measured with the machine's clock, over all the time since this was made.
pub struct Calibration {
    clock: Clock,
    /// When this was made.
    first: (u64, Nanos),
}

impl Calibration {
    /// Begins to measure.
    pub fn begin(clock: Clock) -> Self {
        Self { clock, first: together(clock) }
    }

    /// The host's TSC and the clock now, and the TSC's ticks in a second.
    fn now(&self) -> (u64, Nanos, u64) {
        let (tsc, ns) = together(self.clock);
        let (ticks, passed) = (tsc.wrapping_sub(self.first.0), ns.saturating_sub(self.first.1));
        let hz = u128::from(ticks) * 1_000_000_000 / u128::from(passed.max(1));
        (tsc, ns, u64::try_from(hz).unwrap_or(u64::MAX))
    }
}

/// TSC and clock at one moment: of three tries the one in which the thread was held up least between the two.
fn together(clock: Clock) -> (u64, Nanos) {
    let read = || {
        let before = sys::clock::rdtsc();
        let ns = clock.now();
        let took = sys::clock::rdtsc().wrapping_sub(before);
        (took, before.wrapping_add(took / 2), ns)
    };
    let (_, tsc, ns) = [read(), read(), read()].into_iter().min().unwrap_or_default();
    (tsc, ns)
}

impl AgentHost for AgentMachine {
    fn event(&self, event: Event) {
        self.reports.write(&event, || self.stopper.is_stopped());
        if let Event::Panic { .. } = event {
            self.stopper.request(MachineEvent::Panicked);
        }
    }

    fn nmi(&self, apic_id: u32) -> bool {
        let index = self.apic_ids.iter().position(|&id| id == apic_id);
        if let Some(index) = index {
            self.processors.nmi(index);
        }
        index.is_some()
    }

    fn injected(&self, _apic_id: u32, _what: Injected) -> Option<u64> {
        None
    }

    fn halts(&self, _apic_id: u32) -> Option<(u64, u64)> {
        None
    }

    fn moment(&self) -> Moment {
        let (tsc, ns, hz) = self.tsc.now();
        let offset = self.processors.tsc_offset();
        Moment { tsc: tsc.wrapping_add(offset.unwrap_or(0)), is_guests: offset.is_some(), ns, hz }
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for index in 0..self.processors.count() {
            let (counts, (signals, futexes)) = (self.processors.counts(index), self.processors.kicks(index));
            tally.exits += counts.all_exits();
            tally.kicks += signals + futexes;
            tally.ioctls += [Call::Run, Call::Inject, Call::VcpuIoctl, Call::VmIoctl]
                .map(|c| counts.calls.get(c))
                .iter()
                .sum::<u64>();
            tally.system_calls += Call::ALL.map(|call| counts.calls.get(call)).iter().sum::<u64>();
        }
        tally
    }
}

/// The agent's ports on the bus.
pub struct AgentPorts(pub Arc<Agent<GuestMemoryMmap>>);

impl Handler for AgentPorts {
    fn read(&self, _now: Nanos, offset: u64, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn write(&self, now: Nanos, offset: u64, data: &[u8]) {
        self.0.write(now, offset, data);
    }
}
