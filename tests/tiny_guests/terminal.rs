//! The program on a terminal: what it does to it, and that all of that is taken back on every way out; the monitor.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use iced_x86::code_asm::*;
use sys::pty::Pty;
use x86::platform;

use crate::chips::Mode;
use crate::common::{LIMIT, Scratch};
use crate::guest::{DONE, Guest, asm};
use crate::program::{can_run, exit_code};
use crate::smp::{INIT, START_UP};

/// O_NOCTTY of open(2).
const NO_CONTROLLING_TERMINAL: i32 = 0o400;
/// How often to look for what is on the screen.
const LOOK: Duration = Duration::from_millis(2);
/// The key before the others.
pub const CTRL_A: &str = "\x01";
/// Rows and columns of a terminal whose size does not matter.
const SIZE: (u16, u16) = (24, 80);
/// What the monitor says when it waits.
pub const PROMPT: &str = "(tophalf) ";

/// A program on a terminal, and the user in front of it.
pub struct User {
    pty: Pty,
    /// The program.
    pub child: Child,
    screen: Receiver<Vec<u8>>,
    /// All that was on the screen so far.
    pub seen: String,
    unread: Vec<u8>,
    /// Where the next look begins.
    looked: usize,
    started: Instant,
    before: String,
}

/// The terminal's settings, as stty prints them.
fn settings(pty: &Pty) -> String {
    let terminal = pty.master().try_clone().expect("a descriptor");
    let output = Command::new("stty").arg("-g").stdin(terminal).output().expect("stty is there");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Gives the terminal another size.
fn resize(pty: &Pty, (rows, columns): (u16, u16)) {
    let terminal = pty.master().try_clone().expect("a descriptor");
    let size = ["rows", &rows.to_string(), "columns", &columns.to_string()].map(str::to_owned);
    assert!(Command::new("stty").args(size).stdin(terminal).status().is_ok_and(|status| status.success()));
}

impl User {
    /// Runs a guest.
    pub fn run(image: &Scratch, options: &[&str]) -> Self {
        Self::start(image, options, &[])
    }

    /// Runs a guest in this environment.
    fn with_variables(image: &Scratch, variables: &[(&str, &str)]) -> Self {
        Self::start(image, &[], variables)
    }

    fn start(image: &Scratch, options: &[&str], variables: &[(&str, &str)]) -> Self {
        let arguments = ["run", "--memory", "64M"].iter().chain(options).map(|text| (*text).into());
        Self::runs(arguments.chain([image.path().to_owned().into()]), variables, SIZE)
    }

    /// Runs the program with these arguments and variables, on a terminal of so many rows and columns.
    pub fn runs(
        arguments: impl IntoIterator<Item = OsString>,
        variables: &[(&str, &str)],
        (rows, columns): (u16, u16),
    ) -> Self {
        let pty = Pty::open().expect("a pseudo-terminal");
        let terminal = File::options().read(true).write(true).custom_flags(NO_CONTROLLING_TERMINAL).open(pty.path());
        let terminal = terminal.expect("its other side");
        let stream = || Stdio::from(terminal.try_clone().expect("a descriptor"));
        // As nobody else's is.
        let stty = Command::new("stty").args(["sane", "intr", "^G", "-ixon", "-echoe"]).stdin(stream()).status();
        assert!(stty.expect("stty is there").success());
        resize(&pty, (rows, columns));
        let before = settings(&pty);
        let mut command = Command::new("setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_tophalf")]).args(arguments);
        command.env_remove("RUST_LOG").envs(variables.iter().copied());
        let child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().expect("setsid is there");
        let (sender, screen) = channel();
        let mut reader = pty.master().try_clone().expect("a descriptor");
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match reader.read(&mut buffer) {
                    Ok(count) => {
                        if sender.send(buffer[..count].to_vec()).is_err() {
                            return;
                        }
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(LOOK),
                    // The other side is closed.
                    Err(_) => return,
                }
            }
        });
        Self { pty, child, screen, seen: String::new(), unread: Vec::new(), looked: 0, started: Instant::now(), before }
    }

    fn look(&mut self) -> bool {
        match self.screen.recv_timeout(LIMIT.saturating_sub(self.started.elapsed())) {
            Ok(bytes) => {
                // A character may be in two parts.
                self.unread.extend(bytes);
                let whole = self.unread.utf8_chunks().next().map_or(0, |chunk| chunk.valid().len());
                let end = if self.unread.len() - whole < 4 { whole } else { self.unread.len() };
                self.seen.push_str(&String::from_utf8_lossy(&self.unread.drain(..end).collect::<Vec<_>>()));
            }
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {
                // It may have ended by itself just now.
                let _ = self.child.kill();
                panic!("nothing more after {LIMIT:?}: {:?}", self.seen);
            }
        }
        true
    }

    /// Waits for `text`, after what was waited for before; gives what is up to its end.
    pub fn sees(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.seen[self.looked..].find(text) {
                let end = self.looked + at + text.len();
                let part = self.seen[self.looked..end].to_owned();
                self.looked = end;
                return part;
            }
            assert!(self.look(), "it ended without {text:?}: {:?}", self.seen);
        }
    }

    /// Types.
    pub fn types(&self, text: &str) {
        let mut left = text.as_bytes();
        while !left.is_empty() {
            match self.pty.master().write(left) {
                Ok(count) => left = &left[count..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(LOOK),
                Err(e) => panic!("{e}: {:?}", self.seen),
            }
        }
    }

    /// What a terminal of this size shows after all that was written to it; `None`: the main screen.
    pub fn screen(&self, (rows, columns): (u16, u16)) -> Option<String> {
        let mut terminal = vt100::Parser::new(rows, columns, 0);
        terminal.process(self.seen.as_bytes());
        let screen = terminal.screen();
        screen.alternate_screen().then(|| screen.contents())
    }

    /// Waits until a terminal of this size shows something that is so.
    pub fn sees_screen(&mut self, size: (u16, u16), is_so: impl Fn(&str) -> bool) -> String {
        loop {
            if let Some(screen) = self.screen(size).filter(|screen| is_so(screen)) {
                return screen;
            }
            assert!(self.look(), "it ended: {:?}", self.seen);
        }
    }

    /// The terminal gets another size.
    pub fn resizes(&self, size: (u16, u16)) {
        resize(&self.pty, size);
    }

    /// A command of the monitor, and its answer.
    pub fn command(&mut self, line: &str) -> String {
        self.types(&format!("{line}\r"));
        self.sees(PROMPT)
    }

    /// Its settings are not what they were.
    pub fn is_raw(&self) -> bool {
        settings(&self.pty) != self.before
    }

    /// Sends a signal, -TERM and so on.
    pub fn kill(&self, signal: &str) {
        let killed = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(killed.is_ok_and(|status| status.success()));
    }

    /// Waits for the program's end; gives its exit code (`None`: by a signal) once the settings are seen to be what they
    /// were.
    #[track_caller]
    pub fn ends(&mut self) -> Option<i32> {
        while self.look() {}
        let code = self.child.wait().expect("it is our child").code();
        assert_eq!(settings(&self.pty), self.before, "the terminal is not as it was: {:?}", self.seen);
        code
    }
}

