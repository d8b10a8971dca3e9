//! One boot of the stock kernel, and the report that its initramfs prints.

use std::collections::HashMap;
use std::fmt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// A boot that takes longer than this has hung; the slowest (8 vCPUs on an emulated host of 2 CPUs) takes about a
/// quarter of it.
const LIMIT: Duration = Duration::from_secs(300);
/// The end of a whole report.
const DONE: &str = "@@TOPHALF-DONE@@";

/// A guest to be booted.
pub struct Guest {
    cpus: u32,
    words: Vec<String>,
}

impl Guest {
    /// One vCPU, no extra words on the kernel's command line.
    pub fn new() -> Self {
        Self { cpus: 1, words: Vec::new() }
    }

    /// With so many vCPUs.
    pub fn cpus(self, cpus: u32) -> Self {
        Self { cpus, ..self }
    }

    /// With `word` on the kernel's command line.
    pub fn word(mut self, word: &str) -> Self {
        self.words.push(word.to_owned());
        self
    }

    /// Boots it; gives its report once it has powered off with exit code 0.
    ///
    /// # Panics
    ///
    /// When it does not, with everything it said.
    pub fn boot(self) -> Report {
        let cmdline = format!("console=ttyS0 th.report {}", self.words.join(" "));
        let child = Command::new(variable("TOPHALF_BIN"))
            .args(["run", &variable("TOPHALF_KERNEL"), "--initrd", &variable("TOPHALF_INITRD")])
            .args(["--cpus", &self.cpus.to_string(), "--no-reboot", "-v", "--cmdline", cmdline.trim_end()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tophalf starts");
        let pid = child.id().to_string();
        let (ended, has_ended) = mpsc::channel::<()>();
        let watchdog = thread::spawn(move || {
            if has_ended.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                // Where is every vCPU? Then the end.
                for signal in ["-USR1", "-USR1", "-TERM"] {
                    let _ = Command::new("kill").args([signal, &pid]).status();
                    thread::sleep(Duration::from_secs(1));
                }
            }
        });
        let output = child.wait_with_output().expect("tophalf can be waited for");
        drop(ended);
        watchdog.join().expect("the watchdog ends");
        let console = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "exit status {}\n{said}\n{console}", output.status);
        assert!(console.contains(DONE), "the report is not whole\n{said}\n{console}");
        Report::parse(console)
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run this test by 'cargo xtask test'"))
}

/// What a guest reported about itself.
pub struct Report {
    console: String,
    sections: HashMap<String, Vec<String>>,
}

impl Report {
    fn parse(console: String) -> Self {
        let mut sections = HashMap::new();
        let mut open: Option<(String, Vec<String>)> = None;
        for line in console.lines().map(|line| line.trim_end_matches('\r')) {
            if let Some(name) = marker(line, "@@TOPHALF-BEGIN ") {
                open = Some((name.to_owned(), Vec::new()));
            } else if marker(line, "@@TOPHALF-END ").is_some() {
                sections.extend(open.take());
            } else if let Some((_, lines)) = &mut open {
                lines.push(line.to_owned());
            }
        }
        Self { console, sections }
    }

    /// The lines of a section.
    pub fn lines(&self, name: &str) -> &[String] {
        self.sections.get(name).unwrap_or_else(|| panic!("no section {name}\n{self}"))
    }

    /// A section's text.
    pub fn section(&self, name: &str) -> String {
        self.lines(name).join("\n")
    }

    /// The line of /proc/interrupts that begins with `row` and a colon.
    pub fn interrupt_line(&self, row: &str) -> Option<&str> {
        let wanted = format!("{row}:");
        self.lines("interrupts").iter().map(|line| line.trim_start()).find(|line| line.starts_with(&wanted))
    }

    /// That line's count, all CPUs added up.
    pub fn interrupts(&self, row: &str) -> Option<u64> {
        Some(self.counts(row)?.sum())
    }

    /// That line's count on one CPU.
    pub fn interrupts_on(&self, row: &str, cpu: u32) -> Option<u64> {
        self.counts(row)?.nth(cpu as usize)
    }

    fn counts(&self, row: &str) -> Option<impl Iterator<Item = u64>> {
        let (_, counts) = self.interrupt_line(row)?.split_once(':')?;
        Some(counts.split_whitespace().map_while(|word| word.parse().ok()))
    }
}

fn marker<'a>(line: &'a str, begin: &str) -> Option<&'a str> {
    line.strip_prefix(begin)?.strip_suffix("@@")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.console)
    }
}
