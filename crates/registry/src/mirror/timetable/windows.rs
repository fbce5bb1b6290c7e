//! Hours of the week in which something may happen.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan as _};

use super::weekday;

/// Minutes of a day.
const DAY: u16 = 24 * 60;
/// How many days ahead of a moment there may be the next change: one week, one day more for a window that begins before
/// midnight, and one for clocks that are changed.
const AHEAD: i64 = 9;
/// How many changes of the clock there can be in that time.
const MAX_CHANGES: usize = 8;

/// Hours of some days of the week, such as `mon-fri 22:00-05:00`. Those that end before they begin go on into the next
/// day.
#[derive(Clone, PartialEq, Eq)]
pub struct Window {
    text: Box<str>,
    /// Bit n is the n-th day on which it begins, 0 for Sunday.
    days: u8,
    /// In minutes from midnight.
    begin: u16,
    /// Likewise; the end itself is not in it.
    end: u16,
}

/// Why a text is no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// It looks like something else.
    #[error(
        "a window is written as \"mon-fri 22:00-05:00\", \"sat,sun 00:00-24:00\" or, for all days, \"22:00-05:00\""
    )]
    Form,
    /// It ends when it begins.
    #[error("it ends when it begins; the whole day is \"00:00-24:00\"")]
    Empty,
}

/// When something may happen: always if there are no windows, else in any of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows(Vec<Window>);

impl Windows {
    /// These.
    pub fn new(windows: Vec<Window>) -> Self {
        Self(windows)
    }

    /// Whether `at` is in one of them in `zone`: whether a clock on the wall shows a time that is.
    pub fn is_open(&self, at: Timestamp, zone: &TimeZone) -> bool {
        let clock = zone.to_datetime(at);
        self.0.is_empty() || self.0.iter().any(|window| window.has(clock))
    }

    /// The first moment behind `at` at which it is otherwise than at `at`; `None` when it is always the same.
    ///
    /// A clock that is put forward may leave a window out, or a part of it, and one that is put back may open it twice.
    pub fn next_change(&self, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let today = zone.to_datetime(at).date();
        let mut moments: Vec<Timestamp> =
            zone.following(at).take(MAX_CHANGES).map(|change| change.timestamp()).collect();
        for day in -1..=AHEAD {
            let Ok(date) = today.checked_add(day.days()) else { continue };
            for minute in self.0.iter().flat_map(|window| [window.begin, window.end]) {
                let clock = date.at(0, 0, 0, 0).checked_add(i64::from(minute).minutes());
                moments.extend(clock.into_iter().flat_map(|clock| shown(clock, zone)));
            }
        }
        moments.sort_unstable();
        let now = self.is_open(at, zone);
        moments.into_iter().find(|moment| *moment > at && self.is_open(*moment, zone) != now)
    }
}

impl Window {
    fn has(&self, clock: DateTime) -> bool {
        let minute = u16::try_from(i16::from(clock.hour()) * 60 + i16::from(clock.minute())).unwrap_or(0);
        let day = u32::try_from(clock.weekday().to_sunday_zero_offset()).unwrap_or(0);
        let begins = |day: u32| self.days >> (day % 7) & 1 == 1;
        match self.begin < self.end {
            true => begins(day) && (self.begin..self.end).contains(&minute),
            false => begins(day) && minute >= self.begin || begins(day + 6) && minute < self.end,
        }
    }
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let (days, hours) = match words[..] {
            [days, hours] => (read_days(days).ok_or(WindowError::Form)?, hours),
            [hours] => (0x7f, hours),
            _ => return Err(WindowError::Form),
        };
        let (begin, end) = hours.split_once('-').ok_or(WindowError::Form)?;
        let begin = read_minute(begin).filter(|begin| *begin < DAY).ok_or(WindowError::Form)?;
        let end = read_minute(end).ok_or(WindowError::Form)?;
        match begin == end {
            true => Err(WindowError::Empty),
            false => Ok(Self { text: text.trim().into(), days, begin, end }),
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Window({})", self.text)
    }
}

/// Days and ranges of days with commas between them, as bits. A range may go over the end of the week.
fn read_days(text: &str) -> Option<u8> {
    text.split(',').try_fold(0, |bits, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (weekday(first)?, weekday(last)?);
        let length = (last + 7 - first) % 7;
        Some((0..=length).fold(bits, |bits, step| bits | 1 << ((first + step) % 7)))
    })
}

/// `22:00`, in minutes from midnight; `24:00` is the end of the day.
fn read_minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str, lengths: std::ops::RangeInclusive<usize>| {
        let plain = lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| plain)
    };
    let (hour, minute) = (number(hour, 1..=2)?, number(minute, 2..=2).filter(|minute| *minute < 60)?);
    Some(hour * 60 + minute).filter(|minute| *minute <= DAY)
}

/// When a clock shows this: once, twice, or never.
fn shown(clock: DateTime, zone: &TimeZone) -> Vec<Timestamp> {
    let offsets = match zone.to_ambiguous_timestamp(clock).offset() {
        AmbiguousOffset::Unambiguous { offset } => vec![offset],
        AmbiguousOffset::Fold { before, after } => vec![before, after],
        // The moment of the change is looked at in any case.
        AmbiguousOffset::Gap { .. } => Vec::new(),
    };
    offsets.into_iter().filter_map(|offset| offset.to_timestamp(clock).ok()).collect()
}
