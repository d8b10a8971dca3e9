//! Requesting, freeing, enabling, disabling.
//!
//! Disabling nests. It is lazy: the line is masked only when an interrupt does come, so that an edge is noted and can be sent again when
//! the number is enabled.
//!
//! To read more: Linux, kernel/irq/manage.c, kernel/irq/resend.c.

use super::chip::{self, Chip};
use super::desc::{self, Action, Desc, FIRST_DYNAMIC, Handler, NR_IRQS, State};
use super::flow::{self, Flow};
use super::thread;
use crate::arch::vectors;
use crate::sched;
use crate::sync::without_interrupts;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IrqError {
    /// No such number, or nothing was set up for it.
    NoSuchIrq,
    /// It is in use, and not by users who all share.
    Busy,
    /// No number, vector or such is left.
    Exhausted,
    /// No user with this device word.
    NotRequested,
    /// The chip can't do that.
    Unsupported,
}

fn descriptor(irq: u32) -> Result<&'static Desc, IrqError> {
    desc::desc(irq).ok_or(IrqError::NoSuchIrq)
}

/// Gives a number its chip, its flow, its trigger mode and the CPUs that it may go to; nobody may be using it. A vector is found for
/// it unless it is the 8259A's, whose vectors are fixed.
pub fn set_up(irq: u32, chip: Chip, flow: Flow, level: bool, cpus: u32) -> Result<(), IrqError> {
    let desc = descriptor(irq)?;
    let mut inner = desc.inner.lock();
    if !inner.actions.is_empty() {
        return Err(IrqError::Busy);
    }
    release_vector(inner.vector);
    inner.vector = 0;
    let vector = match chip {
        Chip::None | Chip::Software => 0,
        Chip::Pic(input) => {
            let vector = crate::chips::i8259::VECTOR_BASE + input;
            if !vectors::claim(vector, flow::common_interrupt) {
                return Err(IrqError::Exhausted);
            }
            vector
        }
        Chip::IoApic(_) | Chip::Msi => vectors::allocate(flow::common_interrupt).ok_or(IrqError::Exhausted)?,
    };
    if vector != 0 {
        desc::set_irq_of(vector, Some(irq));
    }
    (inner.chip, inner.flow, inner.vector, inner.affinity) = (chip, flow, vector, cpus);
    inner.state = State::DISABLED | State::MASKED;
    inner.state.set(State::LEVEL, level);
    (inner.depth, inner.judged, inner.unhandled, inner.threads) = (1, 0, 0, 0);
    desc.clear_counts();
    chip.mask();
    chip.set_up(vector, level, cpus);
    Ok(())
}

fn release_vector(vector: u8) {
    if vector != 0 {
        desc::set_irq_of(vector, None);
        vectors::release(vector);
    }
}

/// Takes the number apart: no chip, no vector. Nobody may be using it.
pub fn tear_down(irq: u32) -> Result<(), IrqError> {
    let mut inner = descriptor(irq)?.inner.lock();
    if !inner.actions.is_empty() {
        return Err(IrqError::Busy);
    }
    inner.chip.mask();
    release_vector(inner.vector);
    (inner.chip, inner.flow, inner.vector) = (Chip::None, Flow::Bad, 0);
    inner.state = State::DISABLED | State::MASKED;
    inner.depth = 1;
    Ok(())
}

/// Sets up a pin of the I/O APIC with the flow that suits its trigger mode, for the first CPU.
pub fn set_up_pin(pin: u8, level: bool) -> Result<(), IrqError> {
    let flow = if level { Flow::FastEoi } else { Flow::Edge };
    set_up(pin.into(), Chip::IoApic(pin), flow, level, 1)
}

/// Finds a free number for messages or software and sets it up.
pub fn create(chip: Chip, flow: Flow, cpus: u32) -> Result<u32, IrqError> {
    for irq in FIRST_DYNAMIC..NR_IRQS as u32 {
        let free = descriptor(irq)?.inner.lock().chip == Chip::None;
        if free {
            return set_up(irq, chip, flow, false, cpus).map(|()| irq);
        }
    }
    Err(IrqError::Exhausted)
}

/// Adds a user; the first one enables the number. The first one with a thread has the number's thread made; to be called where
/// waiting is allowed.
pub fn request(irq: u32, action: Action) -> Result<(), IrqError> {
    if action.thread.is_none() {
        return add(irq, action);
    }
    let cpus = descriptor(irq)?.affinity();
    thread::start(irq, cpus);
    let result = add(irq, action);
    end_thread_if_unused(irq)?;
    result
}

/// The last user with a thread is gone.
fn end_thread_if_unused(irq: u32) -> Result<(), IrqError> {
    let is_used = descriptor(irq)?.inner.lock().actions.iter().any(|action| action.thread.is_some());
    if !is_used {
        thread::stop(irq);
    }
    Ok(())
}