/// Says "up" and acts on a key: `p` powers off, `t` is a triple fault, `r` resets, `h` halts, `b` touches a port where
/// nothing is.
fn on_keys() -> Scratch {
    let image = Guest::image(|g| {
        g.print("up\n");
        let no_idt = g.cell();
        let ways = [
            (
                b'p',
                g.aside(|g| {
                    let s5 = u32::from(platform::SLP_TYP_S5) << 10 | 1 << 13;
                    asm!(g; mov dx, u32::from(platform::PM1A_CONTROL); mov ax, s5; out dx, ax; cli; hlt;);
                }),
            ),
            (b't', g.aside(|g| asm!(g; lidt ptr(no_idt.address()); ud2;))),
            (
                b'r',
                g.aside(|g| {
                    g.out8(platform::RESET_CONTROL, 6);
                    asm!(g; cli; hlt;);
                }),
            ),
            (b'h', g.aside(|g| asm!(g; cli; hlt;))),
            (
                b'b',
                g.aside(|g| {
                    g.in8(0x9999);
                    asm!(g; cli; hlt;);
                }),
            ),
        ];
        let top = g.here();
        g.in8(platform::COM1 + 5);
        asm!(g; test al, 1; jz top;);
        g.in8(platform::COM1);
        for (key, way) in ways {
            asm!(g; cmp al, u32::from(key); je way;);
        }
        // Anything else is echoed.
        asm!(g; mov dx, u32::from(platform::COM1); out dx, al; jmp top;);
    });
    Scratch::file(&image)
}

