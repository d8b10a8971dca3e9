//! Whose process this is.

/// The effective user ID.
pub fn effective() -> u32 {
    // SAFETY: takes nothing, changes nothing, and can't fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    /// The kernel makes a process's folder its effective user's.
    #[test]
    fn the_effective_user_owns_its_process() {
        let own = std::fs::metadata("/proc/self").expect("/proc").uid();
        assert_eq!(own, super::effective());
    }
}
