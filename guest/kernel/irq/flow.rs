//! Flow handlers: what is done to the controller before, between and after the drivers' handlers.
//!
//! | flow | for | how |
//! |---|---|---|
//! | level | lines that stay up until the device is served, on chips like the 8259A | mask and acknowledge, handle, unmask |
//! | fast EOI | the same, where the EOI itself holds the line back until then (I/O APIC) | handle, EOI |
//! | edge | lines and messages that come once | acknowledge first; what comes meanwhile is noted and handled in the same round |
//! | simple | code, not hardware | handle |
//! | per CPU | interrupts that every CPU has for itself | handle, EOI; no lock |
//!
//! All but the last keep two promises: the handlers of a number never run on two CPUs at once (INPROGRESS), and an edge that comes while
//! they run, or while the number is disabled, is not lost (PENDING).
//!
//! To read more: Linux, kernel/irq/chip.c.

use super::desc::{self, Action, Desc, Inner, IrqReturn, State};
use crate::arch::frame::Frame;
use crate::chips::apic;
use crate::log;
use crate::sync::IrqLockGuard;

/// The flow of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Nobody has said yet.
    Bad,
    /// See the module.
    Level,
    /// See the module.
    FastEoi,
    /// See the module.
    Edge,
    /// See the module.
    Simple,
    /// See the module.
    PerCpu,
}

impl Flow {
    /// Its name in the table of interrupts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Level => "level",
            Self::FastEoi => "fasteoi",
            Self::Edge => "edge",
            Self::Simple => "simple",
            Self::PerCpu => "percpu",
        }
    }
}

/// So many interrupts are judged at a time; if all but one of them were nobody's, the line is switched off.
pub const JUDGED_AT_A_TIME: u32 = 1000;

/// Every vector of a descriptor leads here.
pub(super) fn common_interrupt(frame: &mut Frame) {
    match desc::irq_of(frame.vector as u8) {
        Some(irq) => generic_handle_irq(irq),
        None => apic::eoi(),
    }
}

/// Handles one interrupt of a number. Interrupts must be off.
pub fn generic_handle_irq(irq: u32) {
    let Some(desc) = desc::desc(irq) else { return };
    let inner = desc.inner.lock();
    match inner.flow {
        Flow::Level => handle_level_irq(irq, desc, inner),
        Flow::FastEoi => handle_fasteoi_irq(irq, desc, inner),
        Flow::Edge => handle_edge_irq(irq, desc, inner),
        Flow::Simple => handle_simple_irq(irq, desc, inner),
        Flow::PerCpu => handle_percpu_irq(irq, desc, inner),
        Flow::Bad => {
            desc.count();
            inner.chip.eoi();
        }
    }
}

/// It can't be handled now: disabled, or nobody is there, or its handlers run already.
fn can_not_run(inner: &mut Inner) -> bool {
    inner.state -= State::WAITING;
    inner.state.contains(State::INPROGRESS) || inner.disabled() || inner.actions.is_empty()
}

fn handle_level_irq(irq: u32, desc: &'static Desc, mut inner: IrqLockGuard<'_, Inner>) {
    desc.count();
    inner.mask();
    inner.chip.eoi();
    if can_not_run(&mut inner) {
        // The line stays up; it will come again when it is unmasked.
        inner.state |= State::PENDING;
        return;
    }
    let mut inner = handle_event(irq, desc, inner);
    if !inner.disabled() {
        inner.unmask();
    }
}

fn handle_fasteoi_irq(irq: u32, desc: &'static Desc, mut inner: IrqLockGuard<'_, Inner>) {
    desc.count();
    if can_not_run(&mut inner) {
        inner.state |= State::PENDING;
        // While its handlers run on another CPU (it was rerouted meanwhile) the line just comes again until they have served it.
        if inner.disabled() || inner.actions.is_empty() {
            inner.mask();
        }
        inner.chip.eoi();
        return;
    }
    let mut inner = handle_event(irq, desc, inner);
    if inner.threads != 0 || inner.disabled() {
        inner.mask();
    }
    inner.chip.eoi();
}

fn handle_edge_irq(irq: u32, desc: &'static Desc, mut inner: IrqLockGuard<'_, Inner>) {
    desc.count();
    if can_not_run(&mut inner) {
        // Noted for whoever is running, or whoever enables it. A line that has been noted need not come again.
        inner.state |= State::PENDING;
        inner.mask();
        inner.chip.eoi();
        return;
    }
    inner.chip.eoi();
    loop {
        // Another CPU may have masked it to note an edge.
        if inner.state.contains(State::PENDING) && !inner.disabled() {
            inner.unmask();
        }
        inner = handle_event(irq, desc, inner);
        if !inner.state.contains(State::PENDING) || inner.disabled() || inner.threads != 0 {
            break;
        }
    }
}

fn handle_simple_irq(irq: u32, desc: &'static Desc, mut inner: IrqLockGuard<'_, Inner>) {
    desc.count();
    if can_not_run(&mut inner) {
        inner.state |= State::PENDING;
        return;
    }
    loop {
        inner = handle_event(irq, desc, inner);
        if !inner.state.contains(State::PENDING) || inner.disabled() {
            break;
        }
    }
}

fn handle_percpu_irq(irq: u32, desc: &'static Desc, inner: IrqLockGuard<'_, Inner>) {
    desc.count();
    let first = inner.actions.first().copied();
    let chip = inner.chip;
    drop(inner);
    if let Some(Action { handler, device, .. }) = first {
        handler(irq, device);
    }
    chip.eoi();
}

/// Runs all handlers once, without the lock; INPROGRESS keeps others out.
fn handle_event<'a>(irq: u32, desc: &'a Desc, mut inner: IrqLockGuard<'a, Inner>) -> IrqLockGuard<'a, Inner> {
    inner.state -= State::PENDING;
    inner.state |= State::INPROGRESS;
    let mut handled = false;
    let mut wake = 0;
    let mut n = 0;
    // The list can't shrink while INPROGRESS: who frees an action waits for it.
    while let Some(&Action { handler, device, .. }) = inner.actions.get(n) {
        drop(inner);
        let said = handler(irq, device);
        handled |= said != IrqReturn::None;
        if said == IrqReturn::WakeThread {
            wake |= 1 << n;
        }
        inner = desc.inner.lock();
        n += 1;
    }
    inner.state -= State::INPROGRESS;
    judge(irq, &mut inner, handled);
    if wake != 0 {
        inner.threads |= wake;
        // Masked until the threads are done.
        inner.mask();
        super::thread::wake(irq);
    }
    inner
}

/// A line that keeps coming and that nobody wants would take all of the CPU: it is switched off.
fn judge(irq: u32, inner: &mut Inner, handled: bool) {
    inner.judged += 1;
    inner.unhandled += u32::from(!handled);
    if inner.judged < JUDGED_AT_A_TIME {
        return;
    }
    if inner.unhandled >= JUDGED_AT_A_TIME - 1 {
        log!("irq {irq}: nobody cared");
        inner.state |= State::DISABLED | State::SPURIOUS_DISABLED;
        inner.depth += 1;
        inner.mask();
    }
    (inner.judged, inner.unhandled) = (0, 0);
}
