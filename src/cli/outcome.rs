//! From the end of a machine to the end of the program: exit codes, and the line on stderr that goes with them.
//!
//! Where a guest of the user's runs, our own codes are even; every odd one is the debug exit's, `(value << 1) | 1`. README.md lists
//! them.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::sync::OnceLock;

use log::{Level, Record};
use vmm::{Error, StopReason, exit_code};

use super::log::{LogFormat, json_line};

/// The exit code for a machine that stopped, and its message.
pub fn of_stop(reason: StopReason) -> ExitCode {
    match reason {
        StopReason::PowerOff | StopReason::Quit => ExitCode::SUCCESS,
        StopReason::Reset => ExitCode::from(exit_code::RESET),
        StopReason::GuestPanic => {
            complain("the guest panicked; its console says why");
            ExitCode::from(exit_code::GUEST_PANIC)
        }
        StopReason::CommandEnded(status) => ExitCode::from(status),
        StopReason::DebugExit(value) => ExitCode::from(value.wrapping_shl(1) | 1),
        StopReason::TripleFault(state) | StopReason::InternalError(state) => {
            complain(format_args!("the guest can't go on: {state}"));
            ExitCode::from(exit_code::GUEST_BROKEN)
        }
        StopReason::Halted => {
            complain("all vCPUs have halted with interrupts disabled; --on-halt wait would keep waiting");
            ExitCode::from(exit_code::HALTED)
        }
        StopReason::Host(e) => of_error(&e),
        StopReason::Panic => {
            complain("the program panicked (see above); please report this as a bug");
            ExitCode::from(exit_code::HOST)
        }
        StopReason::Signal(signal) => {
            // Ends here, so that the shell sees what it expects of a program that a signal has ended.
            vmm::die_of(signal);
            ExitCode::from(exit_code::HOST)
        }
    }
}

/// The exit code for an error, after its one line.
pub fn of_error(error: &Error) -> ExitCode {
    complain(error);
    ExitCode::from(error.exit_code())
}

/// The form of complaints, once it is known; text before.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Has complaints take the form of the log. Only the first call counts.
pub fn set_format(format: LogFormat) {
    let _ = FORMAT.set(format);
}

/// Results for stdout. Nobody listening is no error.
pub fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Lines for stderr that are neither complaints nor log.
pub fn say_on_stderr(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says on stderr what is wrong; if nobody can hear it, the exit code still tells.
pub fn complain(message: impl Display) {
    let line = match FORMAT.get() {
        Some(LogFormat::Json) => {
            json_line(&Record::builder().level(Level::Error).target("tophalf").args(format_args!("{message}")).build())
        }
        _ => format!("tophalf: {message}"),
    };
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// clap's message up to the first blank line, on one line, without its "error: ".
pub fn first_paragraph(message: &str) -> String {
    let paragraph = message.split("\n\n").next().unwrap_or(message);
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}
