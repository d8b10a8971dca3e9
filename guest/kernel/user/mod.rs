//! Programs: threads that spend their time in ring 3. Made and ended at run time.
//!
//! A program's thread enters ring 3 ([`crate::arch::user::run`]) and gets back into the kernel with a system call, an exception, or
//! because a signal has come for it; it deals with that and enters again. On the way, in this order: another thread runs if one
//! should ([`crate::sched`]), then signals are delivered ([`signal`]), then ring 3 goes on.
//!
//! A program is a page of machine code and a page for data and stack. All programs share one address space, each with a place of
//! its own.
//!
//! To read more: Linux, kernel/entry/common.c (exit_to_user_mode_loop); Bovet and Cesati, "Understanding the Linux Kernel",
//! "Returning from Interrupts and Exceptions".

pub mod programs;
pub mod signal;
pub mod syscall;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::arch::frame::Frame;
use crate::arch::paging::{self, Flags, PAGE, USER_BASE};
use crate::arch::user::{self, Context, INTERRUPTED};
use crate::arch::{fpu, uaccess, vectors};
use crate::irq::entry;
use crate::sched::task::kthread_run;
use crate::sched::{self, Priority, Task, preempt};
use crate::smp::tlb;
use signal::Signal;

/// The first place for programs: below are those that tests enter by hand.
const FIRST_PLACE: u64 = 64;
/// Places.
const PLACES: u64 = 64;
/// Pages of a place: code, data and stack, and two where nothing is mapped.
const SPAN: u64 = 4 * PAGE;

/// Places in use, a bit each.
static IN_USE: AtomicU64 = AtomicU64::new(0);

/// Hooks programs into the way out of interrupts.
pub(crate) fn init() {
    entry::set_user_hook(on_exit_to_user);
}

/// The way out of an interrupt of ring 3: for a signal the program's thread goes back to its loop.
fn on_exit_to_user(frame: &mut Frame) {
    if signal::is_waiting_here() {
        user::interrupt(frame);
    }
}

/// A program's memory; given back when dropped.
struct Memory {
    place: u64,
    code: u64,
}

impl Memory {
    /// Copies the code to a free place; `None` if there is none, no memory, or the code is longer than a page.
    fn new(machine_code: &[u8]) -> Option<Self> {
        if machine_code.len() as u64 > PAGE {
            return None;
        }
        let free = |used: u64| (!used != 0).then(|| used | 1 << (!used).trailing_zeros());
        let used = IN_USE.fetch_update(Ordering::AcqRel, Ordering::Relaxed, free).ok()?;
        let place = u64::from((!used).trailing_zeros()) % PLACES;
        let memory = Self { place, code: USER_BASE + (FIRST_PLACE + place) * SPAN };
        paging::map_new(memory.code, Flags::USER | Flags::WRITABLE)?;
        paging::map_new(memory.data(), Flags::USER | Flags::WRITABLE | Flags::NO_EXECUTE)?;
        uaccess::copy_to_user(memory.code, machine_code).ok()?;
        Some(memory)
    }

    fn data(&self) -> u64 {
        self.code + PAGE
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for address in [self.code, self.data()] {
            let Some((page, _)) = paging::lookup(address) else { continue };
            paging::unmap(address);
            tlb::shoot_down(address);
            // SAFETY: it was allocated by `map_new`, and no CPU knows its mapping any more.
            unsafe { paging::free_page(page) };
        }
        IN_USE.fetch_and(!(1 << self.place), Ordering::AcqRel);
    }
}

/// Makes a program on a CPU and starts it: RDI and RSI are `arguments`, RDX is where its page of data begins, RSP where it ends.
/// `None` without memory. Its exit code is what it says, or 128 and the number of the signal that ended it.
pub fn exec(name: &str, cpu: usize, machine_code: &[u8], arguments: [u64; 2]) -> Option<Arc<Task>> {
    let memory = Memory::new(machine_code)?;
    Some(kthread_run(name, cpu, Priority::Normal, move || run(&memory, arguments)))
}

/// What a program's thread does.
fn run(memory: &Memory, arguments: [u64; 2]) -> i32 {
    let mut context = Context::new(memory.code, memory.data() + PAGE - 16);
    let frame = &mut context.frame;
    (frame.rdi, frame.rsi, frame.rdx) = (arguments[0], arguments[1], memory.data());
    if let Some(task) = sched::this_task() {
        fpu::begin_program(task);
    }
    loop {
        preempt::check();
        if let Err(code) = signal::deliver(&mut context.frame) {
            return code;
        }
        user::run(&mut context);
        let vector = context.frame.vector;
        if vector == INTERRUPTED {
            continue;
        }
        if vector == u64::from(vectors::SYSTEM_CALL) || is_system_call(&mut context.frame) {
            if let Err(code) = syscall::dispatch(&mut context.frame) {
                return code;
            }
        } else {
            signal::force(Signal::of_exception(vector as u8));
        }
    }
}

/// Some hosts that run ring 3 by themselves do not know the kernel's gates: there `int 0x80` is an invalid opcode.
fn is_system_call(frame: &mut Frame) -> bool {
    let mut code = [0; 2];
    let is = frame.vector == u64::from(x86::vector::INVALID_OPCODE)
        && uaccess::copy_from_user(&mut code, frame.rip).is_ok()
        && code == [0xcd, vectors::SYSTEM_CALL];
    if is {
        frame.rip += 2;
    }
    is
}
