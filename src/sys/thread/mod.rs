//! Threads: their names, as `top -H` shows them, where they run, and how many may run at once.

use std::ffi::CString;
use std::io;

use crate::check;

#[cfg(test)]
mod tests;

/// Names the calling thread. The kernel keeps 15 bytes; the rest is cut off, as is everything from a NUL on.
pub fn set_name(name: &str) {
    let bytes: Vec<u8> = name.bytes().take(15).take_while(|&b| b != 0).collect();
    if let Ok(name) = CString::new(bytes) {
        // SAFETY: PR_SET_NAME reads up to 16 bytes of a NUL-terminated string that lives across the call.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }
}

/// The calling thread's name, at most 15 bytes.
pub fn name() -> String {
    let mut bytes = [0_u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, the terminating NUL included, to a place of that size.
    unsafe { libc::prctl(libc::PR_GET_NAME, bytes.as_mut_ptr()) };
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Sets the calling thread's nice value: -20 (first) to 19 (last). Less than before needs a privilege.
pub fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: setpriority takes integers only; 0 means the calling thread.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }).map(drop)
}

/// How many CPUs this process may use at once (affinity and cgroup quota counted), at least 1.
pub fn online_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Lets the calling thread run on these CPUs only, and what it starts from here on as well: threads and programs inherit it.
pub fn run_on_cpus(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: all zero bits are an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        if cpu >= libc::CPU_SETSIZE as usize {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: the number is within the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: reads the set, whose size it is told; 0 means the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) }).map(drop)
}
