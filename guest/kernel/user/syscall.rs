//! System calls: what a program can ask for, by `int 0x80`.
//!
//! The number is in RAX, arguments are in RBX, RCX and RDX, the result comes back in RAX: negative for an error. Numbers are those of the
//! 32-bit calls of Linux, which use the same gate.
//!
//! To read more: syscalls(2); Linux, arch/x86/entry/syscalls/syscall_32.tbl.

use core::sync::atomic::Ordering;

use super::signal;
use crate::arch::frame::Frame;
use crate::arch::uaccess::copy_from_user;
use crate::sched::{self, Task, sleep};
use crate::time::clock;

const EXIT: u64 = 1;
const WRITE: u64 = 4;
const GETPID: u64 = 20;
const PAUSE: u64 = 29;
const KILL: u64 = 37;
const SCHED_YIELD: u64 = 158;
const RT_SIGRETURN: u64 = 173;
const RT_SIGACTION: u64 = 174;
const RT_SIGPROCMASK: u64 = 175;
const CLOCK_GETTIME: u64 = 265;

const ESRCH: i64 = -3;
const EINTR: i64 = -4;
const EFAULT: i64 = -14;
const EINVAL: i64 = -22;
const ENOSYS: i64 = -38;

/// The longest line that a program can write.
const LINE_MAX: usize = 200;

/// Carries out the call. The error is the exit code of a program that ends.
pub(super) fn dispatch(frame: &mut Frame) -> Result<(), i32> {
    let Some(task) = sched::this_task() else { return Ok(()) };
    task.system_calls.fetch_add(1, Ordering::Relaxed);
    let (first, second, third) = (frame.rbx, frame.rcx, frame.rdx);
    let result = match frame.rax {
        EXIT => return Err(first as i32 & 0xff),
        RT_SIGRETURN => return signal::sigreturn(frame),
        WRITE => write(second, third),
        GETPID => task.pid.into(),
        PAUSE => pause(task),
        KILL => kill(first, second),
        SCHED_YIELD => {
            sched::yield_now();
            0
        }
        RT_SIGACTION => {
            if task.signals.set_handler(first, second, third) {
                0
            } else {
                EINVAL
            }
        }
        RT_SIGPROCMASK => task.signals.set_blocked(first as u32).into(),
        CLOCK_GETTIME => clock::monotonic() as i64,
        _ => ENOSYS,
    };
    frame.rax = result as u64;
    Ok(())
}

fn write(address: u64, length: u64) -> i64 {
    let mut line = [0; LINE_MAX];
    let length = length.min(LINE_MAX as u64) as usize;
    if copy_from_user(&mut line[..length], address).is_err() {
        return EFAULT;
    }
    match core::str::from_utf8(&line[..length]) {
        Ok(text) => {
            crate::log!("{text}");
            length as i64
        }
        Err(_) => EINVAL,
    }
}

fn kill(pid: u64, number: u64) -> i64 {
    let Some(task) = sched::find_task(pid as u32) else { return ESRCH };
    if !(1..32).contains(&number) {
        return EINVAL;
    }
    signal::send(&task, number as u8);
    0
}

/// Waits for a signal that is not blocked.
fn pause(task: &Task) -> i64 {
    loop {
        sleep::prepare(task);
        if signal::is_waiting_here() {
            break;
        }
        sched::schedule();
    }
    sleep::cancel(task);
    EINTR
}
