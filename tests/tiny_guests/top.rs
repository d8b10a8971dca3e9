//! `tophalf top` on a terminal: what it shows of a machine that runs, and that the terminal is as before on every way out.

use std::fs;

use crate::common::{Program, Scratch, run, tophalf};
use crate::program::can_run;
use crate::terminal::User;

static IMAGE: &[u8] = include_bytes!(env!("TOPHALF_GUEST"));

/// Rows and columns.
const LARGE: (u16, u16) = (50, 160);
const SMALL: (u16, u16) = (12, 50);

/// A place for the sockets of this test's machines alone.
struct Runtime(Scratch);

impl Runtime {
    fn new() -> Self {
        let folder = Scratch::name();
        fs::create_dir(folder.path()).expect("a folder");
        Self(folder)
    }

    fn variable(&self) -> (&str, &str) {
        ("XDG_RUNTIME_DIR", self.0.path().to_str().expect("text"))
    }

    /// The guest kernel with interrupts all the time, once it can be found: by then it writes statistics. (The guest may be silent.)
    fn machine(&self, image: &Scratch) -> Machine {
        let (name, value) = self.variable();
        let mut command = tophalf();
        command.env(name, value).args(["run", "--memory", "128M", "--cpus", "2"]);
        command.args(["--serial", "null", "--stats", "-", "--stats-interval", "0.2", "--cmdline"]);
        command.args(["test=conservation.* count=1000000000"]).arg(image.path());
        let mut machine = Program::start(command);
        machine.wait_for("\n", 1);
        Machine(Some(machine))
    }

    fn top(&self, variables: &[(&str, &str)], size: (u16, u16)) -> User {
        let variables: Vec<_> = variables.iter().copied().chain([self.variable()]).collect();
        User::runs(["top", "--interval", "0.1"].map(Into::into), &variables, size)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // What is left in it is said by another test.
        let _ = fs::remove_dir_all(self.0.path());
    }
}

/// A machine that ends with its test, whatever becomes of that.
struct Machine(Option<Program>);

impl Machine {
    fn id(&self) -> u32 {
        self.0.as_ref().expect("it runs").id()
    }

