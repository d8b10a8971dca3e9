//! Reads and writes that wait for nothing (preadv2(2), RWF_NOWAIT): from and to the page cache, or not at all.

use std::os::fd::AsRawFd;

use super::Disk;

/// What preadv2 and pwritev2 have in common, but for the direction.
type Call = unsafe extern "C" fn(i32, *const libc::iovec, i32, libc::off_t, i32) -> isize;

impl Disk {
    /// Fills `data`, if that needs no waiting. False: it would, or nobody knows, or it fails; whoever may wait reads again, and
    /// hears of an error. `data` is anything then.
    #[must_use]
    pub fn try_read_at(&self, offset: u64, data: &mut [u8]) -> bool {
        self.try_at(libc::preadv2, offset, libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() })
    }

    /// Writes all of `data`, if that needs no waiting. False: see [`Disk::try_read_at`]; part of it may be written then.
    #[must_use]
    pub fn try_write_at(&self, offset: u64, data: &[u8]) -> bool {
        let base = data.as_ptr().cast_mut().cast();
        self.try_at(libc::pwritev2, offset, libc::iovec { iov_base: base, iov_len: data.len() })
    }

    fn try_at(&self, call: Call, offset: u64, part: libc::iovec) -> bool {
        // Direct I/O waits for the disk, whatever is asked of it.
        let Ok(offset) = i64::try_from(offset) else { return false };
        if self.options.direct {
            return false;
        }
        // SAFETY: `part` is a slice of the caller's, which is borrowed as the direction needs it until this returns; the
        // descriptor is kept open by `file`.
        let count = unsafe { call(self.file.as_raw_fd(), &raw const part, 1, offset, libc::RWF_NOWAIT) };
        usize::try_from(count).is_ok_and(|count| count == part.iov_len)
    }
}
