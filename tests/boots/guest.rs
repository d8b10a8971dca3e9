//! One boot of the stock kernel, and the report that its initramfs prints.

use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

/// A boot that takes longer than this has hung; the slowest (8 vCPUs on an emulated host of 2 CPUs) takes about a
/// quarter of it.
const LIMIT: Duration = Duration::from_secs(600);
/// The end of a whole report.
const DONE: &str = "@@TOPHALF-DONE@@";

/// A guest to be booted.
pub struct Guest {
    kernel: PathBuf,
    cpus: u32,
    words: Vec<String>,
    options: Vec<String>,
    code: i32,
}

impl Guest {
    /// One vCPU, no extra words on the kernel's command line.
    pub fn new() -> Self {
        Self { kernel: variable("TOPHALF_KERNEL").into(), cpus: 1, words: Vec::new(), options: Vec::new(), code: 0 }
    }

    /// With this kernel instead of the bzImage.
    pub fn kernel(self, kernel: impl Into<PathBuf>) -> Self {
        Self { kernel: kernel.into(), ..self }
    }

    /// With a shell script to be run in it; its output is the section `script`.
    pub fn script(self, script: &str) -> Self {
        self.word(&format!("th.sh={}", base64(script.as_bytes())))
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

    /// With an option of `tophalf run`.
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// With an option of `tophalf run` that takes no value.
    pub fn flag(mut self, name: &str) -> Self {
        self.options.push(name.to_owned());
        self
    }

    /// With Debian's generic kernel instead of the cloud kernel.
    pub fn generic(self) -> Self {
        self.kernel(variable("TOPHALF_GENERIC_KERNEL"))
    }

    /// To end with this exit code instead of 0, a power-off.
    pub fn ends_with(self, code: i32) -> Self {
        Self { code, ..self }
    }

    /// Boots it; gives its report once it has ended with the exit code it should.
    ///
    /// # Panics
    ///
    /// When it does not, with everything it said.
    pub fn boot(self) -> Report {
        let cmdline = format!("console=ttyS0 quiet th.report {}", self.words.join(" "));
        let initrd = variable("TOPHALF_INITRD");
        let cpus = self.cpus.to_string();
        let mut options =
            vec!["--initrd", &initrd, "--cpus", &cpus, "--no-reboot", "-v", "--cmdline", cmdline.trim_end()];
        options.extend(self.options.iter().map(String::as_str));
        let output = run(&self.kernel, &options);
        let console = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(self.code), "exit status {}\n{said}\n{console}", output.status);
        assert!(console.contains(DONE), "the report is not whole\n{said}\n{console}");
        Report::parse(console)
    }
}

/// The command that runs this kernel: no input, and output for the test.
pub fn command(kernel: &Path) -> Command {
    let mut command = Command::new(variable("TOPHALF_BIN"));
    command.arg("run").arg(kernel).env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A running program, which does not outlive a test that fails.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // After an end it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lines of a stream, as they come.
pub fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Runs this kernel with these options; ends it if it hangs.
pub fn run(kernel: &Path, options: &[&str]) -> Output {
    let child = command(kernel).args(options).spawn().expect("tophalf starts");
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
    output
}

/// RFC 4648, section "Base 64 Encoding".
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit <= chunk.len() { char::from(DIGITS[value]) } else { '=' });
        }
    }
    text
}

/// An environment variable that the test command sets.
pub fn variable(name: &str) -> String {
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