/// Red when: raw mode is not entered, or not taken back; Ctrl-C is not the guest's.
#[test]
fn the_terminal_is_as_before_after_every_end() {
    if !can_run() {
        return;
    }
    let image = on_keys();
    for (keys, code) in [
        ("p", Some(0)),
        ("\x01x", Some(0)),
        ("\x01cquit\r", Some(0)),
        ("t", Some(36)),
        ("h", Some(38)),
        ("r", Some(32)),
    ] {
        let mut user = User::run(&image, &["--no-reboot"]);
        user.sees("up\r\n");
        assert!(user.is_raw());
        user.types("\x03\x1a\x07");
        user.sees("\x03\x1a\x07");
        user.types(keys);
        assert_eq!(user.ends(), code, "{keys:?}: {:?}", user.seen);
    }
}

/// Red when: a signal is not watched; the program ends by `exit` and not by the signal.
#[test]
fn the_terminal_is_as_before_after_every_signal() {
    if !can_run() {
        return;
    }
    let image = on_keys();
    for signal in ["-TERM", "-INT", "-HUP", "-QUIT"] {
        let mut user = User::run(&image, &[]);
        user.sees("up\r\n");
        assert!(user.is_raw());
        user.kill(signal);
        assert_eq!(user.ends(), None, "{signal}: {:?}", user.seen);
    }
}

/// Red when: raw mode is entered before everything else is there, and not taken back.
#[test]
fn the_terminal_is_as_before_after_a_failed_start() {
    if !can_run() {
        return;
    }
    for options in [&["--initrd", "/nonexistent/initrd"][..], &["--serial", "file:/nonexistent/f"], &["--cpus", "99"]] {
        let image = on_keys();
        let mut user = User::run(&image, options);
        assert_eq!(user.ends(), Some(2), "{:?}", user.seen);
        assert_eq!(user.seen.lines().count(), 1, "{:?}", user.seen);
    }
}

/// Red when: the panic of a vCPU's thread, or of the main loop's, leaves the terminal raw, or the program running.
#[test]
fn the_terminal_is_as_before_after_a_panic() {
    if !can_run() {
        return;
    }
    let image = on_keys();
    // A vCPU at its work, the main loop between two machines, the main loop at its work, a vCPU at its end.
    for (keys, message) in
        [("b", "nothing there"), ("r", "the guest resets"), ("\x01cbang\r", "command"), ("p", "vCPU 0: ")]
    {
        let mut user = User::with_variables(&image, &[("RUST_LOG", "trace"), ("TOPHALF_TEST_PANIC", message)]);
        user.sees("up\r\n");
        assert!(user.is_raw());
        user.types(keys);
        user.sees("made on purpose");
        assert_eq!(user.ends(), Some(4), "{message}: {:?}", user.seen);
    }
}

