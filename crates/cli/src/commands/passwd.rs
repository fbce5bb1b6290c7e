//! `deltaport passwd`: a line of a password file, so that nobody needs another tool for it.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use deltaport_trust::passwords::{self, MAX_PASSWORD_LEN, SALT_LEN};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::args::Passwd;
use crate::output::Output;

pub(crate) fn run(args: &Passwd, output: &mut Output) -> anyhow::Result<ExitCode> {
    let password = if io::stdin().is_terminal() { ask_twice()? } else { read_line()? };
    let mut salt = [0; SALT_LEN];
    getrandom::fill(&mut salt).context("the system has no random numbers")?;
    output.line(&passwords::line(&args.user, &password, salt)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a password that somebody types, twice, because it is not shown.
fn ask_twice() -> anyhow::Result<String> {
    let first = ask("Password: ")?;
    if ask("Once more: ")? != first {
        bail!("the two passwords are not the same");
    }
    Ok(first)
}

fn ask(prompt: &str) -> anyhow::Result<String> {
    // The prompt does not go to the standard output, which may be the password file.
    let mut error_output = io::stderr().lock();
    error_output.write_all(prompt.as_bytes())?;
    let quiet = Quiet::begin()?;
    let line = read_line();
    drop(quiet);
    error_output.write_all(b"\n")?;
    line
}

/// The first line of the standard input.
pub(super) fn read_line() -> anyhow::Result<String> {
    let mut line = Vec::new();
    // One byte more than is accepted, and a line end: a password that is too long is refused, not cut.
    let limit = u64::try_from(MAX_PASSWORD_LEN + 3)?;
    io::stdin().lock().take(limit).read_until(b'\n', &mut line)?;
    let line = String::from_utf8(line).context("the password is not UTF-8")?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// A terminal that does not show what is typed, until this is dropped.
struct Quiet {
    before: Termios,
}

impl Quiet {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that has gone away needs no echo.
        let _gone = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
