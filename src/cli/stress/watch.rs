//! The limits of a running test: CPU time of its machine, and as a last resort the clock on the wall.

use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

use vmm::Signal;

/// How often the limits are looked at.
const PAUSE: Duration = Duration::from_millis(200);
/// From the start of the machine to the beginning of the test, and for everything on a busy host: this is no limit of
/// the test, only the last resort.
const WALL: Duration = Duration::from_secs(120);
/// A test that waits looks at a clock meanwhile. One whose machine uses no CPU time for so long sleeps, and nothing will wake it.
const ASLEEP: Duration = Duration::from_secs(10);
/// What a machine that is told to say where its vCPUs are, and to end, gets for each.
const PATIENCE: Duration = Duration::from_secs(2);
/// Clock ticks a second in /proc, the same on every x86 Linux.
const USER_HZ: u64 = 100;

/// Watches one process.
pub struct Watch {
    pid: u32,
    limit: Duration,
    wall: Duration,
    started: Instant,
    /// CPU time when the test began.
    begun: Option<Duration>,
    /// CPU time when it last was another than before, and since when it is that.
    busy: (Duration, Instant),
    /// The limit that was exceeded, and what has been sent since.
    end: Option<(String, Instant, Step)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Step {
    Report,
    Terminate,
}

impl Watch {
    /// The process `pid`, whose test may use so much CPU time.
    pub fn new(pid: u32, limit: Duration) -> Self {
        let now = Instant::now();
        Self { pid, limit, wall: WALL + 4 * limit, started: now, begun: None, busy: (Duration::ZERO, now), end: None }
    }

    /// All of it may take so long, whatever it does.
    pub fn within(self, wall: Duration) -> Self {
        Self { wall, ..self }
    }

    /// The test begins.
    pub fn begin(&mut self) {
        self.begun = Some(cpu_time(self.pid));
    }

    /// How long to wait for something to happen before the next [`Watch::look`].
    pub fn pause(&self) -> Duration {
        PAUSE
    }

    /// Looks at the limits; ends the machine when one is exceeded, after it has said where its vCPUs are.
    pub fn look(&mut self, child: &mut Child) {
        if let Some((_, since, step)) = &mut self.end {
            if since.elapsed() > PATIENCE {
                *since = Instant::now();
                // A process that is gone needs neither.
                let _ = match step {
                    Step::Report => vmm::send_signal(self.pid, Signal::Terminate),
                    Step::Terminate => child.kill(),
                };
                *step = Step::Terminate;
            }
            return;
        }
        let total = cpu_time(self.pid);
        if total != self.busy.0 {
            self.busy = (total, Instant::now());
        }
        let used = self.begun.map_or(Duration::ZERO, |begun| total.saturating_sub(begun));
        let wall = self.started.elapsed();
        let why = if used > self.limit {
            format!("used more than its {:.1} s of CPU time", self.limit.as_secs_f64())
        } else if self.busy.1.elapsed() > ASLEEP {
            format!("all vCPUs slept for {} s, and nothing woke them", ASLEEP.as_secs())
        } else if wall > self.wall {
            format!("did not end within {:.0} s", wall.as_secs_f64())
        } else {
            return;
        };
        self.end = Some((why, Instant::now(), Step::Report));
        let _ = vmm::send_signal(self.pid, Signal::User1);
    }

    /// The limit that was exceeded.
    pub fn exceeded(self) -> Option<String> {
        self.end.map(|(why, ..)| why)
    }
}

/// CPU time of all threads of a process; zero when it is gone.
fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    Duration::from_millis(ticks(&stat) * (1000 / USER_HZ))
}

/// utime and stime out of /proc/PID/stat; the second field, in parentheses, may hold anything.
fn ticks(stat: &str) -> u64 {
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_user_and_system_time_whatever_the_program_is_called() {
        let stat = "12 (a) b) R 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0";
        assert_eq!(ticks(stat), 175);
        assert_eq!(ticks(""), 0);
    }

    #[test]
    fn a_process_that_is_gone_has_used_nothing() {
        assert_eq!(cpu_time(u32::MAX), Duration::ZERO);
        assert!(cpu_time(std::process::id()) < Duration::from_secs(3600));
    }
}
