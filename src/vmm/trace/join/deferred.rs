//! Deferred items: an activation, its run, and what is between.

use std::collections::HashMap;

use bottom_half::{Happened, ItemKind};

use super::interrupts::Interrupts;
use super::{Activator, Deferred};
use crate::trace::event::{Event, Record};

type Key = (ItemKind, u64);

/// The items while they are joined; numbers are places here.
#[derive(Default)]
pub struct Items {
    pub all: Vec<Deferred>,
    pending: HashMap<Key, usize>,
    /// The last run, for an activation that seemed to have merged into it.
    last: HashMap<Key, usize>,
    /// What runs on each thread, one in the other.
    running: HashMap<u16, Vec<usize>>,
}

impl Items {
    /// The innermost item that runs on this thread.
    pub fn running(&self, thread: u16) -> Option<usize> {
        self.running.get(&thread).and_then(|stack| stack.last().copied())
    }

    /// The next record; `in_handler` is the interrupt in whose handler that thread's guest is.
    pub fn take(&mut self, record: &Record, in_handler: Option<usize>, interrupts: &mut Interrupts) {
        let Event::Deferred { happened, kind, key, .. } = record.event else {
            if let Event::Machine { .. } = record.event {
                (self.pending, self.last) = (HashMap::new(), HashMap::new());
            }
            return;
        };
        let at = (record.stamp, record.thread);
        match happened {
            Happened::Activated => {
                let here = self.running(record.thread).map(Activator::Item);
                let cause = here.or_else(|| in_handler.map(Activator::Interrupt));
                match self.pending.get(&(kind, key)) {
                    Some(&pending) => self.all[pending].activated.push(at),
                    None => {
                        let new = self.add(record, cause);
                        self.all[new].activated.push(at);
                        self.pending.insert((kind, key), new);
                    }
                }
            }
            Happened::Run => {
                let item = self.pending.remove(&(kind, key)).unwrap_or_else(|| self.take_back(record));
                self.all[item].run = Some(at);
                self.last.insert((kind, key), item);
                self.running.entry(record.thread).or_default().push(item);
            }
            Happened::Done => {
                let stack = self.running.entry(record.thread).or_default();
                let is_it = |&item: &usize| (self.all[item].kind, self.all[item].key) == (kind, key);
                if let Some(depth) = stack.iter().rposition(is_it) {
                    // Those above it have lost their ends.
                    let item = stack[depth];
                    stack.truncate(depth);
                    self.all[item].done = Some(record.stamp);
                    interrupts.forget_source(record.thread);
                }
            }
            Happened::Cancelled => {
                if let Some(item) = self.pending.remove(&(kind, key)) {
                    self.all[item].cancelled = true;
                }
            }
        }
    }

    /// A run with no activation before it: the last one that merged into the run before was for this.
    fn take_back(&mut self, record: &Record) -> usize {
        let Event::Deferred { kind, key, .. } = record.event else { return self.add(record, None) };
        let last = self.last.get(&(kind, key)).copied();
        let back =
            last.filter(|&last| self.all[last].activated.len() > 1).and_then(|last| self.all[last].activated.pop());
        let new = self.add(record, None);
        self.all[new].activated.extend(back);
        new
    }

    fn add(&mut self, record: &Record, cause: Option<Activator>) -> usize {
        if let Event::Deferred { kind, key, vector, cpu, queue, .. } = record.event {
            let queue = String::from_utf8_lossy(&queue).trim_end_matches('\0').to_owned();
            self.all.push(Deferred {
                id: 0,
                kind,
                key,
                vector,
                cpu,
                queue,
                activated: Vec::new(),
                cause,
                run: None,
                done: None,
                cancelled: false,
                raised: Vec::new(),
            });
        }
        self.all.len() - 1
    }
}
