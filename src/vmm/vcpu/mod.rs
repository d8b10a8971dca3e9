//! A vCPU's thread: look at the mailbox, deliver, arm the timer, enter the guest, handle the exit; or sleep.
//!
//! The thread owns the local APIC and KVM's vCPU; nobody else touches either. What the order of the steps guarantees:
//!
//! - `immediate_exit` is cleared at the top of the loop, before the last look at mailbox and deadline. Whatever comes
//!   later sets it again, and KVM_RUN returns at once.
//! - The timer's signal is a kick like any other. A deadline that passed before the clearing is found by the look.
//! - Interrupts are looked for at *every* exit: some hosts report the interrupt window late, or never.

mod deliver;
mod dump;
mod exits;
mod tsc;

use irqchip::lapic::Deadline;
use kvm::Reset;
use kvm::probe::HostFeatures;
use sys::timer::ThreadTimer;

use exits::After;
pub use exits::{Core, Shared};
use tsc::GuestTsc;

use crate::Error;
use crate::stop::StopReason;

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
pub struct VcpuThread {
    core: Core,
    cpu: kvm::Vcpu,
    activity: Activity,
    nmi: bool,
    /// KVM was given an NMI, and may still have it.
    nmi_given: bool,
    tsc: GuestTsc,
    /// Look again soon: a request waits, and the host may not tell when its time has come. (The same goes for a TSC
    /// deadline on a host whose TSC is not steady.)
    look_again: bool,
    /// The host tells exactly when the interrupt window opens and when CR8 falls.
    exact_windows: bool,
    steps: deliver::Steps,
    armed: Armed,
}

/// What the thread's timer is set to.
#[derive(Debug, Default)]
struct Armed {
    /// The host time, while it is set.
    at: Option<u64>,
    /// What for.
    deadline: Option<Deadline>,
}

impl VcpuThread {
    /// The bootstrap processor runs; the others wait for a start-up message.
    pub fn new(core: Core, cpu: kvm::Vcpu, host: &HostFeatures) -> Result<Self, Error> {
        let activity = if core.index == 0 { Activity::Running } else { Activity::WaitForStartUp };
        if activity == Activity::WaitForStartUp {
            core.shared.interrupts.mailbox(core.index).wait_for_start_up();
        }
        let tsc = GuestTsc::of(&cpu, host.tsc_offset)?;
        let exact_windows = host.exact_interrupt_window;
        let armed = Armed::default();
        Ok(Self {
            core,
            cpu,
            activity,
            nmi: false,
            nmi_given: false,
            tsc,
            look_again: false,
            exact_windows,
            steps: deliver::Steps::default(),
            armed,
        })
    }

    /// Runs the vCPU on the calling thread until the machine stops. Calls `ready` when the thread can be kicked.
    pub fn run(mut self, ready: impl FnOnce()) {
        sys::thread::set_name(&format!("vcpu{}", self.core.index));
        let prepared = self.cpu.register_kick().map_err(Error::from).and_then(|guard| {
            let timer = ThreadTimer::new().map_err(|e| Error::host("a vCPU's timer can't be made", e))?;
            Ok((guard, timer))
        });
        // Timers of a latency tool must not be rounded to the default 50 us; failing that, they still work.
        if let Err(e) = sys::timer::set_timer_slack(1) {
            log::debug!("timer slack: {e}");
        }
        self.core.shared.interrupts.attach_thread(self.core.index);
        ready();
        let ended = match prepared {
            Ok((_guard, timer)) => self.run_loop(&timer),
            Err(e) => Err(StopReason::Host(e)),
        };
        log::debug!("{}", self.summary());
        if let Err(reason) = ended {
            self.core.shared.stopper.stop(reason);
        }
    }

    fn run_loop(&mut self, timer: &ThreadTimer) -> Result<(), StopReason> {
        while !self.core.shared.stopper.is_stopped() {
            self.cpu.set_immediate_exit(false);
            self.collect()?;
            match self.activity {
                Activity::WaitForStartUp => self.sleep(timer, None)?,
                Activity::Running | Activity::Halted => {
                    self.expire_timer()?;
                    self.deliver()?;
                    if self.activity == Activity::Halted {
                        self.sleep(timer, self.core.apic.next_deadline())?;
                    } else {
                        self.enter(timer)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes what others have posted.
    fn collect(&mut self) -> Result<(), StopReason> {
        let Core { index, apic, shared } = &mut self.core;
        let events = apic.collect(shared.interrupts.mailbox(*index));
        if events.init {
            self.init()?;
        }
        if let Some(vector) = events.start_up
            && self.activity == Activity::WaitForStartUp
        {
            self.cpu.start_up(vector)?;
            self.activity = Activity::Running;
        }
        self.nmi |= events.nmi;
        if events.attention {
            log::info!("{}", self.summary());
        }
        Ok(())
    }

    /// INIT (Intel SDM vol. 3A, section "Processor State After Reset"). An application processor waits for start-up;
    /// the bootstrap processor goes to its reset vector, where firmware would restart the machine, and so do we.
    fn init(&mut self) -> Result<(), StopReason> {
        self.core.apic.init();
        self.core.apply(irqchip::lapic::Effect::Readdressed);
        self.nmi = false;
        if self.core.index == 0 {
            return Err(StopReason::Reset);
        }
        self.cpu.reset_state(Reset::Init)?;
        self.activity = Activity::WaitForStartUp;
        Ok(())
    }

    fn expire_timer(&mut self) -> Result<(), StopReason> {
        if self.core.apic.next_deadline().is_some() {
            self.tsc.refresh(&self.cpu)?;
            self.core.apic.expire(self.tsc.now(&self.core.shared.clock));
        }
        Ok(())
    }

    /// Enters the guest and handles the exit, unless something has come.
    fn enter(&mut self, timer: &ThreadTimer) -> Result<(), StopReason> {
        if !self.arm(timer)? {
            return Ok(());
        }
        self.cpu.set_cr8(self.core.apic.cr8());
        let mailbox = self.core.mailbox();
        mailbox.publish_priority(self.core.apic.ppr());
        if !mailbox.enter_guest() {
            return Ok(());
        }
        let outcome = self.cpu.run_and_read_cr8();
        mailbox.leave();
        let (cr8, exit) = outcome?;
        self.core.apic.set_cr8(cr8);
        let after = self.core.handle(exit);
        self.finish(after)
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
        let clock = &self.core.shared.clock;
        let host_now = clock.host(now.ns);
        let still_armed = self.armed.at.is_some_and(|at| at > host_now);
        if still_armed && self.armed.deadline == deadline && !look_again {
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
        if self.armed.at.take().is_some() {
            self.armed = Armed::default();
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
        if mailbox.halt() {
            let (word, halted) = mailbox.futex();
            // However it ends, the loop looks again.
            let _ = sys::futex::wait(word, halted, until);
            mailbox.leave();
        }
        Ok(())
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
            After::Tsc(value) => self.tsc.write(&mut self.cpu, value)?,
            After::TscAdjust(value) => self.tsc.write_adjust(&mut self.cpu, value)?,
            After::TripleFault => return Err(StopReason::TripleFault(self.dump("triple fault"))),
            After::Broken(why) => return Err(StopReason::InternalError(self.dump(&why))),
        }
        Ok(())
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
                let after = self.core.handle(exit);
                self.finish(after)
            }
            None => Ok(()),
        }
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
