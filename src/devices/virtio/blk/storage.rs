//! What a disk is kept on.

use std::io;

use fault::Fault;

/// Bytes at offsets, for several threads at once. All of it may block. Offsets and lengths are multiples of the block size
/// and within the size, unless the driver does not keep to blocks: then an error is due.
pub trait Storage: Send + Sync {
    /// Its size, when it was opened.
    fn bytes(&self) -> u64;
    /// Bytes of a block, a power of two from 512 up.
    fn block_size(&self) -> u32;
    /// Writing is not allowed.
    fn is_read_only(&self) -> bool;
    /// What the guest may know it by, up to 20 bytes.
    fn id(&self) -> &[u8];
    /// Fills `data`.
    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()>;
    /// Writes all of `data`.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Fills `data` if that needs no waiting; false if it would, or fails, or nobody knows. Does not block.
    fn try_read(&self, _offset: u64, _data: &mut [u8]) -> bool {
        false
    }
    /// The same for a write of all of `data`; part of it may be written if this gives false.
    fn try_write(&self, _offset: u64, _data: &[u8]) -> bool {
        false
    }
    /// What was written before stays after a loss of power once this has returned.
    fn flush(&self) -> io::Result<()>;
    /// Nobody needs what is in there any more: it may read as anything.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Makes it zeroes; with `unmap` the space may be given up.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;
}

impl Storage for sys::disk::Disk {
    fn bytes(&self) -> u64 {
        self.bytes()
    }

    fn block_size(&self) -> u32 {
        self.block_size()
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only()
    }

    fn id(&self) -> &[u8] {
        self.id()
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.read_at(offset, data)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_at(offset, data)
    }

    fn try_read(&self, offset: u64, data: &mut [u8]) -> bool {
        self.try_read_at(offset, data)
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> bool {
        self.try_write_at(offset, data)
    }

    fn flush(&self) -> io::Result<()> {
        if fault::is(Fault::FlushForgotten) { Ok(()) } else { self.flush() }
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.discard(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.write_zeroes(offset, len, unmap)
    }
}
