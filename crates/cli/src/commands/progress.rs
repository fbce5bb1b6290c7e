//! How far a long command is, on a terminal and nowhere else: in a file or a log it would only be noise.
//!
//! No colours are used, and nothing is written to a terminal that says (`TERM=dumb`) that it cannot go back to what it has
//! written.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::output::rounded;

/// How often the line is written anew at most.
const INTERVAL: Duration = Duration::from_millis(100);
/// The size of a terminal that does not say it, in columns and rows.
const USUAL: (usize, usize) = (80, 24);
/// The widest bar, in columns, its ends included; and the narrowest that still says something.
const BAR: (usize, usize) = (32, 8);
/// How much a speed is that of the last moment, and how much that of all before it.
const FRESH: f64 = 0.4;

/// Whether the standard error output is a terminal on which one can go back.
fn is_screen() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    let told = rustix::termios::tcgetwinsize(io::stderr()).ok();
    let told = told.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
    told.filter(|(columns, rows)| *columns > 0 && *rows > 0).unwrap_or(USUAL)
}

/// A line of the terminal that is written over and over.
pub(crate) struct Line {
    /// When it was last written; `None` where there is no terminal.
    written: Option<Mutex<Option<Instant>>>,
}

impl Line {
    /// A line on the standard error output, if that is a terminal.
    pub(crate) fn on_terminal() -> Self {
        Self { written: is_screen().then(Mutex::default) }
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

/// Something that is on its way.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    /// What tells it from others, and stands before its bar.
    pub(crate) name: String,
    /// How many of its bytes have come.
    pub(crate) bytes: u64,
    /// How many it has.
    pub(crate) of: u64,
}

/// Lines at the end of the terminal that are written over and over: a bar for each transfer, and one line for all.
pub(crate) struct Bars {
    /// How many lines are there; `None` where there is no terminal.
    drawn: Option<usize>,
    last: Option<Instant>,
    speeds: Speeds,
}

impl Bars {
    /// Lines on the standard error output, if that is a terminal.
    pub(crate) fn on_terminal() -> Self {
        Self { drawn: is_screen().then_some(0), last: None, speeds: Speeds::default() }
    }

    /// Shows this in place of what was there: `transfers` from the top, as far as there is room, and `all` below, of which
    /// `bytes` bytes have come. What comes sooner than a tenth of a second after the last is not shown.
    pub(crate) fn show(&mut self, transfers: &[Transfer], all: &str, bytes: u64) {
        let now = Instant::now();
        let soon = self.last.is_some_and(|last| now.duration_since(last) < INTERVAL);
        let Some(drawn) = self.drawn.filter(|_| !soon) else { return };
        self.last = Some(now);
        self.speeds.note(transfers, bytes, now);
        let lines = lines(transfers, all, &self.speeds, size());
        let mut text = up(drawn);
        for (number, line) in lines.iter().enumerate() {
            let end = if number + 1 < lines.len() { "\r\n" } else { "" };
            let _ = write!(text, "\x1b[K{line}{end}");
        }
        text.push_str("\x1b[J");
        write(&text);
        self.drawn = Some(lines.len());
    }

