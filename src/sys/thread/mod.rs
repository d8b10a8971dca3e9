//! Threads: their names, as `top -H` shows them, and how many may run at once.

use std::ffi::CString;

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

/// How many CPUs this process may use at once (affinity and cgroup quota counted), at least 1.
pub fn online_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}
