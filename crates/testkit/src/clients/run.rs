//! One command line, run to its end.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Sandbox;

/// How long a client may take unless a test says otherwise. Each takes seconds; this is for a machine under load.
const LIMIT: Duration = Duration::from_secs(120);

/// Exit codes of `timeout(1)` for a command that it had to end.
const TIMED_OUT: [i32; 2] = [124, 137];

/// A command line that is run with a time limit, in an environment that holds only what is set here.
///
/// The limit is kept by `timeout(1)`: it holds although the test itself may be killed.
#[derive(Clone)]
pub struct Run<'a> {
    sandbox: &'a Sandbox,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    limit: Duration,
}

/// What came of a [`Run`].
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether the exit code was zero.
    pub success: bool,
    /// Standard output, without the line breaks at its end.
    pub stdout: String,
    /// Standard output and standard error, for messages and for what a client says on failure.
    pub everything: String,
}

impl<'a> Run<'a> {
    /// Will run `program`, an absolute path, in `sandbox`.
    pub(super) fn new(sandbox: &'a Sandbox, program: &str) -> Self {
        super::require(program);
        Self { sandbox, arguments: vec![program.into()], environment: Vec::new(), limit: LIMIT }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Adds the arguments in `line`, which are separated by blanks and hold none.
    #[must_use]
    pub fn line(self, line: &str) -> Self {
        self.args(line.split_whitespace())
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Removes a variable from the environment.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    /// Allows another time than two minutes.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it and tells what came of it. Panics when it did not end in time.
    #[track_caller]
    pub fn outcome(&self) -> Outcome {
        let output = self.command().output().unwrap_or_else(|error| panic!("cannot start {self:?}: {error}"));
        let stdout = String::from_utf8_lossy(&output.stdout);
        let everything = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
        if output.status.code().is_some_and(|code| TIMED_OUT.contains(&code)) {
            panic!("{self:?}\ndid not end within {:?}; it said:\n{everything}", self.limit);
        }
        Outcome { success: output.status.success(), stdout: stdout.trim_end().to_owned(), everything }
    }

    /// Runs it, and returns its standard output without the line breaks at its end. Panics with all that it said when
    /// it fails.
    #[track_caller]
    pub fn ok(&self) -> String {
        let outcome = self.outcome();
        assert!(outcome.success, "{self:?}\nfailed:\n{}", outcome.everything);
        outcome.stdout
    }

    /// Runs it, and returns all that it said. Panics when it succeeds.
    #[track_caller]
    pub fn refused(&self) -> String {
        let outcome = self.outcome();
        assert!(!outcome.success, "{self:?}\nsucceeded where it must not:\n{}", outcome.everything);
        outcome.everything
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("/usr/bin/timeout");
        command.arg("--kill-after=5").arg(self.limit.as_secs().to_string()).args(self.sandbox.enter());
        command.args(&self.arguments).env_clear().stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// The command line as one would type it.
impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        f.write_str(&words.join(" "))
    }
}