    /// Leaves the lines empty for what comes next.
    pub(crate) fn clear(&mut self) {
        if let Some(drawn) = self.drawn.filter(|drawn| *drawn > 0) {
            write(&format!("{}\x1b[J", up(drawn)));
            self.drawn = Some(0);
        }
    }
}

/// Goes back to the beginning of the first of so many lines.
fn up(lines: usize) -> String {
    match lines {
        0 | 1 => "\r".to_owned(),
        _ => format!("\r\x1b[{}A", lines - 1),
    }
}

/// How fast each transfer is, and all together, in bytes a second.
#[derive(Debug, Default)]
struct Speeds {
    each: BTreeMap<String, Speed>,
    all: Option<Speed>,
}

#[derive(Clone, Copy, Debug)]
struct Speed {
    at: Instant,
    bytes: u64,
    speed: f64,
}

impl Speed {
    fn since(earlier: Option<&Self>, bytes: u64, at: Instant) -> Self {
        let Some(earlier) = earlier else { return Self { at, bytes, speed: 0.0 } };
        let seconds = at.duration_since(earlier.at).as_secs_f64().max(f64::EPSILON);
        let speed = bytes.saturating_sub(earlier.bytes) as f64 / seconds;
        let speed = match earlier.speed > 0.0 {
            true => FRESH * speed + (1.0 - FRESH) * earlier.speed,
            false => speed,
        };
        Self { at, bytes, speed }
    }
}

impl Speeds {
    fn note(&mut self, transfers: &[Transfer], bytes: u64, at: Instant) {
        let each = transfers.iter().map(|Transfer { name, bytes, .. }| {
            (name.clone(), Speed::since(self.each.get(name), *bytes, at))
        });
        self.each = each.collect();
        self.all = Some(Speed::since(self.all.as_ref(), bytes, at));
    }
}

fn words(speed: Option<&Speed>) -> String {
    match speed {
        Some(Speed { speed, .. }) if *speed >= 1.0 => format!("{}/s", rounded(*speed as u64)),
        _ => String::new(),
    }
}

/// What is shown in a terminal of so many columns and rows.
fn lines(transfers: &[Transfer], all: &str, speeds: &Speeds, (columns, rows): (usize, usize)) -> Vec<String> {
    // One row is for the cursor, one for all together, and one for those for which there is no room.
    let room = rows.saturating_sub(3).max(1);
    let shown = if transfers.len() > room { room - 1 } else { transfers.len() };
    let name = transfers.iter().map(|transfer| transfer.name.chars().count()).max().unwrap_or(0);
    let mut lines: Vec<String> = transfers[..shown]
        .iter()
        .map(|transfer| {
            let sizes = format!("{:>8} of {:>8}", rounded(transfer.bytes), rounded(transfer.of));
            let speed = words(speeds.each.get(&transfer.name));
            let beside = name + sizes.len() + 16;
            let bar = bar(transfer.bytes, transfer.of, columns.saturating_sub(beside).min(BAR.0));
            format!("{:name$}  {bar}{sizes}  {speed:>10}", transfer.name)
        })
        .collect();
    if shown < transfers.len() {
        lines.push(format!("and {} more", transfers.len() - shown));
    }
    let speed = words(speeds.all.as_ref());
    lines.push(if speed.is_empty() { all.to_owned() } else { format!("{all}, {speed}") });
    // The last column is left free: some terminals go on in the next line when it is written to.
    lines.iter().map(|line| line.trim_end().chars().take(columns.saturating_sub(1)).collect()).collect()
}

/// A bar of so many columns, and the space behind it; nothing where it would say nothing.
fn bar(bytes: u64, of: u64, columns: usize) -> String {
    if columns < BAR.1 || of == 0 {
        return String::new();
    }
    let room = columns - 2;
    let part = u128::from(bytes.min(of)) * room as u128 / u128::from(of);
    let full = usize::try_from(part).unwrap_or(room);
    format!("[{}{}]  ", "#".repeat(full), ".".repeat(room - full))
}

/// Progress that cannot be shown is not worth failing for.
fn write(text: &str) {
    let mut output = io::stderr().lock();
    let _unseen = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(name: &str, bytes: u64, of: u64) -> Transfer {
        Transfer { name: name.to_owned(), bytes, of }
    }

    #[test]
    fn a_bar_is_as_long_as_what_has_come() {
        for (bytes, of, columns, expected) in [
            (0, 100, 12, "[..........]  "),
            (50, 100, 12, "[#####.....]  "),
            (99, 100, 12, "[#########.]  "),
            (100, 100, 12, "[##########]  "),
            (200, 100, 12, "[##########]  "),
            (u64::MAX / 2, u64::MAX, 12, "[####......]  "),
            (1, 0, 12, ""),
            (50, 100, 7, ""),
        ] {
            assert_eq!(bar(bytes, of, columns), expected, "{bytes} of {of}");
        }
    }

    #[test]
    fn lines_keep_to_the_width_and_the_height_of_the_terminal() {
        let many: Vec<Transfer> =
            (0..40).map(|n| transfer(&format!("layer {n:02}"), n << 20, 40 << 20)).collect();
        for columns in [1, 10, 30, 60, 80, 300] {
            for rows in [1, 3, 5, 24, 100] {
                let lines = lines(&many, "all: 3 of 10 tags", &Speeds::default(), (columns, rows));
                assert!(lines.len() < rows.max(3), "{} lines in {rows} rows", lines.len());
                assert!(
                    lines.iter().all(|line| line.chars().count() < columns.max(1)),
                    "{columns}: {lines:#?}"
                );
            }
        }
        let lines = lines(&many, "all: 3 of 10 tags", &Speeds::default(), (80, 6));
        assert_eq!(lines[0], "layer 00  [..............................]        0B of    40MiB");
        assert_eq!(lines[2..], ["and 38 more", "all: 3 of 10 tags"]);
    }

    #[test]
    fn a_speed_follows_what_comes() {
        let (mut speeds, mut at) = (Speeds::default(), Instant::now());
        speeds.note(&[transfer("a", 0, 100 << 20)], 0, at);
        assert_eq!(words(speeds.each.get("a")), "", "nothing has come");
        for second in 1..=10 {
            at += Duration::from_secs(1);
            speeds.note(&[transfer("a", second * (20 << 20), 100 << 20)], second * (40 << 20), at);
        }
        assert_eq!(
            (words(speeds.each.get("a")).as_str(), words(speeds.all.as_ref()).as_str()),
            ("20MiB/s", "40MiB/s")
        );
        speeds.note(&[], 0, at);
        assert!(speeds.each.is_empty(), "what is over is forgotten");
    }
}
