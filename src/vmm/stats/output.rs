//! Where `--stats` goes.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Snapshot;
use crate::Error;

/// A file of snapshots, one a line; kept over resets of the guest.
pub struct Output {
    /// None once it can't be written any more.
    file: Mutex<Option<Box<dyn Write + Send>>>,
}

impl Output {
    /// Writes to the file at `path`, made anew; to standard output if it is `-`.
    ///
    /// # Errors
    ///
    /// A usage error if the file can't be made.
    pub fn open(path: &Path) -> Result<Arc<Self>, Error> {
        let file: Box<dyn Write + Send> = if path == Path::new("-") {
            Box::new(io::stdout())
        } else {
            Box::new(File::create(path).map_err(|e| {
                Error::Usage(format!("the statistics file {} can't be written: {e}; give another one", path.display()))
            })?)
        };
        Ok(Self::to(file))
    }

    fn to(file: Box<dyn Write + Send>) -> Arc<Self> {
        Arc::new(Self { file: Mutex::new(Some(file)) })
    }

    /// Writes one line; may block. A file that can't be written any more (the disk is full) is given up, with one line in the log,
    /// and the machine goes on.
    pub fn write(&self, snapshot: &Snapshot) {
        let mut guard = self.file.lock();
        let Some(file) = guard.as_mut() else { return };
        if let Err(e) = file.write_all(&snapshot.to_line()).and_then(|()| file.flush()) {
            log::error!("the statistics can't be written any more: {e}; the file ends early");
            *guard = None;
        }
    }
}
