//! `--disk`.

use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use sys::disk::{Disk, Options};

use crate::Error;

/// A disk as the command line gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskConfig {
    /// The image or the block device.
    pub path: PathBuf,
    /// The guest can't write it.
    pub read_only: bool,
    /// The host's page cache is kept out of the way.
    pub direct: bool,
}

impl FromStr for DiskConfig {
    type Err = Error;

    /// A path, and behind commas `ro` and `direct`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split(',');
        let path = parts.next().filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| Error::Usage(format!("--disk {text:?} names no file; give --disk PATH")))?;
        let mut disk = Self { path: path.into(), read_only: false, direct: false };
        for option in parts {
            match option {
                "ro" => disk.read_only = true,
                "direct" => disk.direct = true,
                _ => {
                    return Err(Error::Usage(format!(
                        "--disk {text:?}: there is no option {option:?}; give ro or direct, and no comma in the path"
                    )));
                }
            }
        }
        Ok(disk)
    }
}

impl DiskConfig {
    /// Opens it.
    pub fn open(&self) -> Result<Disk, Error> {
        let Self { ref path, read_only, direct } = *self;
        Disk::open(path, Options { read_only, direct }).map_err(|e| {
            let remedy = match e.kind() {
                io::ErrorKind::NotFound => "give --disk a file that is there",
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if !read_only => {
                    "make it writable, or add ',ro'"
                }
                io::ErrorKind::PermissionDenied => "make it readable",
                io::ErrorKind::InvalidInput if direct => "leave out ',direct', which its file system does not have",
                _ => "check --disk",
            };
            Error::Usage(format!("cannot use the disk {}: {e}; {remedy}", path.display()))
        })
    }
}
