//! Schedules of five fields, as crontab(5) has them.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan as _};

use super::WEEKDAYS;

/// How many days are looked through for the next: the 29th of February may be eight years away.
const MAX_DAYS: usize = 8 * 366 + 1;
/// How many changes of the clock are gone past; there are at most a few a year.
const MAX_CHANGES: usize = 64;
/// The longest text that is read.
const MAX_LEN: usize = 256;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Words that stand for five fields.
const WORDS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// Minutes at which something happens: minute, hour, day of the month, month and day of the week. Where both days are
/// given, either is enough.
#[derive(Clone, PartialEq, Eq)]
pub struct Cron {
    text: Box<str>,
    /// Bit n is the number n, in each of these.
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// 0 is Sunday.
    weekdays: u64,
    /// Whether it happens in every hour of its days: then it goes with the time that passes, not with the clock.
    hourly: bool,
    either_day: bool,
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// It has not five fields, and is none of the words.
    #[error(
        "a schedule has five fields: minute, hour, day of the month, month, day of the week; or is @hourly, @daily, @weekly, @monthly or @yearly"
    )]
    Fields,
    /// A field says something else than it can.
    #[error("{text:?} is no {field}: numbers from {least} to {most}, ranges, lists and steps are")]
    Field {
        /// What it is about.
        field: &'static str,
        /// What it says.
        text: String,
        /// The smallest number that there is.
        least: u8,
        /// The largest.
        most: u8,
    },
    /// There is no such day.
    #[error("there is no such day in any year")]
    Never,
}

/// What a field is about, and which numbers and names it may have.
struct Field {
    name: &'static str,
    least: u8,
    most: u8,
    /// From `least` on.
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", least: 0, most: 59, names: &[] },
    Field { name: "hour", least: 0, most: 23, names: &[] },
    Field { name: "day of the month", least: 1, most: 31, names: &[] },
    Field { name: "month", least: 1, most: 12, names: &MONTHS },
    Field { name: "day of the week", least: 0, most: 7, names: &WEEKDAYS },
];

impl Cron {
    /// The first moment behind `after` at which it happens in `zone`; `None` behind the end of all calendars.
    ///
    /// Where the clock is put forward, what would have happened in between happens when it is; where it is put back, what
    /// happens at given hours happens the first time. What happens in every hour follows the time that passes: not at
    /// moments that are left out, and again at those that come again.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut from = after.checked_add(SignedDuration::from_secs(1)).ok()?;
        for _ in 0..MAX_CHANGES {
            // Until the next change, the clock is so far from UTC.
            let offset = zone.to_offset(from);
            let change = zone.following(from).next();
            let mut clock = whole_minute(offset.to_datetime(from))?;
            while let Some(at) = self.on_clock(clock) {
                let moment = offset.to_timestamp(at).ok()?;
                if change.as_ref().is_some_and(|change| moment >= change.timestamp()) {
                    break;
                }
                if self.hourly || !is_second_time(at, moment, zone) {
                    return Some(moment);
                }
                clock = at.checked_add(1.minute()).ok()?;
            }
            let change = change?;
            let (before, behind) =
                (offset.to_datetime(change.timestamp()), change.offset().to_datetime(change.timestamp()));
            if !self.hourly
                && before < behind
                && self.on_clock(whole_minute(before)?).is_some_and(|at| at < behind)
            {
                return Some(change.timestamp());
            }
            from = change.timestamp();
        }
        None
    }

    /// The first minute not before `from` at which it happens, by a clock that nobody changes.
    fn on_clock(&self, from: DateTime) -> Option<DateTime> {
        let (mut date, mut least) = (from.date(), from.time());
        for _ in 0..MAX_DAYS {
            if self.is_on(date)
                && let Some(time) = self.time_from(least)
            {
                return Some(date.to_datetime(time));
            }
            date = date.tomorrow().ok()?;
            least = Time::midnight();
        }
        None
    }

    fn is_on(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        has(self.months, date.month()) && if self.either_day { day || weekday } else { day && weekday }
    }

    /// The first time of a day from `least` on.
    fn time_from(&self, least: Time) -> Option<Time> {
        (least.hour()..24).filter(|hour| has(self.hours, *hour)).find_map(|hour| {
            let from = if hour == least.hour() { least.minute() } else { 0 };
            let minute = (from..60).find(|minute| has(self.minutes, *minute))?;
            Time::new(hour, minute, 0, 0).ok()
        })
    }
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        if text.len() > MAX_LEN {
            return Err(CronError::Fields);
        }
        let word = WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text.trim()));
        let fields: Vec<&str> = word.map_or(text, |(_, fields)| *fields).split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.try_into().map_err(|_| CronError::Fields)?;
        let [minutes, hours, days, months, weekdays] = &FIELDS;
        let weekdays = weekdays.read(weekday)?;
        let cron = Self {
            text: text.trim().into(),
            minutes: minutes.read(minute)?,
            hours: hours.read(hour)?,
            days: days.read(day)?,
            months: months.read(month)?,
            // Sunday has two numbers.
            weekdays: weekdays & 0x7f | weekdays >> 7,
            hourly: hour.starts_with('*'),
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        };
        // Every day of every month falls on every day of the week in time.
        let longest = |month| match month {
            2 => 29,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let exists = |month| has(cron.months, month) && (1..=longest(month)).any(|day| has(cron.days, day));
        match cron.either_day || (1..=12).any(exists) {
            true => Ok(cron),
            false => Err(CronError::Never),
        }
    }
}

impl Field {
    /// The numbers that a field names, as bits.
    fn read(&self, text: &str) -> Result<u64, CronError> {
        let parts = text.split(',').map(|part| self.read_part(part));
        let all = parts.reduce(|one, other| Some(one? | other?)).flatten();
        all.ok_or_else(|| CronError::Field {
            field: self.name,
            text: text.to_owned(),
            least: self.least,
            most: self.most,
        })
    }

    /// `*`, `a` or `a-b`, each with `/step` behind it or not; `a/step` goes to the end.
    fn read_part(&self, part: &str) -> Option<u64> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u8>().ok().filter(|step| *step > 0)?)),
            None => (part, None),
        };
        let (first, last) = match (range, range.split_once('-')) {
            ("*", _) => (self.least, self.most),
            (_, Some((first, last))) => (self.number(first)?, self.number(last)?),
            (one, None) => (self.number(one)?, if step.is_some() { self.most } else { self.number(one)? }),
        };
        let numbers = (first..=last).step_by(step.unwrap_or(1).into());
        (first <= last).then(|| numbers.fold(0, |bits, number| bits | 1 << number))
    }

    fn number(&self, text: &str) -> Option<u8> {
        if let Some(at) = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return u8::try_from(at).ok()?.checked_add(self.least);
        }
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| plain && (self.least..=self.most).contains(number))
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({})", self.text)
    }
}

fn has(bits: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|number| bits.checked_shr(number).is_some_and(|bits| bits & 1 == 1))
}

/// The next whole minute, or this one.
fn whole_minute(clock: DateTime) -> Option<DateTime> {
    let whole = clock.date().at(clock.hour(), clock.minute(), 0, 0);
    if whole == clock { Some(whole) } else { whole.checked_add(1.minute()).ok() }
}

/// Whether a clock that was put back shows this for the second time at `moment`.
fn is_second_time(clock: DateTime, moment: Timestamp, zone: &TimeZone) -> bool {
    match zone.to_ambiguous_timestamp(clock).offset() {
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(clock).is_ok_and(|first| first < moment),
        _ => false,
    }
}
