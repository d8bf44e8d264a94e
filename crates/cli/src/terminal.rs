//! The user's own terminal while a program elsewhere uses it: every key is passed on as it is, and its size.
//!
//! Mirrors kubectl `pkg/util/term`. What was changed is put back when [`Raw`] is dropped.

use std::io::{self, IsTerminal};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// True if standard input is a terminal.
pub fn present() -> bool {
    io::stdin().is_terminal()
}

/// A terminal that passes every key on.
pub struct Raw {
    before: Termios,
    resized: Signal,
}

impl Raw {
    /// From now on keys are passed on, Ctrl-C among them.
    pub fn start() -> io::Result<Raw> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Raw { before, resized: signal(SignalKind::window_change())? })
    }

    /// Columns and rows; nothing when the terminal does not know.
    pub fn size(&self) -> Option<(u16, u16)> {
        let size = tcgetwinsize(io::stdin()).ok()?;
        Some((size.ws_col, size.ws_row)).filter(|size| *size != (0, 0))
    }

    /// Returns when the size has changed.
    pub async fn resized(&mut self) {
        self.resized.recv().await;
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), OptionalActions::Now, &self.before) {
            eprintln!("the terminal cannot be put back, `reset` does it: {error}");
        }
    }
}
