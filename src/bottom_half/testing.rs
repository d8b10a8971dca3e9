//! What the tests share.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::cpu::{CpuOwner, Port};
use crate::system::{Config, System};

/// A port that counts kicks and keeps the last deadline.
#[derive(Default)]
pub(crate) struct Recorder {
    kicks: AtomicU32,
    deadline: Mutex<Option<u64>>,
    announced: AtomicU32,
}

impl Recorder {
    pub(crate) fn kicks(&self) -> u32 {
        self.kicks.load(Ordering::SeqCst)
    }

    pub(crate) fn deadline(&self) -> Option<u64> {
        *self.deadline.lock().unwrap()
    }

    pub(crate) fn announced(&self) -> u32 {
        self.announced.load(Ordering::SeqCst)
    }
}

impl Port for Recorder {
    fn kick(&self) {
        self.kicks.fetch_add(1, Ordering::SeqCst);
    }

    fn deadline(&self, at: Option<u64>) {
        self.announced.fetch_add(1, Ordering::SeqCst);
        *self.deadline.lock().unwrap() = at;
    }
}

/// However slow the host is, nothing is handed over for the time that it takes.
pub(crate) fn one_cpu() -> (System, CpuOwner, Arc<Recorder>) {
    one_cpu_with(Config { budget: u64::MAX, ..Config::default() })
}

pub(crate) fn one_cpu_with(config: Config) -> (System, CpuOwner, Arc<Recorder>) {
    let port = Arc::new(Recorder::default());
    let (system, mut owners) = System::new(config, vec![Arc::clone(&port) as _]).unwrap();
    (system, owners.remove(0), port)
}

/// What happened, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, what: &str) {
        self.0.lock().unwrap().push(what.to_owned());
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Gives other threads the processor until `condition` holds.
pub(crate) fn wait_for(mut condition: impl FnMut() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

/// A gate that items wait at.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, std::sync::Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub(crate) fn wait(&self) {
        let mut open = self.0.0.lock().unwrap();
        while !*open {
            open = self.0.1.wait(open).unwrap();
        }
    }
}
