//! A vCPU's thread: look at the mailbox, deliver, arm the timer, enter the guest, handle the exit; or sleep.
//!
//! The thread owns the local APIC and KVM's vCPU; nobody else touches either. What the order of the steps guarantees:
//!
//! - `immediate_exit` is cleared at the top of the loop, before the last look at mailbox and deadline. Whatever comes
//!   later sets it again, and KVM_RUN returns at once.
//! - The timer's signal is a kick like any other. A deadline that passed before the clearing is found by the look.
//! - Interrupts are looked for at *every* exit: some hosts report the interrupt window late, or never.

//!
//! That is the vCPU whose local APIC is ours ([`UserApicVcpu`]); the one with KVM's is in `kernel_apic`.

mod counts;
mod deliver;
mod dump;
mod exits;
mod halt_poll;
mod kernel_apic;
mod nmis;
mod pv_eoi;
mod split;
#[cfg(test)]
mod tests;
mod thread;
mod tsc;

use std::sync::Arc;

use bottom_half::CpuOwner;
use fault::Fault;
use irqchip::lapic::Deadline;
use irqchip::mailbox::{Events, Mailbox};
use kvm::Reset;
use kvm::probe::HostFeatures;
use sys::timer::ThreadTimer;
use x86::apic::DeliveryMode;

pub use counts::{Counts, ExitKind, VcpuLedger};
use exits::After;
pub use exits::{Core, Shared};
use halt_poll::HaltPoll;
pub use kernel_apic::KernelApicVcpu;
use nmis::Nmis;
pub use split::OwnChips;
pub use thread::{Processor, run};
use tsc::GuestTsc;

use crate::Error;
use crate::stop::StopReason;
use crate::trace::event::{Cause, Eoi, Event};

/// How often to look again, in nanoseconds, while a request waits for something that this host may not report (the
/// interrupt window, a lower CR8).
const LOOK_AGAIN: u64 = 1_000_000;

/// What the processor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    Running,
    /// After HLT.
    Halted,
    /// After INIT: nothing but a start-up message gets it going.
    WaitForStartUp,
}

/// A vCPU, to be run by one thread.
pub struct UserApicVcpu {
    core: Core,
    cpu: kvm::Vcpu,
    /// Its half of its CPU of the bottom halves.
    owner: CpuOwner,
    activity: Activity,
    nmis: Nmis,
    /// KVM was given an NMI, and may still have it.
    nmi_given: bool,
    tsc: GuestTsc,
    /// Look again soon: a request waits, and the host may not tell when its time has come. (The same goes for a TSC
    /// deadline on a host whose TSC is not steady.)
    look_again: bool,
    /// The host tells exactly when the interrupt window opens and when CR8 falls.
    exact_windows: bool,
    /// The host may open the window between STI and HLT (see [`HostFeatures::shadow_outlives_exit`]).
    early_windows: bool,
    steps: deliver::Steps,
    armed: Armed,
    halt_poll: HaltPoll,
    /// The local APIC's activity when its ledger was last published.
    published: u64,
}

/// What the thread's timer is set to.
#[derive(Debug, Default)]
struct Armed {
    /// The host time, while it is set.
    at: Option<u64>,
    /// What for.
    deadline: Option<Deadline>,
}

impl Armed {
    /// It is set for `deadline`, and has not gone off at host time `host_now`.
    fn serves(&self, deadline: Option<Deadline>, host_now: u64) -> bool {
        self.at.is_some_and(|at| at > host_now) && self.deadline == deadline
    }

    /// A TSC deadline now comes at another time than the one that it is set to.
    fn tsc_moved(&mut self) {
        self.deadline = self.deadline.take().filter(|deadline| !matches!(deadline, Deadline::Tsc(_)));
    }
}

impl UserApicVcpu {
    /// The bootstrap processor runs; the others wait for a start-up message.
    pub fn new(core: Core, cpu: kvm::Vcpu, owner: CpuOwner, host: &HostFeatures) -> Result<Self, Error> {
        let activity = if core.index == 0 { Activity::Running } else { Activity::WaitForStartUp };
        if activity == Activity::WaitForStartUp {
            core.mailbox().wait_for_start_up();
        }
        let tsc = GuestTsc::of(&cpu, host.tsc_offset)?;
        core.shared.processors.set_tsc_offset(core.index, tsc.lasting_offset());
        let exact_windows = host.exact_interrupt_window;
        let armed = Armed::default();
        let vcpus = core.shared.processors.count();
        let halt_poll = HaltPoll::new(vcpus, sys::thread::online_cpus());
        Ok(Self {
            core,
            cpu,
            owner,
            activity,
            nmis: Nmis::default(),
            nmi_given: false,
            tsc,
            look_again: false,
            exact_windows,
            early_windows: !host.shadow_outlives_exit,
            steps: deliver::Steps::default(),
            armed,
            halt_poll,
            published: 0,
        })
    }

