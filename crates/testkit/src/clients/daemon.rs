//! A program that runs beside the test.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Run;

/// How long a daemon may take until it answers.
const START: Duration = Duration::from_secs(60);

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

    /// Waits until `probe` holds. Panics with the daemon's log when it ends before, or takes longer than a minute.
    #[track_caller]
    pub fn wait_until(&mut self, probe: impl Fn() -> bool) {
        let deadline = Instant::now() + START;
        while !probe() {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{}\nended early ({status}):\n{}", self.line, self.log());
            }
            assert!(Instant::now() < deadline, "{}\ndid not come up:\n{}", self.line, self.log());
            thread::sleep(Duration::from_millis(50));
        }
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
