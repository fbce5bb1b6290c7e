//! One tag, tags with something in common, or tags that a regular expression describes.

use std::fmt;
use std::str::FromStr;

use deltaport_oci::Tag;
use regex::bytes::{Regex, RegexBuilder};

use crate::upstream::TagPattern;

/// What stands in front of a regular expression. No tag has a colon.
const REGEX: &str = "regex:";
/// The longest regular expression, in bytes.
const MAX_LEN: usize = 512;
/// The most memory that one may take, in bytes. It is taken for each rule, and once more while tags are compared.
const MAX_SIZE: usize = 1 << 20;
/// How deep one may nest.
const MAX_DEPTH: u32 = 32;

/// Which tags: a text in which `*` stands for anything, or behind `regex:` a regular expression for the whole tag.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// A text with stars in it, or none.
    Glob(TagPattern),
    /// A regular expression, as it was written and as it is compared: in time proportional to the tag, whatever it says.
    Regex(Box<str>, Regex),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is no tag either.
    #[error(
        "a pattern is made of 1 to 128 letters, digits, _ . - and * for anything; or it is regex: and an expression for the whole tag"
    )]
    Glob,
    /// It cannot be read, or is too large.
    #[error("it is no regular expression: {0}")]
    Regex(String),
}

impl Pattern {
    /// Whether `tag` fits.
    pub fn matches(&self, tag: &Tag) -> bool {
        match self {
            Self::Glob(glob) => glob.matches(tag.as_str()),
            Self::Regex(_, regex) => regex.is_match(tag.as_str().as_bytes()),
        }
    }

    /// The only tag that fits, if there is no more than one.
    pub(super) fn literal(&self) -> Option<Tag> {
        match self {
            Self::Glob(glob) => glob.to_string().parse().ok(),
            Self::Regex(..) => None,
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let Some(expression) = text.strip_prefix(REGEX) else {
            return text.parse().map(Self::Glob).map_err(|_| PatternError::Glob);
        };
        if expression.len() > MAX_LEN {
            return Err(PatternError::Regex(format!("it is longer than {MAX_LEN} bytes")));
        }
        // Tags are ASCII. By themselves, so that nobody can close the group of the other and match a part.
        let build = |text: &str| {
            let mut builder = RegexBuilder::new(text);
            builder.unicode(false).size_limit(MAX_SIZE).nest_limit(MAX_DEPTH).build()
        };
        // The last line of such an error says what is wrong, those above show where.
        let said = |error: regex::Error| {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            PatternError::Regex(last.trim_start_matches("error: ").to_owned())
        };
        build(expression).map_err(said)?;
        let whole = build(&format!(r"\A(?:{expression})\z")).map_err(said)?;
        Ok(Self::Regex(expression.into(), whole))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Glob(glob) => glob.fmt(f),
            Self::Regex(text, _) => write!(f, "{REGEX}{text}"),
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Glob(one), Self::Glob(other)) => one == other,
            (Self::Regex(one, _), Self::Regex(other, _)) => one == other,
            _ => false,
        }
    }
}

impl Eq for Pattern {}
