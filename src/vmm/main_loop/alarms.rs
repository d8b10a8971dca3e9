//! Every device's deadline behind one timer descriptor.
//!
//! Any thread arms, with its device's lock held; this lock is taken last and nothing is called under it. The main loop
//! takes what is due. Idle costs nothing: with no deadline the timer is off.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use devices::Alarm;
use parking_lot::Mutex;
use vmm_sys_util::timerfd::TimerFd;
use x86::Nanos;

use crate::clock::Clock;

/// How many devices can have a deadline: bits in the word that [`Alarms::take_due`] returns.
const MAX_SLOTS: usize = 64;

struct State {
    timer: TimerFd,
    armed: Option<Nanos>,
    deadlines: Vec<Option<Nanos>>,
}

/// The deadlines.
pub struct Alarms {
    clock: Clock,
    state: Mutex<State>,
    fd: RawFd,
}

impl Alarms {
    /// No slots yet; fails if the host gives no timer descriptor.
    pub fn new(clock: Clock) -> io::Result<Arc<Self>> {
        let timer = TimerFd::new()?;
        let fd = timer.as_raw_fd();
        let state = State { timer, armed: None, deadlines: Vec::new() };
        Ok(Arc::new(Self { clock, state: Mutex::new(state), fd }))
    }

    /// A new slot, numbered from 0 in the order of the calls.
    ///
    /// # Panics
    ///
    /// Beyond 64 slots: the machine's wiring is wrong.
    pub fn slot(self: &Arc<Self>) -> Arc<dyn Alarm> {
        let mut state = self.state.lock();
        let slot = state.deadlines.len();
        assert!(slot < MAX_SLOTS, "more timed devices than alarm slots");
        state.deadlines.push(None);
        Arc::new(Slot { alarms: Arc::clone(self), slot })
    }

    /// The slots that are due at `now`, as bits, which have no deadline from here on; arms the timer for the rest.
    pub fn take_due(&self, now: Nanos) -> u64 {
        let mut state = self.state.lock();
        let mut due = 0;
        for (slot, deadline) in state.deadlines.iter_mut().enumerate() {
            if deadline.is_some_and(|at| at <= now) {
                *deadline = None;
                due |= 1 << slot;
            }
        }
        // Setting the timer also takes back its readiness, so the descriptor is never read (a read could block, if a
        // vCPU's thread has set the timer anew in between).
        state.armed = None;
        self.rearm(&mut state, true);
        due
    }

    fn rearm(&self, state: &mut State, force: bool) {
        let next = state.deadlines.iter().flatten().min().copied();
        if next == state.armed && !force {
            return;
        }
        state.armed = next;
        let result = match next {
            // A zero delay would turn the timer off.
            Some(at) => {
                let delay = Duration::from_nanos(at.saturating_sub(self.clock.now()).max(1));
                state.timer.reset(delay, None)
            }
            None => state.timer.clear(),
        };
        if let Err(e) = result {
            log::error!("device timer can't be set: {e}");
        }
    }
}

impl AsRawFd for Alarms {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

struct Slot {
    alarms: Arc<Alarms>,
    slot: usize,
}

impl Alarm for Slot {
    fn arm(&self, at: Option<Nanos>) {
        let mut state = self.alarms.state.lock();
        if state.deadlines[self.slot] != at {
            state.deadlines[self.slot] = at;
            // A later deadline leaves the timer as it is: it may fire early once, which costs less than a system call
            // for each push-back. An earlier one must set it.
            match (at, state.armed) {
                (Some(at), Some(armed)) if at >= armed => {}
                (None, Some(_)) => {}
                _ => self.alarms.rearm(&mut state, false),
            }
        }
    }
}