/// Red when: a command does not reach what it is for; a vCPU does not answer; what the guest says meanwhile is lost.
#[test]
fn the_monitor_shows_a_machine_and_drives_it() {
    if !can_run() {
        return;
    }
    let image = Guest::image_with_apic(Mode::XApic, |g| {
        let online = g.application_processors(|g| {
            let top = g.here();
            asm!(g; pause; jmp top;);
        });
        g.handler(2, |g| g.print("taken\n"));
        g.handler(0x51, |g| g.eoi());
        for command in [INIT, START_UP] {
            g.ipi(1, command);
        }
        g.spin_until(online, 1);
        g.ioapic_entry(4, 0x51, 0);
        g.out8(platform::COM1 + 4, 0x0b);
        g.print("up\n");
        // Until the power button's status is set.
        let top = g.here();
        asm!(g; mov dx, u32::from(platform::PM1A_EVENT); in_ ax, dx; test eax, 1 << 8; jz top;);
        g.print("button\n");
        let top = g.here();
        asm!(g; sti; hlt; jmp top;);
    });
    let image = Scratch::file(&image);
    let mut user = User::run(&image, &["--cpus", "3"]);
    user.sees("up\r\n");
    user.types(CTRL_A);
    user.types("c");
    user.sees(PROMPT);
    assert!(user.command("help").contains("powerdown"));
    let shown = user.command("irq");
    assert!(shown.contains("vector 0x51, 0 sent"), "{shown}");
    let shown = user.command("lapic 0");
    assert!(shown.contains("xAPIC, bootstrap processor") && shown.contains("SVR     000001ff"), "{shown}");
    let shown = user.command("lapic 1");
    assert!(shown.contains("ID      01000000") && !shown.contains("bootstrap"), "{shown}");
    // One that waits for its start-up.
    let shown = user.command("lapic 2");
    assert!(shown.contains("ID      02000000") && shown.contains("software-disabled"), "{shown}");
    assert!(user.command("ioapic").contains("  4 low  0x51   Fixed     physical 0x0"), "{}", user.seen);
    assert!(user.command("pic").contains("8259A slave"));
    let shown = user.command("vcpu");
    assert_eq!(shown.matches("vCPU ").count(), 3, "{shown}");
    user.command("nmi 0");
    assert!(!user.seen.contains("taken"), "it waits");
    user.types("cont\r");
    user.sees("taken\r\n");
    user.types("\x01cpowerdown\r");
    user.sees("was pressed\r\n");
    user.types("\x01c");
    user.sees("button\r\n");
    // Both ways to begin anew, and the end.
    user.types("\x01creset\r");
    user.sees("up\r\n");
    user.types("\x01cq\r");
    assert_eq!(user.ends(), Some(0), "{:?}", user.seen);
}

/// The size of the terminal, at the start and when it changes, is in the configuration of a virtio console on the standard streams.
///
/// Red when: the size is not read; SIGWINCH is not watched, or does not lead to a look at the size.
#[test]
fn a_guest_sees_the_size_of_the_terminal_and_its_change() {
    if !can_run() {
        return;
    }
    const SMALL: (u16, u16) = SIZE;
    const LARGE: (u16, u16) = (300, 400);
    let image = Guest::image(|g| {
        g.print("up\n");
        for ((rows, columns), text) in [(SMALL, "small\n"), (LARGE, "large\n"), (SMALL, "small again\n")] {
            let top = g.here();
            // The device's own configuration.
            asm!(g; mov edx, platform::VIRTIO_MMIO as u32 + 0x100; mov eax, dword_ptr(rdx););
            asm!(g; cmp eax, u32::from(rows) << 16 | u32::from(columns); jne top;);
            g.print(text);
        }
    });
    let image = Scratch::file(&image);
    // What the serial port says is on the terminal, too.
    let options = ["--virtio", "mmio", "--console", "stdio", "--serial", "file:/dev/tty"];
    let mut user = User::run(&image, &options);
    user.sees("small\r\n");
    user.resizes(LARGE);
    user.sees("large\r\n");
    user.resizes(SMALL);
    user.sees("small again\r\n");
    assert_eq!(user.ends(), exit_code(DONE), "{:?}", user.seen);
}

