//! How far a long command is, on a terminal and nowhere else: in a file or a log it would only be noise.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the line is written anew at most.
const INTERVAL: Duration = Duration::from_millis(100);

/// A line of the terminal that is written over and over.
pub(crate) struct Line {
    /// When it was last written; `None` where there is no terminal.
    written: Option<Mutex<Option<Instant>>>,
}

impl Line {
    /// A line on the standard error output, if that is a terminal.
    pub(crate) fn on_terminal() -> Self {
        Self { written: io::stderr().is_terminal().then(Mutex::default) }
    }

    /// Shows `text` in place of what was there.
    pub(crate) fn show(&self, text: &str) {
        let Some(written) = &self.written else { return };
        let last = *written.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= INTERVAL) {
            self.begin(text);
        }
    }

    /// Shows `text` at once: what stays there for as long as a step takes.
    pub(crate) fn begin(&self, text: &str) {
        let Some(written) = &self.written else { return };
        *written.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        write(&format!("\r\x1b[K{text}"));
    }

    /// Leaves the line empty for what comes next.
    pub(crate) fn clear(&self) {
        if self.written.is_some() {
            write("\r\x1b[K");
        }
    }
}

/// Progress that cannot be shown is not worth failing for.
fn write(text: &str) {
    let mut output = io::stderr().lock();
    let _unseen = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}