    /// Takes what others have posted.
    fn collect(&mut self) -> Result<(), StopReason> {
        let Core { index, apic, interrupts, .. } = &mut self.core;
        let traced = interrupts.trace().is_on() && interrupts.mailbox(*index).is_pending();
        let events = apic.collect(interrupts.mailbox(*index));
        if traced {
            self.trace_collected(&events);
        }
        let apic = &mut self.core.apic;
        if (events.init | apic.take_init()) && !fault::is(Fault::InitIgnored) {
            // A machine that ends with this has taken them all the same.
            self.init().inspect_err(|_| self.nmis.post(events.nmis, false))?;
        }
        if let Some(vector) = events.start_up
            && self.activity == Activity::WaitForStartUp
        {
            self.cpu.start_up(vector)?;
            self.activity = Activity::Running;
        }
        // One that INIT found, or that came while start-up is waited for, would meet a processor without a handler.
        self.nmis.post(events.nmis, self.activity != Activity::WaitForStartUp);
        if events.attention {
            match self.core.shared.questions.take(self.core.index) {
                Some(asker) => asker.answer(self.answer()),
                None => log::info!("{}", self.summary()),
            }
        }
        if events.deferred {
            self.core.shared.run_deferred(&self.owner);
        }
        Ok(())
    }

    /// Says in the trace what was in the mailbox.
    fn trace_collected(&mut self, events: &Events) {
        let (trace, vcpu) = (self.core.interrupts.trace(), self.core.index as u32);
        if events.init {
            trace.record(|| Event::Taken { vcpu, mode: DeliveryMode::Init });
        }
        if events.start_up.is_some() {
            trace.record(|| Event::Taken { vcpu, mode: DeliveryMode::StartUp });
        }
        if events.smi {
            trace.record(|| Event::Taken { vcpu, mode: DeliveryMode::Smi });
        }
        self.core.look(Cause::Mailbox, Eoi::Register);
        self.core.interrupts.trace().record(|| Event::Collected { vcpu });
    }

    /// INIT (Intel SDM vol. 3A, section "Processor State After Reset"). An application processor waits for start-up;
    /// the bootstrap processor goes to its reset vector, where firmware would restart the machine, and so do we.
    fn init(&mut self) -> Result<(), StopReason> {
        self.core.apic.init();
        self.core.look(Cause::Other, Eoi::Cleared);
        if let Some(pv_eoi) = &mut self.core.pv_eoi {
            pv_eoi.reset();
        }
        self.core.apply(irqchip::lapic::Effect::Readdressed);
        self.nmis.reset();
        if self.core.index == 0 {
            return Err(StopReason::Reset);
        }
        self.cpu.reset_state(Reset::Init)?;
        self.activity = Activity::WaitForStartUp;
        Ok(())
    }

    fn ledger(&self) -> VcpuLedger {
        VcpuLedger {
            apic: *self.core.apic.ledger(),
            pending: self.core.apic.pending(),
            nmis: self.nmis.account,
            posted_nmis: self.nmis.posted,
            pending_nmis: self.nmis.waiting(),
        }
    }

    /// Lets others see the ledger, if anything has happened in it.
    fn publish_ledger(&mut self) {
        let activity = self.core.apic.ledger().activity().wrapping_add(self.nmis.account.asserted);
        if activity != self.published && self.core.counts().publish(&self.ledger()) {
            self.published = activity;
        }
    }

    fn expire_timer(&mut self) -> Result<(), StopReason> {
        if self.core.apic.next_deadline().is_some() {
            self.tsc.refresh(&self.cpu)?;
            self.core.apic.expire(self.tsc.now(&self.core.shared.clock));
            self.core.look(Cause::Timer, Eoi::Register);
        }
        Ok(())
    }

