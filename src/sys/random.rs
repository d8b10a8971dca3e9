//! The kernel's random numbers: getrandom(2).

/// Fills `bytes`; false when the kernel has no entropy yet. Does not block.
pub fn fill(bytes: &mut [u8]) -> bool {
    let mut done = 0;
    while let rest @ [_, ..] = &mut bytes[done..] {
        // SAFETY: the pointer and the length are those of `rest`, which is ours to write.
        let count = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), libc::GRND_NONBLOCK) };
        match usize::try_from(count) {
            Ok(count) => done += count,
            Err(_) if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_differ() {
        let (mut first, mut second) = ([0; 1000], [0; 1000]);
        assert!(fill(&mut first) && fill(&mut second) && fill(&mut []));
        assert_ne!(first, second);
    }
}