fn add(irq: u32, action: Action) -> Result<(), IrqError> {
    let mut inner = descriptor(irq)?.inner.lock();
    if inner.flow == Flow::Bad {
        return Err(IrqError::NoSuchIrq);
    }
    let first = inner.actions.is_empty();
    let all_share = action.shared && inner.actions.iter().all(|other| other.shared);
    if !first && !all_share {
        return Err(IrqError::Busy);
    }
    if inner.actions.len() >= u32::BITS as usize {
        return Err(IrqError::Exhausted);
    }
    inner.actions.push(action);
    if first {
        inner.depth = 0;
        inner.state -= State::DISABLED | State::PENDING | State::SPURIOUS_DISABLED;
        inner.unmask();
    }
    Ok(())
}

/// As [`request`], for a user alone and without a thread.
pub fn request_simply(irq: u32, handler: Handler, name: &'static str) -> Result<(), IrqError> {
    request(irq, Action { handler, thread: None, device: 0, name, shared: false })
}

/// Removes the user with this device word; the last one disables the number. When it returns, neither its handler nor its thread is running
/// anywhere. Not to be called from a handler or its thread.
pub fn free(irq: u32, device: usize) -> Result<(), IrqError> {
    let desc = descriptor(irq)?;
    let mut result = Ok(());
    sched::wait_until(|| {
        let mut inner = desc.inner.lock();
        if inner.state.contains(State::INPROGRESS) || inner.threads != 0 {
            return false;
        }
        match inner.actions.iter().position(|action| action.device == device) {
            Some(at) => inner.remove(at),
            None => result = Err(IrqError::NotRequested),
        }
        true
    });
    result.and_then(|()| end_thread_if_unused(irq))
}

/// Disables the number once more, without waiting for a handler that runs.
pub fn disable_nosync(irq: u32) -> Result<(), IrqError> {
    let mut inner = descriptor(irq)?.inner.lock();
    inner.depth += 1;
    inner.state |= State::DISABLED;
    Ok(())
}

/// Disables the number once more; when it returns, no handler is running. Not to be called from a handler.
pub fn disable(irq: u32) -> Result<(), IrqError> {
    disable_nosync(irq)?;
    synchronize(irq)
}

/// Waits until no handler of the number is running anywhere.
pub fn synchronize(irq: u32) -> Result<(), IrqError> {
    let desc = descriptor(irq)?;
    while desc.state().contains(State::INPROGRESS) {
        core::hint::spin_loop();
    }
    Ok(())
}

/// Takes back one [`disable`]. With the last, an interrupt that came meanwhile is sent again.
pub fn enable(irq: u32) -> Result<(), IrqError> {
    let mut inner = descriptor(irq)?.inner.lock();
    if inner.depth == 0 {
        crate::log!("unbalanced enable for irq {irq}");
        return Ok(());
    }
    inner.depth -= 1;
    if inner.depth > 0 || inner.actions.is_empty() {
        return Ok(());
    }
    inner.state -= State::DISABLED | State::SPURIOUS_DISABLED;
    (inner.judged, inner.unhandled) = (0, 0);
    inner.unmask();
    // A level that is still up comes by itself.
    if inner.state.contains(State::PENDING) && !inner.state.contains(State::LEVEL) {
        inner.state -= State::PENDING;
        let (chip, vector, cpus) = (inner.chip, inner.vector, inner.affinity);
        drop(inner);
        match chip {
            Chip::Software => without_interrupts(|| flow::generic_handle_irq(irq)),
            chip => chip.retrigger(vector, cpus),
        }
    }
    Ok(())
}

/// Changes the CPUs that the number may go to.
pub fn set_affinity(irq: u32, cpus: u32) -> Result<(), IrqError> {
    let mut inner = descriptor(irq)?.inner.lock();
    let level = inner.state.contains(State::LEVEL);
    if cpus == 0 || !inner.chip.set_affinity(inner.vector, level, cpus) {
        return Err(IrqError::Unsupported);
    }
    inner.affinity = cpus;
    Ok(())
}

/// Address and data of the message of a number; for devices, and for the test agent.
pub fn message(irq: u32) -> Result<(u32, u32), IrqError> {
    let inner = descriptor(irq)?.inner.lock();
    if inner.chip == Chip::Msi { Ok(chip::message(inner.vector, inner.affinity)) } else { Err(IrqError::Unsupported) }
}

/// Runs the threads of the number whose handlers asked for it, in a context that may wait; then the line is free again. Returns how
/// many ran.
pub(super) fn run_threads(irq: u32) -> Result<u32, IrqError> {
    let desc = descriptor(irq)?;
    let mut ran = 0;
    loop {
        let mut inner = desc.inner.lock();
        let threads = inner.threads;
        if threads == 0 {
            return Ok(ran);
        }
        let n = threads.trailing_zeros();
        let action = inner.actions.get(n as usize).copied();
        drop(inner);
        if let Some(Action { thread: Some(thread), device, .. }) = action {
            thread(irq, device);
            ran += 1;
        }
        inner = desc.inner.lock();
        inner.threads &= !(1 << n);
        if inner.threads == 0 && !inner.disabled() {
            inner.unmask();
            // An edge that came while the line was held back.
            if inner.state.contains(State::PENDING) && !inner.state.contains(State::LEVEL) {
                inner.state -= State::PENDING;
                let (chip, vector, cpus) = (inner.chip, inner.vector, inner.affinity);
                drop(inner);
                chip.retrigger(vector, cpus);
            }
        }
    }
}
