//! Runs a program to its end or to a time limit, line by line.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::signals::Group;

/// How a program ended.
pub struct Finished {
    /// Whether it ended by itself with exit code 0.
    pub success: bool,
    /// Whether it was killed at the time limit.
    pub timed_out: bool,
}

/// Runs `command` without input; every line of its stdout and stderr goes to `line`, as they come. At the limit
/// the program and all its children are killed.
///
/// # Errors
/// When it cannot be started.
pub fn run(command: &mut Command, limit: Duration, mut line: impl FnMut(&str)) -> Result<Finished> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let group = Group::new(&child)?;
    let deadline = Instant::now() + limit;
    let (sender, lines) = channel();
    if let Some(stdout) = child.stdout.take() {
        send_lines(stdout, sender.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        send_lines(stderr, sender);
    }
    let mut timed_out = false;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(text) => line(&text),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                timed_out = true;
                group.kill();
                break;
            }
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for {name}"))?;
    Ok(Finished { success: status.success() && !timed_out, timed_out })
}

fn send_lines(stream: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut bytes = Vec::new();
        while stream.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
            if lines.send(text).is_err() {
                return;
            }
            bytes.clear();
        }
    });
}

#[cfg(test)]
mod tests;
