//! How often each CPU has done deferred work of each kind: a table in the form of /proc/softirqs, which has only the softirqs that did it.

use core::fmt::Write;

use crate::arch::percpu;
use crate::console::Line;
use crate::softirq::Kind;
use crate::time::{hrtimer, timer};
use crate::{sched, tasklet, workqueue};

/// A row: its name, and a CPU's count.
type Row = (&'static str, fn(usize) -> u64);

const ROWS: [Row; 7] = [
    ("HI_TASKLETS", |cpu| tasklet::runs_on(cpu, Kind::Hi)),
    ("TASKLETS", |cpu| tasklet::runs_on(cpu, Kind::Tasklet)),
    ("TIMERS", timer::runs_on),
    ("HRTIMERS", hrtimer::runs_on),
    ("HI_WORK", |cpu| workqueue::runs_on(cpu, true)),
    ("WORK", |cpu| workqueue::runs_on(cpu, false)),
    ("SWITCHES", sched::switches_on),
];

/// Writes the table, line by line, to `out`.
pub fn show_deferred(mut out: impl FnMut(&str)) {
    out(percpu_heading().as_str());
    for (name, count) in ROWS {
        let mut line = Line::new();
        // Line never fails.
        let _ = write!(line, "{name:>11}:");
        for cpu in percpu::cpus() {
            let _ = write!(line, " {:>10}", count(cpu.number()));
        }
        out(line.as_str());
    }
}

/// The names of the CPUs above their columns.
pub(crate) fn percpu_heading() -> Line {
    let mut line = Line::new();
    let _ = write!(line, "{:>12}", "");
    for cpu in percpu::cpus() {
        let mut name = Line::new();
        let _ = write!(name, "CPU{}", cpu.number());
        let _ = write!(line, " {:>10}", name.as_str());
    }
    line
}
