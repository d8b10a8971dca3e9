//! Models of a tasklet's state: one run at a time, none lost, one duty to push.

use std::collections::VecDeque;

use ::loom::sync::{Arc, Mutex};
use ::loom::thread;

use super::super::strength::without;
use super::*;

/// A tasklet and one list for all CPUs.
struct Tasklet {
    state: TaskletState,
    list: Mutex<VecDeque<()>>,
    data: [AtomicU32; 2],
    /// Written by the runs, one at a time: not atomic in spirit.
    runs: AtomicU32,
}

impl Tasklet {
    fn new() -> Arc<Self> {
        let data = [AtomicU32::new(0), AtomicU32::new(0)];
        Arc::new(Self {
            state: TaskletState::default(),
            list: Mutex::new(VecDeque::new()),
            data,
            runs: AtomicU32::new(0),
        })
    }

    fn push(&self) {
        let mut list = self.list.lock().unwrap();
        assert!(list.is_empty(), "on a list twice");
        list.push_back(());
    }

    fn pay(&self, owed: Owed) {
        if owed == Owed::Push {
            self.push();
        }
    }

    fn schedule(&self, caller: usize) {
        self.data[caller].store(1, Ordering::Relaxed);
        if self.state.schedule() == Schedule::Mine {
            self.push();
        }
    }

    /// What a CPU does with its list. What the run saw of each caller.
    fn serve(&self) -> Option<[u32; 2]> {
        self.list.lock().unwrap().pop_front()?;
        if self.state.begin() != Begin::Run {
            return None;
        }
        let runs = self.runs.load(Ordering::Relaxed);
        let seen = [0, 1].map(|caller: usize| self.data[caller].load(Ordering::Relaxed));
        self.runs.store(runs + 1, Ordering::Relaxed);
        self.pay(self.state.finish().owed);
        Some(seen)
    }

    fn serve_all(&self) -> Option<[u32; 2]> {
        let mut last = None;
        while !self.list.lock().unwrap().is_empty() {
            last = self.serve().or(last);
        }
        last
    }
}

fn two_callers_and_two_cpus() {
    ::loom::model(|| {
        let tasklet = Tasklet::new();
        tasklet.schedule(0);
        let cpu = thread::spawn({
            let tasklet = tasklet.clone();
            move || tasklet.serve()
        });
        tasklet.schedule(1);
        let here = tasklet.serve();
        let there = cpu.join().unwrap();
        let last = tasklet.serve_all();
        let runs = [here, there, last].iter().flatten().count() as u32;
        assert_eq!(tasklet.runs.load(Ordering::Relaxed), runs, "two runs at once");
        assert!([here, there, last].contains(&Some([1, 1])), "no run saw both callers");
        assert!(!tasklet.state.is_scheduled() && !tasklet.state.is_running());
    });
}

#[test]
fn tasklet_runs_once_at_a_time_and_loses_nothing() {
    two_callers_and_two_cpus();
}

#[test]
fn tasklet_without_order_loses_something() {
    without(Part::Tasklet, two_callers_and_two_cpus);
}

#[test]
fn tasklet_disabled_while_it_is_taken_runs_after_enable() {
    ::loom::model(|| {
        let tasklet = Tasklet::new();
        tasklet.state.disable();
        tasklet.schedule(0);
        let cpu = thread::spawn({
            let tasklet = tasklet.clone();
            move || tasklet.serve()
        });
        tasklet.pay(tasklet.state.enable());
        let early = cpu.join().unwrap();
        let late = tasklet.serve_all();
        assert_eq!([early, late].iter().flatten().count(), 1, "lost or run twice");
    });
}

#[test]
fn tasklet_killed_is_dropped_wherever_it_is() {
    ::loom::model(|| {
        let tasklet = Tasklet::new();
        tasklet.state.disable();
        tasklet.schedule(0);
        let cpu = thread::spawn({
            let tasklet = tasklet.clone();
            move || tasklet.serve()
        });
        assert!(tasklet.state.kill(), "it was scheduled");
        tasklet.pay(tasklet.state.enable());
        assert_eq!(cpu.join().unwrap(), None);
        assert_eq!(tasklet.serve_all(), None);
        assert!(!tasklet.state.is_scheduled(), "a killed tasklet is still scheduled");
    });
}
