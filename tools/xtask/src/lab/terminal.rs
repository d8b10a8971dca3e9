//! Our own terminal: raw mode while the emulated host's terminal is on it, and its size.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result};
use rustix::termios::{self, OptionalActions, Termios};

/// Whether both stdin and stdout are a terminal.
pub fn interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Rows and columns of the terminal, where it has a size.
pub fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Holds the terminal in raw mode; dropping it restores what was.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Puts the terminal on stdin into raw mode.
    ///
    /// # Errors
    /// When stdin is no terminal.
    pub fn new() -> Result<Self> {
        let before = termios::tcgetattr(io::stdin()).context("stdin is no terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Drain, &raw).context("cannot set the terminal raw")?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that went away.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}
