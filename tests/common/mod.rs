//! What the integration tests share: scratch files, a minimal bzImage, and running the program under an overall limit.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// After this long a child has hung. A guest here takes a second or two; many times that where others load the machine.
pub const LIMIT: Duration = Duration::from_secs(300);

/// Where the fake kernel's protected-mode part goes.
pub const LOAD: u64 = 0x100_0000;
/// Bytes of the real-mode part: a boot sector and two setup sectors.
const SETUP: usize = 3 * 512;
const PARAGRAPH: usize = 16;

/// A bzImage of protocol 2.15 with this protected-mode part, as Linux's Documentation/arch/x86/boot.rst, section "The
/// Real-Mode Kernel Header", lays it out.
pub fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; SETUP];
    image.extend(payload);
    image.resize(image.len().next_multiple_of(PARAGRAPH), 0);
    let paragraphs = ((image.len() - SETUP) / PARAGRAPH) as u32;
    let mut put = |offset: usize, bytes: &[u8]| image[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[2]);
    put(0x1f4, &paragraphs.to_le_bytes());
    put(0x1fe, &[0x55, 0xaa]);
    put(0x200, &[0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes());
    // Loaded high; a 64-bit entry point.
    put(0x211, &[1]);
    put(0x236, &1_u16.to_le_bytes());
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x238, &255_u32.to_le_bytes());
    put(0x258, &LOAD.to_le_bytes());
    put(0x260, &0x10_0000_u32.to_le_bytes());
    image
}

/// A file or directory of this test alone, removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A name with nothing there.
    pub fn name() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("tophalf-test-{}-{number}", std::process::id())))
    }

    /// A file with these contents.
    pub fn file(contents: &[u8]) -> Self {
        let scratch = Self::name();
        std::fs::write(&scratch.0, contents).expect("the temporary directory is writable");
        scratch
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Whatever it is by now, and whether it is there at all.
        let _ = if self.0.is_dir() { std::fs::remove_dir(&self.0) } else { std::fs::remove_file(&self.0) };
    }
}

/// `tophalf`, as built for this test.
pub fn tophalf() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tophalf"));
    // The log's level is the test's business, not the caller's environment's.
    command.env_remove("RUST_LOG");
    command
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// All of its standard error.
    pub stderr: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

/// A program that runs, with pipes on its standard streams.
pub struct Program {
    /// The process.
    pub child: Child,
    /// Until it is closed.
    pub stdin: Option<ChildStdin>,
    chunks: Receiver<(Stream, Vec<u8>)>,
    started: Instant,
    /// What it has written so far.
    pub stdout: Vec<u8>,
    /// What it has said on standard error so far.
    pub stderr: Vec<u8>,
}

impl Program {
    /// Starts `command`.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let (sender, chunks) = channel();
        let streams: [(Stream, Option<Box<dyn Read + Send>>); 2] = [
            (Stream::Out, child.stdout.take().map(|s| Box::new(s) as _)),
            (Stream::Err, child.stderr.take().map(|s| Box::new(s) as _)),
        ];
        for (which, stream) in streams {
            let mut stream = stream.expect("it was asked for");
            let sender = sender.clone();
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if sender.send((which, buffer[..count].to_vec())).is_err() {
                        return;
                    }
                }
            });
        }
        let stdin = child.stdin.take();
        Self { child, stdin, chunks, started: Instant::now(), stdout: Vec::new(), stderr: Vec::new() }
    }

    /// Takes output, if it comes before the limit. False: both streams have ended.
    ///
    /// # Panics
    ///
    /// After [`LIMIT`], when the program is killed, with what it has written.
    pub fn take_output(&mut self) -> bool {
        let left = LIMIT.saturating_sub(self.started.elapsed());
        match self.chunks.recv_timeout(left) {
            Ok((Stream::Out, bytes)) => self.stdout.extend(bytes),
            Ok((Stream::Err, bytes)) => self.stderr.extend(bytes),
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {
                // It may have ended by itself just now.
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!(
                    "still running after {LIMIT:?}\nstdout: {}\nstderr: {}",
                    String::from_utf8_lossy(&self.stdout),
                    String::from_utf8_lossy(&self.stderr)
                );
            }
        }
        true
    }

    /// Closes its input and waits for its end.
    pub fn finish(mut self) -> Finished {
        drop(self.stdin.take());
        while self.take_output() {}
        let status = self.child.wait().expect("it is our child");
        Finished {
            code: status.code(),
            stdout: self.stdout,
            stderr: String::from_utf8_lossy(&self.stderr).into_owned(),
        }
    }
}

/// Runs `command` to its end, with `input` on its standard input.
pub fn run(command: Command, input: &[u8]) -> Finished {
    let mut program = Program::start(command);
    if let Some(stdin) = &mut program.stdin {
        // It need not want its input.
        let _ = stdin.write_all(input);
    }
    program.finish()
}
