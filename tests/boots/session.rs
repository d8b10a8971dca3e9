//! A guest that is talked to: a script in it answers lines that the test sends over the console.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::guest::{Running, base64, command, variable};

/// Nothing that is asked of a guest takes longer; what does has hung.
const LIMIT: Duration = Duration::from_secs(300);

/// Answers lines of the console: `clock`, `source NAME`, `sources`, `events`, `quiet SECS`, `end`.
const SCRIPT: &str = r#"
stty -echo
cd /sys/devices/system/clocksource/clocksource0
echo "@@ ready"
while read -r word argument; do
    case $word in
        clock) read -r up idle </proc/uptime; echo "@@ $up" ;;
        source) echo "$argument" >current_clocksource; echo "@@ $(cat current_clocksource)" ;;
        sources) echo "@@ $(cat available_clocksource)" ;;
        events) echo "@@ $(cat /sys/devices/system/clockevents/clockevent0/current_device)" ;;
        quiet) echo "@@ quiet"; sleep "$argument"; echo "@@ awake" ;;
        end) break ;;
    esac
done
"#;

/// A running guest with its script.
pub struct Session {
    child: Running,
    input: ChildStdin,
    lines: Receiver<(Instant, String)>,
    seen: String,
}

impl Session {
    /// Boots with `arguments` of `tophalf run` and `words` of the kernel's command line, until the script is ready.
    pub fn start(arguments: &[&str], words: &str) -> Self {
        let cmdline = format!("console=ttyS0 quiet {words} th.sh={}", base64(SCRIPT.as_bytes()));
        let mut child = command(variable("TOPHALF_KERNEL").as_ref())
            .args(["--initrd", &variable("TOPHALF_INITRD"), "--no-reboot"])
            .args(arguments)
            .args(["--cmdline", &cmdline])
            .stdin(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("tophalf starts");
        let input = child.stdin.take().expect("stdin is a pipe");
        let output = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        let mut session = Self { child: Running(child), input, lines, seen: String::new() };
        session.answer_is("ready");
        session
    }

    /// The program's process.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Sends a line.
    pub fn send(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the guest's console takes a line");
    }

    /// Waits for the next answer; gives it with the time it came.
    pub fn answer(&mut self) -> (Instant, String) {
        loop {
            let (at, line) = self
                .lines
                .recv_timeout(LIMIT)
                .unwrap_or_else(|e| panic!("no answer from the guest ({e}); it said\n{}", self.seen));
            self.seen += &line;
            self.seen.push('\n');
            if let Some((_, answer)) = line.trim_end().split_once("@@ ") {
                return (at, answer.to_owned());
            }
        }
    }

    /// Waits for the next answer, which must be this; gives the time it came.
    pub fn answer_is(&mut self, expected: &str) -> Instant {
        let (at, answer) = self.answer();
        assert_eq!(answer, expected, "the guest said\n{}", self.seen);
        at
    }

    /// Sends a line and waits for the answer.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.answer().1
    }

    /// Waits for so long, while the guest must not say anything.
    pub fn is_silent_for(&mut self, time: Duration) {
        if let Ok((_, line)) = self.lines.recv_timeout(time) {
            panic!("the guest was to be silent, and said {line}\n{}", self.seen);
        }
    }

    /// Ends the script; the guest powers off.
    pub fn end(mut self) {
        self.send("end");
        while let Ok((_, line)) = self.lines.recv_timeout(LIMIT) {
            self.seen += &line;
            self.seen.push('\n');
        }
        let status = self.child.0.wait().expect("tophalf can be waited for");
        assert_eq!(status.code(), Some(0), "{status}; the guest said\n{}", self.seen);
    }
}
