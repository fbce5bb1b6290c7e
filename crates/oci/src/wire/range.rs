//! Byte ranges: `Range` on downloads (RFC 9110, section 14) and the shorter `Content-Range: a-b` of uploads
//! (distribution-spec, "Pushing a blob in chunks").

use std::fmt;
use std::str::FromStr;

/// How many ranges one request may name after neighbours are joined. A partial pull of a chunked layer asks for some
/// hundred; a client that names more gets the whole blob.
pub const MAX_RANGES: usize = 1024;

/// A non-empty range of bytes within some content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset behind the last byte; always greater than `start`.
    pub end: u64,
}

impl ByteRange {
    /// How many bytes it has; never zero.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// The value of `Content-Range` for a part of content of `size` bytes.
    pub fn content_range(&self, size: u64) -> String {
        format!("bytes {}-{}/{size}", self.start, self.end - 1)
    }
}

/// What a `Range` header asks for, resolved against the size of the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// Everything: the header is not one that is understood, and RFC 9110 says to ignore it then.
    Full,
    /// One part, to be answered 206.
    Single(ByteRange),
    /// Several parts in ascending order that do not touch, to be answered 206 as `multipart/byteranges`.
    Multiple(Vec<ByteRange>),
    /// Nothing of what is asked exists, to be answered 416.
    Unsatisfiable,
}

impl Ranges {
    /// Resolves the value of a `Range` header against content of `size` bytes.
    pub fn parse(header: &str, size: u64) -> Self {
        let Some((unit, list)) = header.split_once('=') else { return Self::Full };
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Self::Full;
        }
        let mut ranges = Vec::new();
        for (count, text) in list.split(',').enumerate() {
            if count >= 4 * MAX_RANGES {
                return Self::Full;
            }
            match resolve(text.trim(), size) {
                Resolved::Malformed => return Self::Full,
                Resolved::Nothing => {}
                Resolved::Bytes(range) => ranges.push(range),
            }
        }
        let mut ranges = join(ranges);
        match ranges.len() {
            0 => Self::Unsatisfiable,
            1 => Self::Single(ranges.remove(0)),
            2..=MAX_RANGES => Self::Multiple(ranges),
            _ => Self::Full,
        }
    }
}

enum Resolved {
    Malformed,
    Nothing,
    Bytes(ByteRange),
}

/// Resolves one of `a-b`, `a-` and `-n`.
fn resolve(text: &str, size: u64) -> Resolved {
    let Some((first, last)) = text.split_once('-') else { return Resolved::Malformed };
    let range = match (number(first), number(last)) {
        (Some(start), Some(last)) => ByteRange { start, end: last.saturating_add(1).min(size) },
        (Some(start), None) if last.is_empty() => ByteRange { start, end: size },
        (None, Some(count)) if first.is_empty() => ByteRange { start: size.saturating_sub(count), end: size },
        _ => return Resolved::Malformed,
    };
    if range.start < range.end { Resolved::Bytes(range) } else { Resolved::Nothing }
}

/// Digits and nothing else (`parse` alone would take a plus sign). A number too large for a file counts as the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Sorts ranges and joins those that overlap or touch, so that a header cannot ask for the same bytes many times.
fn join(mut ranges: Vec<ByteRange>) -> Vec<ByteRange> {
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<ByteRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// `Content-Range` of an uploaded chunk: the offsets of its first and last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// Offset of the first byte.
    pub first: u64,
    /// Offset of the last byte, at least `first`.
    pub last: u64,
}

/// Why a `Content-Range` of an upload does not parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Content-Range of a chunk must be <first>-<last>, the offsets of its first and last byte")]
pub struct ContentRangeError;

impl FromStr for ContentRange {
    type Err = ContentRangeError;

    /// Reads `a-b`. The longer `bytes a-b/size` of RFC 9110, which some clients send, is understood too.
    fn from_str(text: &str) -> Result<Self, ContentRangeError> {
        let text = text.trim().strip_prefix("bytes").unwrap_or(text).trim_start_matches([' ', '=']);
        let text = text.split_once('/').map_or(text, |(range, _)| range).trim();
        let (first, last) = text.split_once('-').ok_or(ContentRangeError)?;
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last && last < u64::MAX => Ok(Self { first, last }),
            _ => Err(ContentRangeError),
        }
    }
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange { start, end }
    }

    #[test]
    fn single_ranges_of_2048_bytes() {
        for (header, expected) in [
            ("bytes=500-1499", Ranges::Single(range(500, 1500))),
            ("bytes=500-", Ranges::Single(range(500, 2048))),
            ("bytes=-500", Ranges::Single(range(1548, 2048))),
            ("bytes=-5000", Ranges::Single(range(0, 2048))),
            ("bytes=2000-5000", Ranges::Single(range(2000, 2048))),
            ("bytes=0-99999999999999999999999", Ranges::Single(range(0, 2048))),
            ("bytes=500-0", Ranges::Unsatisfiable),
            ("bytes=5000-10000", Ranges::Unsatisfiable),
            ("bytes=-0", Ranges::Unsatisfiable),
            ("Bytes = 0-0", Ranges::Single(range(0, 1))),
            ("bytes=", Ranges::Full),
            ("bytes=-", Ranges::Full),
            ("bytes=+1-2", Ranges::Full),
            ("bytes=a-b", Ranges::Full),
            ("lines=1-2", Ranges::Full),
            ("", Ranges::Full),
        ] {
            assert_eq!(Ranges::parse(header, 2048), expected, "{header}");
        }
    }

    #[test]
    fn several_ranges_are_sorted_and_joined() {
        assert_eq!(Ranges::parse("bytes=10-19,0-4", 100), Ranges::Multiple(vec![range(0, 5), range(10, 20)]));
        assert_eq!(Ranges::parse("bytes=0-4,5-9", 100), Ranges::Single(range(0, 10)));
        assert_eq!(Ranges::parse("bytes=0-4,500-600", 100), Ranges::Single(range(0, 5)));
        let many = (0..2000).map(|n| format!("{}-{}", 2 * n, 2 * n)).collect::<Vec<_>>().join(",");
        assert_eq!(Ranges::parse(&format!("bytes={many}"), 100_000), Ranges::Full);
    }

    #[test]
    fn content_ranges_of_chunks() {
        assert_eq!("0-9".parse(), Ok(ContentRange { first: 0, last: 9 }));
        assert_eq!("bytes 5-9/10".parse(), Ok(ContentRange { first: 5, last: 9 }));
        for bad in ["", "-", "9-0", "5", "a-b", "0-18446744073709551615", "1-2-3"] {
            assert_eq!(bad.parse::<ContentRange>(), Err(ContentRangeError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn ranges_stay_inside_and_apart(header in "bytes=[0-9,-]{0,40}", size in 0..10_000_u64) {
            let ranges = match Ranges::parse(&header, size) {
                Ranges::Single(range) => vec![range],
                Ranges::Multiple(ranges) => ranges,
                Ranges::Full | Ranges::Unsatisfiable => vec![],
            };
            prop_assert!(ranges.iter().all(|r| r.start < r.end && r.end <= size));
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        }

        #[test]
        fn no_text_panics(text in ".{0,60}", size in any::<u64>()) {
            let _ = Ranges::parse(&text, size);
            let _ = text.parse::<ContentRange>();
        }
    }
}
