//! The audit log: who changed what, and who was refused, as one JSON object a line, at the end of a file.
//!
//! Requests hand their lines to a thread that writes them and never wait for the disk. When it cannot keep up, or cannot
//! write, lines are lost; how many is the next line that can be written.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

/// How many lines may wait to be written.
const MAX_WAITING: usize = 4096;
/// How many lines are written before they are made durable together.
const MAX_BATCH: usize = 256;
/// The most bytes of any text of a client in a line: the rest is cut.
const MAX_TEXT: usize = 512;
/// How often it is tried to write again what could not be.
const RETRY: Duration = Duration::from_secs(1);
/// How long the last lines may take when the process ends.
const CLOSE: Duration = Duration::from_secs(3);

/// The end of a file that lines are written to. Cheap to clone; every clone is the same log.
#[derive(Clone, Debug)]
pub struct AuditLog(Arc<Log>);

#[derive(Debug)]
struct Log {
    sender: SyncSender<Message>,
    lost: Arc<AtomicU64>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Reopen,
    Close,
}

/// What is written of one request.
#[derive(Debug, Serialize)]
pub(crate) struct Entry<'a> {
    /// `push`, `delete`, `denied`, `refused`, `login_failed` or `login_throttled`.
    pub(crate) event: &'static str,
    /// The user, as far as it is known who asks.
    pub(crate) user: Option<&'a str>,
    /// Who somebody claimed to be whose password or token was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) claimed: Option<&'a str>,
    /// From which address, and port where that is known.
    pub(crate) peer: String,
    /// The address and port of the proxy that says so, if that is how it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) via: Option<String>,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) status: u16,
    /// The digest of what was pushed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<&'a str>,
    /// The code of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<&'static str>,
    /// What the client was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'a str>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    entry: &'a Entry<'a>,
}

