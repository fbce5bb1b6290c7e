//! Times as certificates and trusted roots write them, in UTC.

use std::time::{Duration, SystemTime};

/// From when until when something may be used; without an end, for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) from: Option<SystemTime>,
    pub(crate) until: Option<SystemTime>,
}

impl Period {
    pub(crate) fn is_over(&self, time: SystemTime) -> bool {
        self.until.is_some_and(|until| time > until)
    }

    pub(crate) fn has_begun(&self, time: SystemTime) -> bool {
        self.from.is_none_or(|from| time >= from)
    }

    /// The time that is in both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            from: self.from.max(other.from),
            until: match (self.until, other.until) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
        }
    }
}

/// The time of a year, month, day, hour, minute and second; none before 1970, when there were no certificates.
pub(crate) fn time([year, month, day, hour, minute, second]: [u64; 6]) -> Option<SystemTime> {
    let valid =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
    if !valid || !(1970..=9999).contains(&year) {
        return None;
    }
    let seconds = days(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years begin in March here, so that the day that leap years
/// have more is their last.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    // What the same sum gives for 1970-01-01, and one day less, since days count from 1.
    days.checked_sub(719_469)
}

/// Reads a Timestamp in the JSON of protobuf: `2021-01-12T11:53:27.000Z`, with any number of digits behind the second.
pub(crate) fn rfc3339(text: &str) -> Option<SystemTime> {
    let text = text.strip_suffix('Z')?;
    let (text, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let bytes = text.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if bytes.len() != 19 || !digits(fraction) || separators.iter().any(|(at, byte)| bytes[*at] != *byte) {
        return None;
    }
    let mut parts = [0; 6];
    for (part, range) in parts.iter_mut().zip([0..4, 5..7, 8..10, 11..13, 14..16, 17..19]) {
        let text = text.get(range).filter(|text| digits(text))?;
        *part = text.parse().ok()?;
    }
    time(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_read() {
        let seconds =
            |text| rfc3339(text).map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2023-11-14T22:13:20Z"), Some(1_700_000_000));
        assert_eq!(seconds("2023-11-14T22:13:20.123456789Z"), Some(1_700_000_000));
        for text in [
            "",
            "Z",
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-11-14T22:13:20+00:00",
            "2023-11-14T22:13:20.Z",
            "2023-13-14T22:13:20Z",
            "2023-11-14t22:13:20Z",
            "+023-11-14T22:13:20Z",
            "1969-12-31T23:59:59Z",
            "2023-11-14T22:13:2\u{e9}Z",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn periods_have_two_ends() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let period = Period { from: Some(at(5)), until: Some(at(9)) };
        for (seconds, begun, over) in
            [(4, false, false), (5, true, false), (9, true, false), (10, true, true)]
        {
            assert_eq!(
                (period.has_begun(at(seconds)), period.is_over(at(seconds))),
                (begun, over),
                "{seconds}"
            );
        }
        let open = Period { from: Some(at(7)), until: None };
        assert_eq!(period.and(open), Period { from: Some(at(7)), until: Some(at(9)) });
        assert_eq!(open.and(Period::default()), open);
    }
}