    /// Enters the guest and handles the exit, unless something has come.
    fn enter(&mut self, timer: &ThreadTimer) -> Result<(), StopReason> {
        if !self.arm(timer)? {
            return Ok(());
        }
        if !fault::is(Fault::Cr8NotSet) {
            self.cpu.set_cr8(self.core.apic.cr8());
        }
        let mailbox = self.core.mailbox();
        mailbox.publish_priority(if fault::is(Fault::PriorityNotPublished) { 0 } else { self.core.apic.ppr() });
        if !mailbox.enter_guest() {
            return Ok(());
        }
        self.core.arm_pv_eoi();
        let processors = &self.core.shared.processors;
        let entered = processors.trace().entering();
        let outcome = self.cpu.run_and_read_cr8();
        self.core.mailbox().leave();
        if let Ok((_, exit)) = &outcome {
            processors.trace().left(self.core.index, entered, || ExitKind::of(exit));
        }
        self.core.disarm_pv_eoi();
        let (cr8, exit) = outcome?;
        self.core.apic.set_cr8(cr8);
        self.core.look(Cause::Other, Eoi::Register);
        let after = self.core.top_half(&self.owner, exit);
        self.finish(after)?;
        if self.activity == Activity::Halted && fault::is(Fault::NoLookBeforeSleep) {
            return self.sleep(timer, self.core.apic.next_deadline());
        }
        Ok(())
    }

    /// Sets the thread's timer for the next deadline. False: it has passed, look again.
    fn arm(&mut self, timer: &ThreadTimer) -> Result<bool, StopReason> {
        let deadline = self.core.apic.next_deadline();
        let look_again = self.look_again || matches!(deadline, Some(Deadline::Tsc(_))) && !self.tsc.is_steady();
        if deadline.is_none() && !look_again {
            return self.disarm(timer).map(|()| true);
        }
        let now = self.tsc.now(&self.core.shared.clock);
        if deadline.is_some_and(|deadline| deadline.is_due(now)) {
            return Ok(false);
        }
        if fault::is(Fault::TimerNotArmed) {
            return Ok(true);
        }
        let clock = &self.core.shared.clock;
        let host_now = clock.host(now.ns);
        if self.armed.serves(deadline, host_now) && !look_again {
            return Ok(true);
        }
        let mut at = deadline.map_or(u64::MAX, |deadline| clock.host(self.tsc.time_of(deadline, now)));
        if look_again {
            at = at.min(host_now + LOOK_AGAIN);
        }
        timer.arm(at).map_err(|e| Error::host("a vCPU's timer can't be set", e))?;
        // With the early look in force the timer is not where the deadline is: set it again next time.
        self.armed = Armed { at: Some(at), deadline: deadline.filter(|_| !look_again) };
        Ok(true)
    }

    fn disarm(&mut self, timer: &ThreadTimer) -> Result<(), StopReason> {
        // One that has gone off is off.
        if std::mem::take(&mut self.armed).at.is_some_and(|at| at > sys::clock::monotonic_ns()) {
            timer.disarm().map_err(|e| Error::host("a vCPU's timer can't be stopped", e))?;
        }
        Ok(())
    }

    /// Sleeps until something is posted or `deadline` comes. The futex has the deadline: it wakes sooner than a signal.
    fn sleep(&mut self, timer: &ThreadTimer, deadline: Option<Deadline>) -> Result<(), StopReason> {
        self.disarm(timer)?;
        let mailbox = self.core.mailbox();
        mailbox.publish_priority(self.core.apic.ppr());
        let clock = &self.core.shared.clock;
        let until = deadline.map(|deadline| clock.host(self.tsc.time_of(deadline, self.tsc.now(clock))));
        let resting = self.core.shared.rest.as_ref().filter(|_| self.rests_for_good());
        if let Some(rest) = resting
            && self.core.is_the_end(rest)
        {
            return Err(StopReason::Halted);
        }
        let since = sys::clock::monotonic_ns();
        let polling_until = since.saturating_add(self.halt_poll.window()).min(until.unwrap_or(u64::MAX));
        let polled = !fault::is(Fault::NoLookBeforeSleep) && poll(mailbox, polling_until);
        if !polled && mailbox.halt() {
            let (word, halted) = mailbox.futex();
            // However it ends, the loop looks again.
            let (trace, vcpu) = (self.core.interrupts.trace(), self.core.index as u32);
            trace.record(|| Event::Slept { vcpu });
            let _ = sys::futex::wait(word, halted, until);
            mailbox.leave();
            trace.record(|| Event::Woke { vcpu });
        }
        self.halt_poll.halted_for(sys::clock::monotonic_ns() - since);
        if let Some(rest) = resting {
            rest.end(self.core.index);
        }
        Ok(())
    }

