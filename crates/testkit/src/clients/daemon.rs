//! A program that runs beside the test.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Run;

/// How long a daemon may take until it answers.
const START: Duration = Duration::from_secs(60);

/// How often it is asked meanwhile.
const POLL: Duration = Duration::from_millis(50);

/// The longest life of a daemon: longer than any test.
const LIFE: Duration = Duration::from_secs(1800);

/// A running daemon. It ends with its sandbox, or before.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    /// Its command line, for messages.
    line: String,
    log: PathBuf,
}

impl Daemon {
    pub(super) fn start(run: Run<'_>, log: PathBuf) -> Self {
        let file = File::create(&log).expect("a directory to write to");
        let errors = file.try_clone().expect("a file can be shared");
        let run = run.limit(LIFE);
        let child = run.command().stdout(file).stderr(errors).stdin(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {run:?}: {error}"));
        Self { child, line: format!("{run:?}"), log }
    }

    /// Waits until `probe` holds. The error has the daemon's log: it ended before, or took longer than a minute.
    pub fn wait_until(&mut self, probe: impl Fn() -> bool) -> Result<(), String> {
        let deadline = Instant::now() + START;
        while !probe() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{}\nended early ({status}):\n{}", self.line, self.log()));
            }
            if Instant::now() > deadline {
                return Err(format!("{}\ndid not come up:\n{}", self.line, self.log()));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // This ends only timeout(1) and nsenter(1) around it; the sandbox ends the daemon.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
