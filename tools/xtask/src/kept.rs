//! What comes on a stream, kept, for whoever reads it when all is over.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Keeps what is written to it. Clones share it.
#[derive(Clone, Default)]
pub struct Kept {
    bytes: Arc<Mutex<Vec<u8>>>,
    shown: bool,
}

impl Kept {
    /// One that shows it on stderr as well, as it comes.
    pub fn and_shown() -> Self {
        Self { shown: true, ..Self::default() }
    }

    /// All of it so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        if self.shown {
            io::stderr().write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