impl AuditLog {
    /// Opens `path` for more lines at its end; makes it, with mode 0640, when it is not there. Fails when that is not
    /// possible: a log that somebody wants and that is not written is worse than no start.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            path: path.to_owned(),
            file: Some(file),
            lost: Arc::clone(&lost),
            torn: false,
            complained: false,
        };
        let writer =
            std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&receiver))?;
        Ok(Self(Arc::new(Log { sender, lost, writer: Mutex::new(Some(writer)) })))
    }

    /// Opens the file anew, after it was renamed: what rotates logs sends a signal for this.
    pub fn reopen(&self) {
        // A full queue means that the disk does not take anything; then every line opens the file anew.
        if let Err(error) = self.0.sender.try_send(Message::Reopen) {
            tracing::warn!(%error, "the audit log was not opened anew");
        }
    }

    /// Writes what is waiting and ends, or gives up after some seconds.
    pub fn close(&self) {
        let deadline = Instant::now() + CLOSE;
        let mut message = Message::Close;
        while let Err(TrySendError::Full(back)) = self.0.sender.try_send(message) {
            if Instant::now() >= deadline {
                return;
            }
            message = back;
            std::thread::sleep(Duration::from_millis(10));
        }
        let writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        while let Some(writer) = &writer
            && !writer.is_finished()
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Has `entry` written; counts it as lost when too much waits.
    pub(crate) fn write(&self, entry: &Entry<'_>) {
        let Some(line) = line(entry) else { return };
        if self.0.sender.try_send(Message::Line(line)).is_err() {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn line(entry: &Entry<'_>) -> Option<Vec<u8>> {
    let entry = Entry {
        event: entry.event,
        user: entry.user,
        claimed: entry.claimed.map(cut),
        peer: entry.peer.clone(),
        via: entry.via.clone(),
        method: cut(entry.method),
        path: cut(entry.path),
        status: entry.status,
        digest: entry.digest,
        code: entry.code,
        reason: entry.reason.map(cut),
    };
    let mut line = serde_json::to_vec(&Line { time: timestamp(SystemTime::now()), entry: &entry }).ok()?;
    line.push(b'\n');
    Some(line)
}

/// The beginning of a text, at most [`MAX_TEXT`] bytes of it.
fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_TEXT)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// The thread that writes.
struct Writer {
    path: PathBuf,
    file: Option<File>,
    lost: Arc<AtomicU64>,
    /// Whether the last line was written in part.
    torn: bool,
    complained: bool,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let first = match messages.recv_timeout(RETRY) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut batch: Vec<Message> = first.into_iter().collect();
            batch.extend(messages.try_iter().take(MAX_BATCH));
            if batch.is_empty() && self.lost.load(Ordering::Relaxed) == 0 {
                continue;
            }
            if self.write(batch) {
                return;
            }
        }
    }

    /// Writes a batch; `true` when it was the last.
    fn write(&mut self, batch: Vec<Message>) -> bool {
        let mut last = false;
        self.tell_what_was_lost();
        for message in batch {
            match message {
                Message::Close => last = true,
                Message::Reopen => self.file = None,
                Message::Line(line) => {
                    if self.put(&line).is_err() {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
        if let Some(Err(error)) = self.file.as_ref().map(File::sync_data) {
            tracing::debug!(%error, "the audit log cannot be made durable");
        }
        last
    }

    fn tell_what_was_lost(&mut self) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost == 0 {
            return;
        }
        let time = timestamp(SystemTime::now());
        let line = format!("{{\"time\":\"{time}\",\"event\":\"lost\",\"lines\":{lost}}}\n");
        if self.put(line.as_bytes()).is_err() {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }

    fn put(&mut self, line: &[u8]) -> io::Result<()> {
        let outcome = self.try_put(line);
        match &outcome {
            Ok(()) => self.complained = false,
            Err(error) => {
                // The next line tries a new file: the disk may have been mounted again meanwhile.
                self.file = None;
                if !self.complained {
                    tracing::error!(file = %self.path.display(), %error, "the audit log cannot be written; lines are lost");
                    self.complained = true;
                }
            }
        }
        outcome
    }

    fn try_put(&mut self, line: &[u8]) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => open(&self.path)?,
        };
        // What was written of a line in part is closed off, so that the next one can be read.
        let start: &[u8] = if self.torn { b"\n" } else { b"" };
        let whole = [start, line].concat();
        let mut written = 0;
        while written < whole.len() {
            match file.write(&whole[written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    written += count;
                    self.torn = written < whole.len();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.file = Some(file);
        Ok(())
    }
}

/// A time in UTC, to the millisecond, as RFC 3339 writes it.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // The civil calendar from days: years begin in March, so that leap days come last; 719468 days lie between then and
    // 1970.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Entry<'_> {
        Entry {
            event: "push",
            user: Some("anna"),
            claimed: None,
            peer: "10.0.0.1:1".to_owned(),
            via: None,
            method: "PUT",
            path,
            status: 201,
            digest: None,
            code: None,
            reason: None,
        }
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |seconds, millis: u32| {
            timestamp(SystemTime::UNIX_EPOCH + Duration::new(seconds, millis * 1_000_000))
        };
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_825_600, 7), "2000-02-29T12:00:00.007Z");
        assert_eq!(at(4_107_542_399, 999), "2100-02-28T23:59:59.999Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn lines_go_to_the_end_and_to_a_new_file_after_a_rotation() {
        let home = tempfile::tempdir().unwrap();
        let (path, old) = (home.path().join("audit"), home.path().join("audit.1"));
        std::fs::write(&path, "{\"before\":1}\n").unwrap();
        let log = AuditLog::open(&path).unwrap();
        log.write(&entry("/v2/a/manifests/\u{1f600}\"\n"));
        // The line is in the old file, whatever the writer has done by now.
        std::fs::rename(&path, &old).unwrap();
        log.reopen();
        log.write(&entry(&"x".repeat(2000)));
        log.close();
        let (old, new) = (lines(&old), lines(&path));
        assert_eq!((old.len(), new.len()), (2, 1));
        assert_eq!(old[1]["path"], "/v2/a/manifests/\u{1f600}\"\n");
        assert_eq!((&old[1]["user"], &old[1]["status"]), (&"anna".into(), &201.into()));
        assert_eq!(new[0]["path"].as_str().unwrap().len(), MAX_TEXT);
    }

    #[test]
    fn a_full_disk_costs_lines_and_they_are_counted() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("audit");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let log = AuditLog::open(&path).unwrap();
        for _ in 0..3 {
            log.write(&entry("/"));
        }
        while log.0.lost.load(Ordering::Relaxed) < 3 {
            std::thread::sleep(Duration::from_millis(2));
        }
        std::fs::remove_file(&path).unwrap();
        log.reopen();
        log.write(&entry("/"));
        log.close();
        let lines = lines(&path);
        let lost: u64 = lines.iter().filter_map(|line| line["lines"].as_u64()).sum();
        assert_eq!(lost, 3, "{lines:?}");
        assert_eq!(lines.iter().filter(|line| line["event"] == "push").count(), 1);
    }

    #[test]
    fn nobody_waits_for_the_disk() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("audit");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let log = AuditLog::open(&path).unwrap();
        let many = 10 * MAX_WAITING as u64;
        for _ in 0..many {
            log.write(&entry("/"));
        }
        log.close();
        assert_eq!(log.0.lost.load(Ordering::Relaxed), many);
    }
}