    /// Nothing that comes by itself gets it going again (see [`crate::rest`]).
    fn rests_for_good(&self) -> bool {
        match self.activity {
            Activity::Running => false,
            Activity::Halted => !self.cpu.if_flag() && !self.core.apic.lint0_gives_nmi(),
            Activity::WaitForStartUp => true,
        }
    }

    /// Does what an exit has left to do with KVM's vCPU.
    fn finish(&mut self, after: After) -> Result<(), StopReason> {
        match after {
            After::Nothing => {}
            After::Halt => self.halt()?,
            After::ApicBase(value) => {
                self.complete()?;
                self.cpu.set_apic_base(value)?;
            }
            After::Tsc(value) => {
                self.tsc.write(&mut self.cpu, value)?;
                self.tsc_moved();
            }
            After::TscAdjust(value) => {
                self.tsc.write_adjust(&mut self.cpu, value)?;
                self.tsc_moved();
            }
            After::TripleFault => return Err(StopReason::TripleFault(self.state("triple fault"))),
            After::Broken(why) => return Err(StopReason::InternalError(self.state(&why))),
        }
        Ok(())
    }

    /// The guest has set its TSC, and with it the time at which a TSC deadline comes (Intel SDM vol. 3A, section "TSC-Deadline
    /// Mode": "when the logical processor's time-stamp counter equals or exceeds the target value").
    fn tsc_moved(&mut self) {
        self.armed.tsc_moved();
        self.core.shared.processors.set_tsc_offset(self.core.index, self.tsc.lasting_offset());
    }

    /// HLT; but where KVM interprets the guest, an NMI can be late by more than the way to the HLT that it should have
    /// ended.
    fn halt(&mut self) -> Result<(), StopReason> {
        self.activity = Activity::Halted;
        if self.nmi_given {
            let nmi = self.cpu.events()?.nmi;
            self.nmi_given = nmi.pending != 0;
            if self.nmi_given && nmi.masked == 0 {
                self.activity = Activity::Running;
            }
        }
        Ok(())
    }

    /// Completes the last exit without running the guest. Completing may lead to another exit, which is handled; a
    /// guest can string many together, so that is done once per turn of the loop, which looks whether to stop.
    fn complete(&mut self) -> Result<(), StopReason> {
        match self.cpu.complete_pending()? {
            Some(exit) => {
                let after = self.core.top_half(&self.owner, exit);
                self.finish(after)
            }
            None => Ok(()),
        }
    }
}

/// Looks at the mailbox until this host time, which may have passed; whether something has come.
fn poll(mailbox: &Mailbox, until: u64) -> bool {
    loop {
        if mailbox.is_pending() {
            return true;
        }
        if sys::clock::monotonic_ns() >= until {
            return false;
        }
        std::hint::spin_loop();
    }
}

impl Processor for UserApicVcpu {
    fn index(&self) -> usize {
        self.core.index
    }

    fn cpu(&mut self) -> &mut kvm::Vcpu {
        &mut self.cpu
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.core.shared
    }

    fn run_loop(&mut self) -> Result<(), StopReason> {
        let timer = &ThreadTimer::new().map_err(|e| Error::host("a vCPU's timer can't be made", e))?;
        // Timers of a latency tool must not be rounded to the default 50 us; failing that, they still work.
        if let Err(e) = sys::timer::set_timer_slack(1) {
            log::debug!("timer slack: {e}");
        }
        while !self.core.shared.stopper.is_stopped() {
            self.cpu.set_immediate_exit(false);
            self.collect()?;
            match self.activity {
                Activity::WaitForStartUp => {
                    self.publish_ledger();
                    self.sleep(timer, None)?;
                }
                Activity::Running | Activity::Halted => {
                    self.expire_timer()?;
                    self.deliver()?;
                    self.publish_ledger();
                    if self.activity == Activity::Halted {
                        let deadline = self.core.apic.next_deadline().filter(|_| !fault::is(Fault::SleepForgetsTimer));
                        self.sleep(timer, deadline)?;
                    } else {
                        self.enter(timer)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn summary(&self) -> String {
        self.where_it_is()
    }

    fn close_ledger(&self) {
        self.core.counts().publish_last(&self.ledger());
    }
}

impl From<Error> for StopReason {
    fn from(error: Error) -> Self {
        Self::Host(error)
    }
}

impl From<kvm::Error> for StopReason {
    fn from(error: kvm::Error) -> Self {
        Self::Host(error.into())
    }
}