/// In the modes whose local APICs are KVM's, the monitor shows those; chips that are not in this program it can't.
///
/// Red when: a vCPU with KVM's local APIC does not answer; `Mode::chips` is wrong.
#[test]
fn the_monitor_shows_what_kvm_has_in_the_other_modes() {
    if !can_run() {
        return;
    }
    let image = on_keys();
    for mode in ["split", "kernel"] {
        let mut user = User::run(&image, &["--irqchip", mode]);
        user.sees("up\r\n");
        user.types("\x01c");
        user.sees(PROMPT);
        let shown = user.command("lapic 0");
        assert!(shown.contains("bootstrap processor") && shown.contains("LVT LINT0"), "{mode}: {shown}");
        assert_eq!(user.command("ioapic").contains("KVM's"), mode == "kernel", "{}", user.seen);
        assert_eq!(user.command("pic").contains("KVM's"), mode == "kernel", "{}", user.seen);
        assert!(user.command("irq").contains("GSI"));
        assert!(user.command("vcpu").contains("vCPU 0: Runnable"), "{}", user.seen);
        user.types("quit\r");
        assert_eq!(user.ends(), Some(0), "{mode}: {:?}", user.seen);
    }
}

/// Commands typed as fast as the terminal takes them, at a guest that answers by interrupt while it floods the screen: for each
/// line of the flood it takes up to 64 characters.
///
/// Red when: a byte is lost or swapped on the way in or out; input stops while output is busy, or the other way round.
#[test]
fn a_flood_loses_none_of_10000_commands() {
    if !can_run() {
        return;
    }
    const COMMANDS: usize = 10_000;
    let image = Guest::image_with_apic(Mode::XApic, |g| {
        let (done, room) = (g.cell(), g.cell());
        g.handler(0x50, |g| {
            let (mut out, mut echo, mut enough) = (g.label(), g.label(), g.label());
            let top = g.here();
            asm!(g; cmp room.q(), 0; je enough;);
            g.in8(platform::COM1 + 5);
            asm!(g; test al, 1; jz out;);
            g.in8(platform::COM1);
            asm!(g; dec room.q(); cmp al, u32::from(b'.'); jne echo; inc done.q(););
            g.place(&mut echo);
            asm!(g; mov dx, u32::from(platform::COM1); out dx, al; jmp top;);
            g.place(&mut enough);
            g.out8(platform::COM1 + 1, 0);
            g.place(&mut out);
            g.eoi();
        });
        g.ioapic_entry(4, 0x50, 0);
        g.out8(platform::COM1 + 4, 0x0b);
        g.out8(platform::COM1 + 1, 1);
        g.print("up\n");
        let top = g.here();
        asm!(g; sti;);
        // As a driver does: a look, and then a line.
        let wait = g.here();
        g.in8(platform::COM1 + 5);
        asm!(g; test al, 0x20; jz wait;);
        g.print("################\n");
        asm!(g; mov room.q(), 64;);
        g.out8(platform::COM1 + 1, 1);
        asm!(g; cmp done.q(), 0; je top;);
    });
    let image = Scratch::file(&image);
    let mut user = User::run(&image, &[]);
    user.sees("up\r\n");
    let typed: String = (0..COMMANDS).map(|number| format!("do {number:04}\r")).collect();
    user.types(&typed);
    user.types(".");
    assert_eq!(user.ends(), Some(1), "{:?}", user.seen.len());
    // Without the flood, and without the line ends, of which the terminal makes two characters.
    let answered: String = user.seen[user.looked..].chars().filter(|c| !"#\r\n".contains(*c)).collect();
    let expected: String = typed.chars().filter(|c| *c != '\r').chain(['.']).collect();
    assert_eq!(answered.len(), expected.len());
    assert!(answered == expected);
    assert!(user.seen.matches('#').count() > COMMANDS, "there was no flood");
}
