//! The machines that run: a socket for each, in a folder that is this user's alone.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vmm::stats::{FORMAT, Snapshot, VERSION};

/// How long a machine may take to answer. One that is stopped (SIGSTOP) does not hold up the others for longer.
const PATIENCE: Duration = Duration::from_millis(500);
/// The same for one that has not answered before.
const NO_PATIENCE: Duration = Duration::from_millis(1);
/// The longest answer that is read.
const LONGEST: usize = 64 << 20;

/// What a look has found.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    /// Of each machine that has answered, by process.
    pub machines: Vec<Snapshot>,
    /// Processes that are there and have not answered in time.
    pub silent: Vec<u32>,
}

/// Looks for machines. One that does not answer is not asked again, but heard when it does: more questions than its socket has
/// places for would have us wait for it.
pub struct Finder {
    folder: PathBuf,
    asked: BTreeMap<PathBuf, Question>,
}

struct Question {
    stream: UnixStream,
    answer: Vec<u8>,
}

enum Answer {
    Machine(Box<Snapshot>),
    /// Of nobody, or of a program that we don't understand.
    None,
    NotYet,
}

impl Finder {
    /// Of machines whose sockets are in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, asked: BTreeMap::new() }
    }

    /// Asks all machines. Sockets that nobody listens at any more are removed; a machine of another version is left out.
    ///
    /// # Errors
    ///
    /// When the folder is not this user's alone, or can't be read. One that is not there has no machines.
    pub fn look(&mut self) -> Result<Found, String> {
        let mut found = Found::default();
        let mut before = std::mem::take(&mut self.asked);
        for path in sockets(&self.folder)? {
            let (question, patience) = match before.remove(&path) {
                Some(question) => (Some(question), NO_PATIENCE),
                None => (ask(&path), PATIENCE),
            };
            let Some(mut question) = question else { continue };
            match question.hear(patience) {
                Answer::Machine(snapshot) => found.machines.push(*snapshot),
                Answer::None => {}
                Answer::NotYet => {
                    found.silent.extend(process(&path));
                    self.asked.insert(path, question);
                }
            }
        }
        found.machines.sort_by_key(|snapshot| snapshot.pid);
        Ok(found)
    }
}

fn sockets(folder: &Path) -> Result<Vec<PathBuf>, String> {
    match vmm::stats::check(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e.to_string()),
        Ok(()) => {}
    }
    let entries =
        fs::read_dir(folder).map_err(|e| format!("{} can't be read: {e}; see who owns it", folder.display()))?;
    let mut sockets: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    sockets.retain(|path| path.extension().is_some_and(|extension| extension == "sock"));
    sockets.sort();
    Ok(sockets)
}

/// The process in a socket's name.
fn process(path: &Path) -> Option<u32> {
    path.file_stem()?.to_str()?.split('-').next()?.parse().ok()
}

fn ask(path: &Path) -> Option<Question> {
    match UnixStream::connect(path) {
        Ok(stream) => Some(Question { stream, answer: Vec::new() }),
        Err(e) => {
            if e.kind() == io::ErrorKind::ConnectionRefused {
                // Its process was killed.
                let _ = fs::remove_file(path);
            }
            None
        }
    }
}

impl Question {
    fn hear(&mut self, patience: Duration) -> Answer {
        let end = Instant::now() + patience;
        let mut part = [0; 1 << 16];
        while self.answer.len() < LONGEST {
            let left = end.saturating_duration_since(Instant::now());
            // A time of zero would be no limit at all.
            if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
                return Answer::NotYet;
            }
            match self.stream.read(&mut part) {
                Ok(0) => break,
                Ok(count) => self.answer.extend_from_slice(&part[..count]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Answer::NotYet;
                }
                Err(_) => return Answer::None,
            }
        }
        match serde_json::from_slice::<Snapshot>(&self.answer) {
            Ok(snapshot) if snapshot.format == FORMAT && snapshot.version == VERSION => {
                Answer::Machine(Box::new(snapshot))
            }
            _ => Answer::None,
        }
    }
}
