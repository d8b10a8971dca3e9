//! Processes that this one starts.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::check;

#[cfg(test)]
mod tests;

/// Has the kernel kill (SIGKILL) what `command` starts when the thread that starts it ends, however that happens: prctl(2),
/// PR_SET_PDEATHSIG. A program that changes its credentials loses this.
pub fn dies_with_its_parent(command: &mut Command) {
    let parent = std::process::id();
    let ask = move || {
        // SAFETY: two system calls without pointers, which may be made between fork and exec; nothing is allocated.
        let (asked, now) = unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), libc::getppid()) };
        check(asked)?;
        // It may have ended before it could be asked for.
        if u32::try_from(now) == Ok(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: the closure touches nothing that another thread could hold at the moment of the fork.
    unsafe { command.pre_exec(ask) };
}
