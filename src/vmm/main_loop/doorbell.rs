//! How other threads get the main loop to do something: one word of requests, one eventfd.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sys::calls::{self, Call};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// What the main loop can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Request {
    /// The serial port has output, or room for input.
    Serial = 1,
    /// The machine has stopped.
    Stop = 2,
    /// Softirqs of the main loop's CPU are pending.
    Softirqs = 4,
    /// Other descriptors of the console are to be watched.
    Watch = 8,
    /// The log is to say where the vCPUs are.
    Dump = 16,
}

/// The word and the eventfd behind it; requests merge until they are taken.
pub struct Doorbell {
    requests: AtomicU32,
    event: EventFd,
}

impl Doorbell {
    /// A doorbell; fails if the host gives no eventfd.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { requests: AtomicU32::new(0), event: EventFd::new(EFD_NONBLOCK)? }))
    }

    /// Asks for `request`. Never blocks.
    pub fn ring(&self, request: Request) {
        if self.requests.fetch_or(request as u32, Ordering::AcqRel) == 0 {
            calls::made(Call::Event);
            // Only a counter near 2^64 could refuse.
            if let Err(e) = self.event.write(1) {
                log::error!("main loop can't be woken: {e}");
            }
        }
    }

    /// Takes the requests.
    pub fn take(&self) -> Requests {
        // First the eventfd, then the word: a request in between rings again. An empty eventfd is no error.
        let _ = self.event.read();
        Requests(self.requests.swap(0, Ordering::AcqRel))
    }
}

impl AsRawFd for Doorbell {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

/// Requests taken.
#[derive(Debug, Clone, Copy)]
pub struct Requests(u32);

impl Requests {
    /// Whether `request` is among them.
    pub fn contains(self, request: Request) -> bool {
        self.0 & request as u32 != 0
    }
}
