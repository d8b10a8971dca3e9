//! Signals: how a program is told that something has happened to it.
//!
//! A signal is **pending** until the program's thread is on its way to ring 3. Then its **handler** runs: the kernel puts the
//! registers on the program's stack and lets ring 3 go on at the handler, whose return address leads to a system call that loads
//! the registers again. Without a handler the program ends. While a handler runs, its signal is **blocked**. An exception in ring 3
//! becomes a signal that can't be put off: if it is blocked, or has no handler, the program ends, and the kernel goes on.
//!
//! To read more: signal(7), sigreturn(2); Bovet and Cesati, "Understanding the Linux Kernel", table "Signals sent by the exception
//! handlers".

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::arch::frame::{FLAG_ALWAYS, FLAG_IF, Frame};
use crate::arch::gdt::{USER_CS, USER_DS};
use crate::arch::percpu;
use crate::arch::uaccess::{copy_from_user, copy_to_user};
use crate::sched::{self, Task};
use crate::smp;

/// Signals that this kernel sends, by their usual numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "signals by name")]
pub enum Signal {
    Ill = 4,
    Trap = 5,
    Bus = 7,
    Fpe = 8,
    Kill = 9,
    Usr1 = 10,
    Segv = 11,
    Usr2 = 12,
    Term = 15,
}

/// How many numbers there are.
const COUNT: usize = 32;

impl Signal {
    /// What a program that causes an exception gets.
    pub fn of_exception(vector: u8) -> Self {
        match vector {
            0 | 9 | 16 | 19 => Self::Fpe,
            1 | 3 => Self::Trap,
            6 => Self::Ill,
            11 | 12 | 17 => Self::Bus,
            // Overflow, bounds, invalid TSS, general protection, page fault, and whatever has no signal of its own.
            _ => Self::Segv,
        }
    }
}

/// The signals of a thread.
#[derive(Default)]
pub struct Signals {
    pending: AtomicU32,
    blocked: AtomicU32,
    /// Address of each handler, 0 for none.
    handlers: [AtomicU64; COUNT],
    /// Where handlers return to.
    restorers: [AtomicU64; COUNT],
}

/// Registers as they lie on the program's stack while a handler runs.
#[derive(Default)]
#[repr(C)]
struct SignalFrame {
    restorer: u64,
    frame: Frame,
    blocked: u64,
}

/// As words, which is how ring 3's memory is copied.
type Words = [u8; size_of::<SignalFrame>()];

impl Signals {
    fn next(&self) -> Option<usize> {
        let ready = self.pending.load(Ordering::SeqCst) & !self.blocked.load(Ordering::SeqCst);
        (ready != 0).then(|| ready.trailing_zeros() as usize)
    }

    /// Sets what happens with a signal; false if it is not to be changed.
    pub(super) fn set_handler(&self, number: u64, handler: u64, restorer: u64) -> bool {
        let valid = (1..COUNT as u64).contains(&number) && number != Signal::Kill as u64;
        if valid {
            self.handlers[number as usize].store(handler, Ordering::Relaxed);
            self.restorers[number as usize].store(restorer, Ordering::Relaxed);
        }
        valid
    }

    /// Sets which signals are blocked, a bit each, and gives which were.
    pub(super) fn set_blocked(&self, mask: u32) -> u32 {
        self.blocked.swap(mask & !(1 << Signal::Kill as u8), Ordering::SeqCst)
    }
}

/// Sends a signal to a thread (kill). If it waits for signals it is woken; if it is in ring 3 on another CPU, an interrupt brings
/// it into the kernel.
pub fn send(task: &Arc<Task>, number: u8) {
    task.signals.pending.fetch_or(1 << (number & 31), Ordering::SeqCst);
    sched::wake(task);
    if let Some(cpu) = percpu::cpu(task.cpu()) {
        smp::send_reschedule(cpu);
    }
}

/// The present thread has one to deliver.
pub(crate) fn is_waiting_here() -> bool {
    sched::this_task().is_some_and(|task| task.signals.next().is_some())
}

/// An exception of the present program: delivered next, or the end.
pub(super) fn force(signal: Signal) {
    let Some(task) = sched::this_task() else { return };
    let (signals, bit) = (&task.signals, 1 << signal as u8);
    if signals.blocked.fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
        signals.handlers[signal as usize].store(0, Ordering::Relaxed);
    }
    signals.pending.fetch_or(bit, Ordering::SeqCst);
}

/// On the way to ring 3: lets the program's handlers run, or ends it, with the exit code as the error.
pub(super) fn deliver(frame: &mut Frame) -> Result<(), i32> {
    let Some(task) = sched::this_task() else { return Ok(()) };
    let signals = &task.signals;
    while let Some(number) = signals.next() {
        signals.pending.fetch_and(!(1 << number), Ordering::SeqCst);
        let handler = signals.handlers[number].load(Ordering::Relaxed);
        if handler == 0 {
            return Err(128 + number as i32);
        }
        let restorer = signals.restorers[number].load(Ordering::Relaxed);
        let blocked = signals.blocked.fetch_or(1 << number, Ordering::SeqCst);
        let saved = SignalFrame { restorer, frame: *frame, blocked: blocked.into() };
        // Below the red zone, and as if called: the return address at a multiple of 16, less 8.
        let rsp = (frame.rsp.wrapping_sub(128 + size_of::<SignalFrame>() as u64) & !15).wrapping_sub(8);
        if copy_to_user(rsp, &saved.to_bytes()).is_err() {
            return Err(128 + Signal::Segv as i32);
        }
        *frame = Frame {
            rip: handler,
            rsp,
            rdi: number as u64,
            rsi: rsp + 8,
            cs: USER_CS.into(),
            ss: USER_DS.into(),
            rflags: FLAG_IF | FLAG_ALWAYS,
            ..Frame::default()
        };
    }
    Ok(())
}

/// The handler has returned to its restorer, which makes this system call: the registers are again what they were, save what ring 3 must not
/// choose.
pub(super) fn sigreturn(frame: &mut Frame) -> Result<(), i32> {
    /// Arithmetic flags, trap, direction, alignment check.
    const OWN_FLAGS: u64 = 0x4_0dd5;
    let mut bytes: Words = [0; size_of::<SignalFrame>()];
    if copy_from_user(&mut bytes, frame.rsp.wrapping_sub(8)).is_err() {
        return Err(128 + Signal::Segv as i32);
    }
    let saved = SignalFrame::from_bytes(&bytes);
    *frame = saved.frame;
    (frame.cs, frame.ss) = (USER_CS.into(), USER_DS.into());
    frame.rflags = (frame.rflags & OWN_FLAGS) | FLAG_IF | FLAG_ALWAYS;
    if let Some(task) = sched::this_task() {
        task.signals.set_blocked(saved.blocked as u32);
    }
    Ok(())
}

impl SignalFrame {
    fn to_bytes(&self) -> Words {
        // SAFETY: the structure is nothing but words, without gaps; any bytes are a value of either type.
        unsafe { core::mem::transmute_copy(self) }
    }

    fn from_bytes(bytes: &Words) -> Self {
        // SAFETY: as above; the copy is not aligned.
        unsafe { core::ptr::read_unaligned(bytes.as_ptr().cast()) }
    }
}
