//! What the program writes for the person or the program that started it: results to the standard output, complaints to
//! the standard error output. What happens while it serves is written by `logging`.

use std::io::{self, Write};

use crate::settings::{Problems, Size};

/// The standard output, or what a test puts in its place.
pub(crate) struct Output {
    writer: Box<dyn Write>,
}

impl Output {
    pub(crate) fn standard() -> Self {
        Self { writer: Box::new(io::BufWriter::new(io::stdout())) }
    }

    /// Writes text as it is.
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.writer.write_all(text.as_bytes())?;
        self.writer.flush()
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        self.text(&format!("{line}\n"))
    }

    /// Writes a value as JSON, indented, on lines of its own.
    pub(crate) fn json(&mut self, value: &serde_json::Value) -> io::Result<()> {
        self.line(&format!("{value:#}"))
    }
}

/// A size with two to four digits, for people.
pub(crate) fn rounded(bytes: u64) -> String {
    let unit = [1 << 40, 1 << 30, 1 << 20, 1 << 10].into_iter().find(|unit| bytes / unit >= 10).unwrap_or(1);
    Size(bytes / unit * unit).to_string()
}

/// Whether an error is only that nobody reads our output any more, as behind `| head`.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Tells what went wrong, from the outermost to the innermost cause.
pub(crate) fn complain(error: &anyhow::Error) {
    // Problems of a file begin with its name, as editors expect it.
    let in_a_file = error.downcast_ref::<Problems>().is_some_and(|problems| problems.file.is_some());
    let mut text = format!("{}{error}", if in_a_file { "" } else { "deltaport: " });
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Some errors repeat their cause in their own sentence.
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text.push('\n');
    // When this cannot be written there is nobody to tell; the exit code says it too.
    let _unheard = io::stderr().lock().write_all(text.as_bytes());
}