    fn end(mut self) {
        sys::signal::send(self.id(), sys::signal::Signal::Terminate).expect("it runs");
        self.0.take().expect("it runs").finish();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(Program { child, .. }) = &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The end of a user's session: the main screen is shown, with the cursor, and all settings are what they were.
#[track_caller]
fn ends(user: &mut User) -> Option<i32> {
    let code = user.ends();
    assert_eq!(user.screen(LARGE), None, "{:?}", user.seen);
    let last = |what| user.seen.rfind(what).unwrap_or_default();
    assert!(last("\x1b[?25h") > last("\x1b[?25l"), "no cursor: {:?}", user.seen);
    code
}

/// Red when: nothing is drawn, a key does not act, a new size is not seen; the end of a machine is not said; the terminal is left raw
/// or on its other screen.
#[test]
fn a_machine_is_watched_by_keys_and_its_end_is_seen() {
    if !can_run() {
        return;
    }
    let (runtime, image) = (Runtime::new(), Scratch::file(IMAGE));
    let (machine, other) = (runtime.machine(&image), runtime.machine(&image));
    let mut pids = [machine.id(), other.id()];
    pids.sort();
    let mut user = runtime.top(&[], LARGE);
    // Some of a frame may be there before the rest.
    let first = format!("process {}", pids[0]);
    let texts =
        ["vectors: ", "vCPU 1", "softirqs: ", "by reason", "p99", "machine 1 of 2", "over 0.", "q quit", &first];
    user.sees_screen(LARGE, |screen| texts.iter().all(|text| screen.contains(text)));
    assert!(user.is_raw());

    user.types("n");
    user.sees_screen(LARGE, |screen| screen.contains(&format!("process {}", pids[1])));
    user.types("p 5z\x1b[D");
    let zoomed = |screen: &str| screen.matches('\u{250c}').count() == 1 && screen.contains("5 exits a second");
    let paused = user.sees_screen(LARGE, |screen| {
        zoomed(screen) && screen.contains("PAUSED") && screen.contains("reason\u{25be}") && screen.contains(&first)
    });
    user.types("r");
    let reversed = user.sees_screen(LARGE, |screen| screen.contains("reason\u{25b4}"));
    assert_eq!(reversed.lines().next(), paused.lines().next(), "paused");
    user.types(" ");
    user.sees_screen(LARGE, |screen| !screen.contains("PAUSED"));
    user.resizes(SMALL);
    user.sees_screen(SMALL, |screen| screen.contains("5 exits a second") && screen.contains("q quit"));

    let (first, second) = if machine.id() == pids[0] { (machine, other) } else { (other, machine) };
    first.end();
    user.sees_screen(SMALL, |screen| screen.contains("HAS ENDED"));
    user.types("n");
    user.sees_screen(SMALL, |screen| screen.contains(&format!("process {}", pids[1])) && !screen.contains("ENDED"));
    second.end();
    user.sees_screen(SMALL, |screen| screen.contains("HAS ENDED"));
    user.types("q");
    assert_eq!(ends(&mut user), Some(0));
}

#[test]
fn the_terminal_is_as_before_after_keys_signals_and_a_panic() {
    if !can_run() {
        return;
    }
    let (runtime, image) = (Runtime::new(), Scratch::file(IMAGE));
    let machine = runtime.machine(&image);
    for signal in ["-TERM", "-HUP", "-INT", "-QUIT"] {
        let mut user = runtime.top(&[], LARGE);
        user.sees_screen(LARGE, |screen| screen.contains("q quit"));
        assert!(user.is_raw());
        user.kill(signal);
        assert_eq!(ends(&mut user), None, "{signal}: {:?}", user.seen);
    }
    let mut user = runtime.top(&[], LARGE);
    user.sees_screen(LARGE, |screen| screen.contains("q quit"));
    user.types("\x03");
    assert_eq!(ends(&mut user), Some(0));

    let mut user = runtime.top(&[("RUST_LOG", "trace"), ("TOPHALF_TEST_PANIC", "key Char('z')")], LARGE);
    user.sees_screen(LARGE, |screen| screen.contains("q quit"));
    user.types("z");
    assert_eq!(ends(&mut user), Some(4));
    let left = user.seen.rfind("\x1b[?1049l").expect("it left the screen");
    assert!(user.seen[left..].contains("made on purpose"), "said where nobody sees it: {:?}", user.seen);
    machine.end();
}

#[test]
fn without_a_machine_or_a_terminal_it_is_one_line_and_exit_code_2() {
    let runtime = Runtime::new();
    let mut user = runtime.top(&[], LARGE);
    assert_eq!(user.ends(), Some(2), "{:?}", user.seen);
    assert_eq!(user.seen, "tophalf: no machine of yours is running; start one with 'tophalf run'\r\n");

    let (name, value) = runtime.variable();
    for (arguments, words) in [
        (&["top"][..], "standard output is not a terminal"),
        (&["top", "--json"], "--once"),
        (&["top", "--interval", "0"], "0.05 to 3600"),
        (&["top", "--once"], "no machine of yours"),
    ] {
        let mut command = tophalf();
        command.env(name, value).args(arguments);
        let finished = run(command, b"");
        assert_eq!((finished.code, finished.stderr.lines().count()), (Some(2), 1), "{}", finished.stderr);
        assert!(finished.stderr.contains(words), "{}", finished.stderr);
    }
}

#[test]
fn once_without_json_prints_all_tables() {
    if !can_run() {
        return;
    }
    let (runtime, image) = (Runtime::new(), Scratch::file(IMAGE));
    let machine = runtime.machine(&image);
    let (name, value) = runtime.variable();
    let mut command = tophalf();
    command.env(name, value).args(["top", "--once", "--interval", "0.05"]);
    let finished = run(command, b"");
    let text = String::from_utf8_lossy(&finished.stdout);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    for title in
        ["lines: ", "sources: ", "vectors: ", "vCPUs: ", "exits a second", "softirqs: ", "tasklets ", "work queues: "]
    {
        assert_eq!(text.lines().filter(|line| line.starts_with(title)).count(), 1, "{title}\n{text}");
    }
    machine.end();
}
