//! Running a tiny guest with the real program, and reading what it reports.

use std::collections::HashMap;
use std::io::Write;
use std::process::Command;

use crate::common::{self, Finished, Program, Scratch, tophalf};
use crate::guest::DONE;

/// Exit code that goes with a debug exit value.
pub fn exit_code(value: u8) -> Option<i32> {
    Some(i32::from(value << 1 | 1))
}

/// Whether guests can run here; says so if not.
pub fn can_run() -> bool {
    let can = kvm::kvm_available();
    if !can {
        println!("SKIPPED: no usable /dev/kvm");
    }
    can
}

/// The command that runs `image`, which stays there as long as the returned file.
pub fn command(image: &[u8], options: &[&str]) -> (Scratch, Command) {
    let file = Scratch::file(image);
    let mut command = tophalf();
    command.args(["run", "--memory", "64M"]).args(options).arg(file.path());
    (file, command)
}

/// Runs a guest to its end.
pub fn run(image: &[u8], options: &[&str]) -> Finished {
    let (_file, command) = command(image, options);
    common::run(command, b"")
}

/// Runs a guest that is to leave with [`DONE`] and nothing on stderr, and gives its report.
pub fn report(image: &[u8], options: &[&str]) -> Report {
    let finished = run(image, options);
    let report = Report::new(&finished);
    assert_eq!((finished.code, finished.stderr.as_str()), (exit_code(DONE), ""), "{report:?}");
    report
}

/// The `name=value` lines of a guest.
#[derive(Debug)]
pub struct Report(HashMap<String, u64>);

impl Report {
    /// Reads the lines; others are passed over.
    pub fn new(finished: &Finished) -> Self {
        let text = String::from_utf8_lossy(&finished.stdout);
        let lines = text.lines().filter_map(|line| line.split_once('='));
        Self(lines.filter_map(|(name, v)| Some((name.to_owned(), u64::from_str_radix(v, 16).ok()?))).collect())
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("the guest has not reported {name:?}: {self:?}"))
    }
}

impl Program {
    /// Its process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Types `bytes` at the guest's serial port.
    pub fn send(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("its input is open");
        stdin.write_all(bytes).and_then(|()| stdin.flush()).expect("it reads its input");
    }

    /// Waits for a line on standard error that has `text` in it.
    pub fn stderr_line(&mut self, text: &str) -> String {
        loop {
            let said = String::from_utf8_lossy(&self.stderr);
            let whole = said.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            if let Some(line) = whole.into_iter().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            assert!(self.take_output(), "it ended without {text:?}: {:?}", String::from_utf8_lossy(&self.stderr));
        }
    }

    /// Waits until it has written `text` `count` times.
    pub fn wait_for(&mut self, text: &str, count: usize) {
        while String::from_utf8_lossy(&self.stdout).matches(text).count() < count {
            assert!(self.take_output(), "it ended without {text:?}: {:?}", String::from_utf8_lossy(&self.stdout));
        }
    }
}
