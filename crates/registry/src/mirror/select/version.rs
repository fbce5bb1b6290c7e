//! Versions in tags, and ranges of them (Semantic Versioning 2.0.0, section 11).
//!
//! Tags are less strict than the specification: there may be a `v` in front, and parts may be missing, which then count
//! as 0. A tag cannot have build metadata.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The longest range, in bytes.
const MAX_RANGE_LEN: usize = 256;

/// A version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Major, minor and patch.
    numbers: [u64; 3],
    /// What stands behind the hyphen, between dots; empty is a release.
    pre: Vec<Identifier>,
}

/// A part of what stands behind the hyphen. Numbers come before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Word(String),
}

impl Version {
    /// The version that a tag is; `None` when it is none.
    pub fn parse(tag: &str) -> Option<Self> {
        Self::read(tag).map(|(version, _)| version)
    }

    /// A version, and how many of its three numbers are given.
    fn read(text: &str) -> Option<(Self, usize)> {
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let (numbers, pre) = match text.split_once('-') {
            Some((numbers, pre)) => (numbers, Some(pre)),
            None => (text, None),
        };
        let mut read = [0; 3];
        let mut given = 0;
        for number in numbers.split('.') {
            *read.get_mut(given)? = number_of(number)?;
            given += 1;
        }
        let pre = pre.map(|pre| pre.split('.').map(Identifier::of).collect::<Option<Vec<_>>>());
        let pre = match pre {
            Some(pre) => pre?,
            None => Vec::new(),
        };
        Some((Self { numbers: read, pre }, given))
    }

    /// Whether it comes before the release with its numbers.
    pub fn is_prerelease(&self) -> bool {
        !self.pre.is_empty()
    }
}

/// A number without a sign.
fn number_of(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

impl Identifier {
    fn of(text: &str) -> Option<Self> {
        let possible =
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        possible.then(|| number_of(text).map_or_else(|| Self::Word(text.to_owned()), Self::Number))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let release = |version: &Self| version.pre.is_empty();
        self.numbers
            .cmp(&other.numbers)
            .then_with(|| release(self).cmp(&release(other)))
            .then_with(|| self.pre.cmp(&other.pre))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A range of versions: bounds that all hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    text: Box<str>,
    bounds: Vec<Bound>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bound {
    from: Option<(Version, bool)>,
    to: Option<(Version, bool)>,
    /// The version as it was written: a pre-release that is named is wanted.
    named: Version,
}

/// Why a text is not a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a range is made of versions with >=, >, <=, <, =, ^ or ~ in front and commas or spaces between, such as \
     \">=1.2, <3\" or \"^1.4\""
)]
pub struct RangeError;

impl Range {
    /// Whether a version is in the range. A pre-release is only when a bound names one with the same three numbers:
    /// who wants `>=1.2` does not mean `2.0.0-rc1`.
    pub fn contains(&self, version: &Version) -> bool {
        let above = |(from, inclusive): &(Version, bool)| version > from || *inclusive && version == from;
        let below = |(to, inclusive): &(Version, bool)| version < to || *inclusive && version == to;
        let holds =
            |bound: &Bound| bound.from.as_ref().is_none_or(above) && bound.to.as_ref().is_none_or(below);
        let named = |bound: &Bound| bound.named.is_prerelease() && bound.named.numbers == version.numbers;
        self.bounds.iter().all(holds) && (!version.is_prerelease() || self.bounds.iter().any(named))
    }
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        if text.len() > MAX_RANGE_LEN {
            return Err(RangeError);
        }
        let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
        let bounds: Vec<Bound> = parts.map(Bound::parse).collect::<Option<_>>().ok_or(RangeError)?;
        if bounds.is_empty() { Err(RangeError) } else { Ok(Self { text: text.into(), bounds }) }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Bound {
    fn parse(text: &str) -> Option<Self> {
        let operators = [">=", "<=", ">", "<", "=", "^", "~"];
        let operator = operators.into_iter().find(|operator| text.starts_with(operator)).unwrap_or("=");
        let (version, given) = Version::read(text.strip_prefix(operator).unwrap_or(text))?;
        let from = Some((version.clone(), true));
        let (from, to) = match operator {
            ">=" => (from, None),
            // What is missing counts as anything: 1.2.5 is not above 1.2.
            ">" if given < 3 => (Some((version.after(given - 1)?, true)), None),
            ">" => (Some((version.clone(), false)), None),
            "<=" if given < 3 => (None, Some((version.after(given - 1)?, false))),
            "<=" => (None, Some((version.clone(), true))),
            "<" => (None, Some((version.clone(), false))),
            // The first number that is not 0 stays.
            "^" => {
                let first = version.numbers.iter().position(|number| *number != 0).unwrap_or(given - 1);
                (from, Some((version.after(first)?, false)))
            }
            "~" => (from, Some((version.after((given - 1).min(1))?, false))),
            _ if given < 3 => (from, Some((version.after(given - 1)?, false))),
            _ => (from, Some((version.clone(), true))),
        };
        Some(Self { from, to, named: version })
    }
}

impl Version {
    /// The first version in which the number at `place` is larger.
    fn after(&self, place: usize) -> Option<Self> {
        let mut numbers = [0; 3];
        for (at, number) in self.numbers.iter().enumerate().take(place + 1) {
            numbers[at] = *number;
        }
        numbers[place] = numbers[place].checked_add(1)?;
        Some(Self { numbers, pre: Vec::new() })
    }
}
