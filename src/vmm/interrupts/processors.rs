//! How other threads reach the vCPUs' threads: their mailboxes, and the kick. The same in every mode.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use irqchip::bus::Kicks;
use irqchip::ledger::Posts;
use irqchip::mailbox::{Mailbox, Wake};
use parking_lot::Mutex;
use sys::kick::ThreadId;
use x86::apic::DeliveryMode;

use crate::trace::Trace;
use crate::trace::event::Event;
use crate::vcpu::Counts;

/// The vCPUs' mailboxes and threads.
pub struct Processors {
    mailboxes: Arc<[Mailbox]>,
    /// The thread of each vCPU, and how others have kicked it.
    threads: Box<[Thread]>,
    counts: Box<[Counts]>,
    trace: Trace,
    tsc_offsets: Mutex<Box<[Option<u64>]>>,
}

/// One vCPU's thread as its kickers see it.
#[derive(Default)]
#[repr(align(64))]
struct Thread {
    /// Once it runs.
    id: OnceLock<ThreadId>,
    /// By a signal, and by waking its futex. Any thread counts here; beside the system call that costs nothing.
    signals: AtomicU64,
    futexes: AtomicU64,
    /// NMIs that the user, or the test agent, sent: those the vCPU will find, and those that merged.
    nmis: AtomicU64,
    merged_nmis: AtomicU64,
}

impl Processors {
    /// vCPUs with these mailboxes, no threads yet.
    pub fn new(mailboxes: Arc<[Mailbox]>) -> Arc<Self> {
        Self::traced(mailboxes, Trace::default())
    }

    /// The same, with what happens recorded in `trace`.
    pub fn traced(mailboxes: Arc<[Mailbox]>, trace: Trace) -> Arc<Self> {
        let threads = mailboxes.iter().map(|_| Thread::default()).collect();
        let counts = mailboxes.iter().map(|_| Counts::default()).collect();
        let tsc_offsets = Mutex::new(mailboxes.iter().map(|_| None).collect());
        Arc::new(Self { mailboxes, threads, counts, tsc_offsets, trace })
    }

    /// Where what happens is recorded.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Makes the calling thread the one that is kicked for vCPU `index`.
    pub fn attach_thread(&self, index: usize) {
        // A vCPU has one thread for life: the first attachment counts.
        let _ = self.threads[index].id.set(ThreadId::current());
    }

    /// The mailbox of vCPU `index`.
    pub fn mailbox(&self, index: usize) -> &Mailbox {
        &self.mailboxes[index]
    }

    /// What vCPU `index` has done.
    pub fn counts(&self, index: usize) -> &Counts {
        &self.counts[index]
    }

    /// How often others have kicked vCPU `index`: by a signal, and by waking its futex.
    pub fn kicks(&self, index: usize) -> (u64, u64) {
        let Thread { signals, futexes, .. } = &self.threads[index];
        (signals.load(Ordering::Relaxed), futexes.load(Ordering::Relaxed))
    }

    /// What [`Processors::nmi`] has put into mailboxes.
    pub fn posts(&self) -> Posts {
        let sum =
            |count: fn(&Thread) -> &AtomicU64| self.threads.iter().map(|t| count(t).load(Ordering::Relaxed)).sum();
        Posts { nmis: sum(|t| &t.nmis), merged_nmis: sum(|t| &t.merged_nmis), ..Posts::default() }
    }

    /// What to add to the host's TSC (modulo 2^64) to get vCPU `index`'s; `None` where that may change.
    pub fn set_tsc_offset(&self, index: usize, offset: Option<u64>) {
        self.tsc_offsets.lock()[index] = offset;
    }

    /// That of all vCPUs, if they have the same.
    pub fn tsc_offset(&self) -> Option<u64> {
        let offsets = self.tsc_offsets.lock();
        let (first, rest) = offsets.split_first()?;
        first.filter(|_| rest.iter().all(|other| other == first))
    }

    /// How many vCPUs there are.
    pub fn count(&self) -> usize {
        self.mailboxes.len()
    }

    /// Asks vCPU `index` to look up from what it does.
    pub fn attention(&self, index: usize) {
        self.pay(index, self.mailbox(index).post_attention());
    }

    /// Tells vCPU `index` that bottom halves of its thread wait to be run.
    pub fn deferred(&self, index: usize) {
        self.pay(index, self.mailbox(index).post_deferred());
    }

    /// Sends vCPU `index` an NMI.
    pub fn nmi(&self, index: usize) {
        let mode = DeliveryMode::Nmi;
        self.trace.record(|| Event::Posted { vcpu: index as u32, vector: 0, mode, level: false });
        let posted = self.mailbox(index).nmi();
        let Thread { nmis, merged_nmis, .. } = &self.threads[index];
        if posted.merged { merged_nmis } else { nmis }.fetch_add(1, Ordering::Relaxed);
        self.pay(index, posted.owed);
    }

    /// Wakes those who need it; later, if the calling thread holds kicks back because it holds a device's lock. To be
    /// called with no chip's lock held.
    pub fn kick(&self, kicks: Kicks) {
        if kicks.is_empty() {
            return;
        }
        let Some(mut kicks) = self.hold(kicks) else { return };
        kicks.pay(&self.mailboxes, |index, wake| match wake {
            Wake::Nobody => {}
            Wake::Futex => {
                self.trace.record(|| Event::Kicked { vcpu: index as u32, futex: true });
                self.threads[index].futexes.fetch_add(1, Ordering::Relaxed);
                sys::futex::wake(self.mailbox(index).futex().0, 1);
            }
            Wake::Signal => {
                self.trace.record(|| Event::Kicked { vcpu: index as u32, futex: false });
                self.threads[index].signals.fetch_add(1, Ordering::Relaxed);
                if let Some(Err(e)) = self.threads[index].id.get().map(ThreadId::signal) {
                    log::error!("vCPU {index} can't be signalled: {e}");
                }
            }
        });
    }

    fn pay(&self, index: usize, owed: bool) {
        let mut kicks = Kicks::new();
        if owed {
            kicks.add(index);
        }
        self.kick(kicks);
    }
}
