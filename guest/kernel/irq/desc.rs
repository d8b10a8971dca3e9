//! Interrupt descriptors: one for each number.
//!
//! To read more: Linux, include/linux/irqdesc.h, include/linux/irq.h (IRQD_* and IRQS_* states).

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::chip::Chip;
use super::flow::Flow;
use crate::arch::percpu::{MAX_CPUS, this_cpu};
use crate::sync::IrqLock;

/// How many numbers there are.
pub const NR_IRQS: usize = 64;
/// The first number that is not an I/O APIC pin.
pub const FIRST_DYNAMIC: u32 = 24;

/// What a handler says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IrqReturn {
    /// It was not this device.
    None,
    /// It was, and is dealt with.
    Handled,
    /// It was, and the action's thread has to go on with it.
    WakeThread,
}

/// A handler: the number and the device's own word.
pub type Handler = fn(u32, usize) -> IrqReturn;
/// What the thread of an action does; may wait.
pub type ThreadHandler = fn(u32, usize);

/// One user of a number.
#[derive(Clone, Copy)]
pub struct Action {
    /// Its handler.
    pub handler: Handler,
    /// Its thread, run when the handler says so; the line is masked until it is done.
    pub thread: Option<ThreadHandler>,
    /// The device's own word: tells users of a shared number apart.
    pub device: usize,
    /// Its name.
    pub name: &'static str,
    /// It can share the number.
    pub shared: bool,
}

bitflags::bitflags! {
    /// The state of a number.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct State: u32 {
        /// Its handlers are running on some CPU.
        const INPROGRESS = 1 << 0;
        /// It came while it could not be handled: once more, later.
        const PENDING = 1 << 1;
        /// It is disabled.
        const DISABLED = 1 << 2;
        /// Its line is masked.
        const MASKED = 1 << 3;
        /// Somebody probes for it, and it has not come yet.
        const WAITING = 1 << 4;
        /// Somebody probes for it.
        const AUTODETECT = 1 << 5;
        /// Nobody cared for it, and it was switched off.
        const SPURIOUS_DISABLED = 1 << 6;
        /// The line is level-triggered.
        const LEVEL = 1 << 7;
    }
}

/// What the lock protects.
pub struct Inner {
    pub(super) chip: Chip,
    pub(super) flow: Flow,
    pub(super) actions: Vec<Action>,
    pub(super) state: State,
    /// How many times it is disabled.
    pub(super) depth: u32,
    /// Actions whose threads have to run: a bit each.
    pub(super) threads: u32,
    /// Its vector, 0 for none.
    pub(super) vector: u8,
    /// CPUs that it may go to, a bit each.
    pub(super) affinity: u32,
    /// Interrupts in the present round of judging, and those of them that nobody wanted.
    pub(super) judged: u32,
    pub(super) unhandled: u32,
}

/// A number's descriptor.
pub struct Desc {
    pub(super) inner: IrqLock<Inner>,
    counts: [AtomicU64; MAX_CPUS],
}

impl Desc {
    const fn new() -> Self {
        let inner = Inner {
            chip: Chip::None,
            flow: Flow::Bad,
            actions: Vec::new(),
            state: State::DISABLED.union(State::MASKED),
            depth: 1,
            threads: 0,
            vector: 0,
            affinity: 1,
            judged: 0,
            unhandled: 0,
        };
        Self { inner: IrqLock::new(inner), counts: [const { AtomicU64::new(0) }; MAX_CPUS] }
    }

    /// Counts one on this CPU.
    pub(super) fn count(&self) {
        self.counts[this_cpu().number()].fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets what it has counted: the number gets a new owner.
    pub(super) fn clear_counts(&self) {
        for count in &self.counts {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// How often it came on a CPU.
    pub fn count_on(&self, cpu: usize) -> u64 {
        self.counts.get(cpu).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How often it came.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.inner.lock().state
    }

    /// How many times it is disabled.
    pub fn depth(&self) -> u32 {
        self.inner.lock().depth
    }

    /// Its vector; `None` if it has none.
    pub fn vector(&self) -> Option<u8> {
        Some(self.inner.lock().vector).filter(|vector| *vector != 0)
    }

    /// CPUs that it may go to, a bit each.
    pub fn affinity(&self) -> u32 {
        self.inner.lock().affinity
    }
}

impl Inner {
    pub(super) fn mask(&mut self) {
        if !self.state.contains(State::MASKED) {
            self.state |= State::MASKED;
            self.chip.mask();
        }
    }

    pub(super) fn unmask(&mut self) {
        if self.state.contains(State::MASKED) && self.threads == 0 {
            self.state -= State::MASKED;
            self.chip.unmask();
        }
    }

    /// Takes a user away whose handler and thread do not run; the last one's line is masked.
    pub(super) fn remove(&mut self, at: usize) {
        self.actions.remove(at);
        if self.actions.is_empty() {
            self.depth = 1;
            self.state |= State::DISABLED;
            self.mask();
        }
    }

    pub(super) fn disabled(&self) -> bool {
        self.state.contains(State::DISABLED)
    }
}

static DESCRIPTORS: [Desc; NR_IRQS] = [const { Desc::new() }; NR_IRQS];
/// Number of each vector; [`NO_IRQ`] for vectors that are none's.
static IRQ_OF_VECTOR: [AtomicU8; 256] = [const { AtomicU8::new(NO_IRQ) }; 256];
const NO_IRQ: u8 = u8::MAX;

/// The descriptor of a number.
pub fn desc(irq: u32) -> Option<&'static Desc> {
    DESCRIPTORS.get(irq as usize)
}

/// All numbers with their descriptors.
pub fn all() -> impl Iterator<Item = (u32, &'static Desc)> {
    DESCRIPTORS.iter().enumerate().map(|(irq, desc)| (irq as u32, desc))
}

/// The number that comes on a vector.
pub fn irq_of(vector: u8) -> Option<u32> {
    Some(IRQ_OF_VECTOR[usize::from(vector)].load(Ordering::Acquire)).filter(|irq| *irq != NO_IRQ).map(u32::from)
}

/// Says which number comes on a vector.
pub(super) fn set_irq_of(vector: u8, irq: Option<u32>) {
    IRQ_OF_VECTOR[usize::from(vector)].store(irq.map_or(NO_IRQ, |irq| irq as u8), Ordering::Release);
}
