//! Safe wrappers of the system calls Tophalf needs, and nothing else: clocks, futexes, the signal that kicks a vCPU
//! out of the guest, timers aimed at a thread, signals as readable events, terminals, what descriptors are ready for, disks.
//!
//! Follows the Linux man pages futex(2), timer_create(2), tgkill(2), signalfd(2), termios(3), pty(7), inotify(7) and
//! poll(2). Every time is in nanoseconds of CLOCK_MONOTONIC unless it says otherwise. It knows nothing of KVM, chips or
//! devices.

// One of the two homes of `unsafe` (the other is `src/kvm`): each block is one system call or the one pointer that a
// signal handler reads, with its SAFETY line; nothing unsafe is reachable through the public functions.
#![allow(unsafe_code)]

pub mod calls;
pub mod child;
pub mod clock;
pub mod disk;
pub mod futex;
pub mod kick;
pub mod poll;
pub mod pty;
pub mod random;
pub mod signal;
pub mod tap;
pub mod terminal;
pub mod thread;
pub mod timer;
pub mod user;

use std::io;

/// Turns the `-1` of a system call into the error in `errno`.
fn check(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret == -1 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}
