//! The next deadline of every CPU behind one timer descriptor, which the main loop waits for.
//!
//! Any thread sets, with its CPU's timers locked; this lock is taken last and nothing is called under it. The main loop
//! takes what is due. Idle costs nothing: with no deadline the timer is off.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use vmm_sys_util::timerfd::TimerFd;

/// How many CPUs can have a deadline: bits in the word that [`Deadlines::take_due`] returns.
const MAX_CPUS: usize = 128;

struct State {
    timer: TimerFd,
    /// What the timer is set to; it may have gone off.
    armed: Option<u64>,
    deadlines: Vec<Option<u64>>,
}

/// The deadlines, in ns of CLOCK_MONOTONIC.
pub struct Deadlines {
    state: Mutex<State>,
    fd: RawFd,
}

impl Deadlines {
    /// None yet, for so many CPUs; fails if the host gives no timer descriptor.
    ///
    /// # Panics
    ///
    /// For more than 128 CPUs: more than the configuration allows.
    pub fn new(cpus: usize) -> io::Result<Arc<Self>> {
        assert!(cpus <= MAX_CPUS, "more CPUs than the deadlines have bits");
        let timer = TimerFd::new()?;
        let fd = timer.as_raw_fd();
        Ok(Arc::new(Self { state: Mutex::new(State { timer, armed: None, deadlines: vec![None; cpus] }), fd }))
    }

    /// Sets the deadline of CPU `cpu`, replacing the one before.
    pub fn set(&self, cpu: usize, at: Option<u64>) {
        let mut state = self.state.lock();
        if state.deadlines[cpu] == at {
            return;
        }
        state.deadlines[cpu] = at;
        // A later deadline leaves the timer as it is: it may fire early once, which costs less than a system call for
        // each push-back. An earlier one must set it.
        match (at, state.armed) {
            (Some(at), Some(armed)) if at >= armed => {}
            (None, _) => {}
            _ => state.arm(),
        }
    }

    /// The CPUs that are due at `now`, as bits, which have no deadline from here on. The descriptor stays readable until
    /// [`Deadlines::settle`], or until a CPU sets its next one.
    pub fn take_due(&self, now: u64) -> u128 {
        let mut state = self.state.lock();
        let mut due = 0;
        for (cpu, deadline) in state.deadlines.iter_mut().enumerate() {
            if deadline.is_some_and(|at| at <= now) {
                *deadline = None;
                due |= 1 << cpu;
            }
        }
        state.armed = None;
        due
    }

    /// What was due has been served: arms the timer for the rest, unless somebody has since. Setting the timer, or turning
    /// it off, also takes back its readiness, so the descriptor is never read (a read could block, if a vCPU's thread has
    /// set the timer anew in between).
    pub fn settle(&self) {
        let mut state = self.state.lock();
        if state.armed.is_none() {
            state.arm();
        }
    }
}

impl State {
    fn arm(&mut self) {
        self.armed = self.deadlines.iter().flatten().min().copied();
        let result = match self.armed {
            // A zero delay would turn the timer off.
            Some(at) => {
                let delay = at.saturating_sub(sys::clock::monotonic_ns()).max(1);
                self.timer.reset(Duration::from_nanos(delay), None)
            }
            None => self.timer.clear(),
        };
        if let Err(e) = result {
            log::error!("device timer can't be set: {e}");
        }
    }
}

impl AsRawFd for Deadlines {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}
