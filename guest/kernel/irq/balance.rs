//! The balancing thread (kirqd): moves lines off the busiest CPU.
//!
//! It compares how many interrupts of the I/O APIC's lines each CPU has had since it last looked. If one had many more than
//! another, the line that makes the two most alike is sent to the other from now on: its redirection entry gets another
//! destination. A line that by itself makes a CPU busy stays where it is, or it would be moved to and fro.
//!
//! To read more: Bovet and Cesati, "Understanding the Linux Kernel", "IRQ distribution in multiprocessor systems"; Linux 2.6,
//! arch/i386/kernel/io_apic.c (balanced_irq).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use super::chip::Chip;
use super::desc::{self, FIRST_DYNAMIC};
use super::manage;
use crate::arch::percpu::{self, MAX_CPUS};
use crate::sched::task::{kthread_run, should_stop};
use crate::sched::{Priority, Task, sleep};

/// Differences below this are not worth a move.
const WORTHWHILE: u64 = 10;

/// Lines that were moved since the start.
static MOVES: AtomicU64 = AtomicU64::new(0);

/// How many lines were moved since the start.
pub fn moves() -> u64 {
    MOVES.load(Ordering::Relaxed)
}

/// A line that was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Its number.
    pub irq: u32,
    /// The CPU that it went to.
    pub from: usize,
    /// The CPU that it goes to.
    pub to: usize,
}

/// What each line had sent to each CPU when the balancer last looked.
pub struct Balancer(Box<[[u64; MAX_CPUS]; FIRST_DYNAMIC as usize]>);

impl Balancer {
    /// One that begins to look now.
    pub fn new() -> Self {
        let mut balancer = Self(Box::new([[0; MAX_CPUS]; FIRST_DYNAMIC as usize]));
        balancer.look();
        balancer
    }

    /// Interrupts since the last look: number, CPU that it goes to, how many.
    fn look(&mut self) -> Vec<(u32, usize, u64)> {
        let mut lines = Vec::new();
        for (irq, desc) in desc::all().take(self.0.len()) {
            let last = &mut self.0[irq as usize];
            let mut came = 0;
            for (cpu, last) in last.iter_mut().enumerate() {
                let now = desc.count_on(cpu);
                // A number that was set up anew counts from 0.
                came += now.checked_sub(*last).unwrap_or(now);
                *last = now;
            }
            let inner = desc.inner.lock();
            let movable = matches!(inner.chip, Chip::IoApic(_)) && inner.affinity.count_ones() == 1;
            if movable && came > 0 {
                lines.push((irq, inner.affinity.trailing_zeros() as usize, came));
            }
        }
        lines
    }

    /// Looks, and moves a line if that makes CPUs more alike.
    pub fn balance(&mut self) -> Option<Move> {
        let lines = self.look();
        let load = |cpu: usize| lines.iter().filter(|line| line.1 == cpu).map(|line| line.2).sum::<u64>();
        let cpus = || percpu::cpus().map(percpu::PerCpu::number);
        let (from, to) = (cpus().max_by_key(|cpu| load(*cpu))?, cpus().min_by_key(|cpu| load(*cpu))?);
        let difference = load(from) - load(to);
        if difference < WORTHWHILE {
            return None;
        }
        // Moving a line of n interrupts changes the difference by 2 n.
        let candidates = lines.iter().filter(|(_, cpu, came)| *cpu == from && *came < difference);
        let (irq, ..) = candidates.min_by_key(|(.., came)| (2 * came).abs_diff(difference))?;
        manage::set_affinity(*irq, 1 << to).ok()?;
        MOVES.fetch_add(1, Ordering::Relaxed);
        Some(Move { irq: *irq, from, to })
    }
}

impl Default for Balancer {
    fn default() -> Self {
        Self::new()
    }
}

/// Starts the thread, which looks every so many jiffies until it is stopped. The tick must be running.
pub fn start(jiffies: u64) -> Arc<Task> {
    kthread_run("kirqd", 0, Priority::High, move || {
        let mut balancer = Balancer::new();
        while !should_stop() {
            sleep::schedule_timeout(jiffies);
            balancer.balance();
        }
        0
    })
}
