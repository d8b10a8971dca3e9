//! Failures that have an exit code of their own.

use std::fmt;

/// Exit code for bad usage or bad input.
pub const USAGE: u8 = 2;
/// Exit code when this host lacks something or the emulated host died.
pub const HOST: u8 = 4;
/// Exit code when a time limit ran out, as `timeout(1)` has it.
pub const TIMEOUT: u8 = 124;

/// An error that ends the program with a given exit code.
#[derive(Debug)]
pub struct Failure {
    /// Process exit code.
    pub code: u8,
    message: String,
}

impl Failure {
    /// A failure with a message.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A failure that needs no message, such as the user's own ^C.
    pub fn silent(code: u8) -> Self {
        Self::new(code, "")
    }

    /// Whether there is nothing to print.
    pub fn is_silent(&self) -> bool {
        self.message.is_empty()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The user asked for something that cannot be: exit code 2.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    Failure::new(USAGE, message).into()
}

/// The host lacks something: exit code 4. The message names the remedy.
pub fn host(message: impl Into<String>) -> anyhow::Error {
    Failure::new(HOST, message).into()
}

/// Prints the error in one line, unless it has nothing to say, and gives its exit code; 1 when it has none of its own.
pub fn report(error: &anyhow::Error) -> u8 {
    let failure = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    if failure.is_none_or(|failure| !failure.is_silent()) {
        eprintln!("xtask: {error:#}");
    }
    failure.map_or(1, |failure| failure.code)
}

/// Whether the error is that this host lacks something.
pub fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failure>().is_some_and(|failure| failure.code == HOST)
}
