//! From a hard interrupt's stub to its handler, and the way out.
//!
//! On the way in, the nesting depth is counted; on the way out, when the last handler is done, what was put off is run: first
//! softirqs, then, if somebody asked for it and the interrupted code allows it, another thread; on the way to ring 3 also what is waiting for
//! the program. These three are hooks here, set by those who implement them.
//!
//! To read more: Linux, kernel/softirq.c (irq_enter, irq_exit), Documentation/core-api/entry.rst.

use core::sync::atomic::{AtomicPtr, Ordering};

use crate::arch::frame::Frame;
use crate::arch::percpu::this_cpu;
use crate::arch::{nmi, vectors};
use crate::irq::mark;
use crate::{log, power, sched, softirq};

/// Something to do on the way out of an interrupt; called with interrupts off on the interrupted stack, returns so.
pub type ExitHook = fn(&mut Frame);

static SOFTIRQS: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static PREEMPT: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static TO_USER: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Runs pending softirqs. Called when no hard-interrupt handler is left on this CPU.
pub fn set_softirq_hook(hook: ExitHook) {
    SOFTIRQS.store(hook as *mut (), Ordering::Release);
}

/// Reschedules if asked for. Called after the softirq hook, when interrupts were on in what was interrupted.
pub fn set_preempt_hook(hook: ExitHook) {
    PREEMPT.store(hook as *mut (), Ordering::Release);
}

/// Looks after the program. Called last, on the way to ring 3.
pub fn set_user_hook(hook: ExitHook) {
    TO_USER.store(hook as *mut (), Ordering::Release);
}

fn call(hook: &AtomicPtr<()>, frame: &mut Frame) {
    let hook = hook.load(Ordering::Acquire);
    if !hook.is_null() {
        // SAFETY: what is not null was stored from an ExitHook.
        let hook = unsafe { core::mem::transmute::<*mut (), ExitHook>(hook) };
        hook(frame);
    }
}

/// From the stub, on the hard-interrupt stack, interrupts off.
pub(crate) extern "C" fn do_irq(frame: &mut Frame) {
    mark::handler_entered(frame.vector as u8);
    irq_enter();
    vectors::dispatch(frame);
    irq_exit();
}

/// A hard-interrupt handler begins.
fn irq_enter() {
    let cpu = this_cpu();
    let depth = cpu.hardirq_depth.load(Ordering::Relaxed) + 1;
    cpu.hardirq_depth.store(depth, Ordering::Relaxed);
    if depth > cpu.deepest.load(Ordering::Relaxed) {
        cpu.deepest.store(depth, Ordering::Relaxed);
    }
}

/// It ends. The handler may have turned interrupts on.
fn irq_exit() {
    x86_64::instructions::interrupts::disable();
    let cpu = this_cpu();
    cpu.hardirq_depth.store(cpu.hardirq_depth.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    if !cpu.stacks.hardirq.intact() {
        log!("the {} of CPU {} has overflowed", cpu.overrun().unwrap_or("stack"), cpu.number());
        power::die("stack overflow");
    }
}

/// From the stubs, on the interrupted stack, interrupts off.
pub(crate) extern "C" fn exit_to_interrupted(frame: &mut Frame) {
    let cpu = this_cpu();
    if cpu.hardirq_depth.load(Ordering::Relaxed) > 0 || nmi::in_nmi() {
        return;
    }
    call(&SOFTIRQS, frame);
    if frame.interrupts_were_on() {
        call(&PREEMPT, frame);
    }
    if frame.from_user() {
        call(&TO_USER, frame);
    }
}

/// A hard-interrupt handler or an NMI handler runs on this CPU.
pub fn in_hardirq() -> bool {
    this_cpu().hardirq_depth.load(Ordering::Relaxed) > 0 || nmi::in_nmi()
}

/// How many hard-interrupt handlers are nested on this CPU.
pub fn nesting() -> u32 {
    this_cpu().hardirq_depth.load(Ordering::Relaxed)
}

/// This context may wait: it is no handler and no softirq, interrupts are on, and preemption is allowed.
pub fn may_block() -> bool {
    x86_64::instructions::interrupts::are_enabled()
        && !in_hardirq()
        && !softirq::in_softirq()
        && sched::preempt::count() == 0
}

/// To be called by whatever may wait: it is fatal in a context that must not.
pub fn might_sleep() {
    if !may_block() {
        log!("BUG: sleeping function called from invalid context, {} handlers deep", nesting());
        power::die("sleeping function called from invalid context");
    }
}
