//! How long what an upstream has said about a tag is believed, and how long what it said of missing things.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use deltaport_oci::Tag;

/// The longest pattern, in bytes; no tag is longer.
const MAX_PATTERN_LEN: usize = 128;

/// How long the answers of an upstream are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagPolicy {
    /// How long a tag is served without asking again, since the upstream last confirmed it. Zero asks each time.
    pub max_age: Duration,
    /// Tags that are not as the others; the first rule that has a fitting pattern counts.
    pub rules: Vec<TagRule>,
    /// How long a stored tag stands in for an upstream that does not answer.
    pub stale: Stale,
    /// How long "there is no such thing" and "not for you" are believed. Zero asks each time.
    pub negative_age: Duration,
}

impl TagPolicy {
    /// What the configuration begins with: ask each time, serve what is stored for as long as there is no answer.
    pub const DEFAULT: Self = Self {
        max_age: Duration::ZERO,
        rules: Vec::new(),
        stale: Stale::Forever,
        negative_age: Duration::from_secs(30),
    };

    /// How long `tag` is believed.
    pub(crate) fn lifetime(&self, tag: &Tag) -> Lifetime {
        let fits = |rule: &&TagRule| rule.tags.iter().any(|pattern| pattern.matches(tag.as_str()));
        self.rules.iter().find(fits).map_or(Lifetime::MaxAge(self.max_age), |rule| rule.lifetime)
    }
}

impl Default for TagPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Some tags, and how long they are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRule {
    /// Which tags: those that fit one of these.
    pub tags: Vec<TagPattern>,
    /// How long.
    pub lifetime: Lifetime,
}

/// How long a tag is believed, once it is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It never moves: the upstream is not asked about it again.
    Immutable,
    /// So long since the upstream last confirmed it.
    MaxAge(Duration),
}

/// How long a stored tag is served while its upstream is down, slow, refuses, or has had enough of us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stale {
    /// As long as it takes.
    #[default]
    Forever,
    /// So long since the upstream last confirmed it; since the start of the process for what was stored before.
    For(Duration),
}

/// Tags: a text in which `*` stands for any characters, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagPattern(Box<str>);

/// Why a text is not a pattern of tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pattern of tags is made of 1 to {MAX_PATTERN_LEN} letters, digits, _ . - and * for anything")]
pub struct TagPatternError;

impl TagPattern {
    /// Whether `tag` fits. Takes time proportional to the product of both lengths at most.
    pub fn matches(&self, tag: &str) -> bool {
        let (pattern, tag) = (self.0.as_bytes(), tag.as_bytes());
        let (mut at, mut read) = (0, 0);
        // Where the last star stands, and how much of the tag it has been given: the only choice to come back to.
        let mut star: Option<(usize, usize)> = None;
        while read < tag.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, read));
                    at += 1;
                }
                Some(byte) if *byte == tag[read] => {
                    at += 1;
                    read += 1;
                }
                _ => {
                    let Some((place, given)) = star else { return false };
                    star = Some((place, given + 1));
                    at = place + 1;
                    read = given + 1;
                }
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

impl FromStr for TagPattern {
    type Err = TagPatternError;

    fn from_str(text: &str) -> Result<Self, TagPatternError> {
        let possible = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-*".contains(&byte);
        if text.is_empty() || text.len() > MAX_PATTERN_LEN || !text.bytes().all(possible) {
            return Err(TagPatternError);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> TagPattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_star_stands_for_anything_or_nothing() {
        for (text, fits, does_not) in [
            ("latest", &["latest"][..], &["Latest", "latest1", "lates"][..]),
            ("v*", &["v", "v1.2.3"], &["1v", "V1"]),
            ("*-rc*", &["-rc", "v1-rc2", "-rc-rc"], &["v1-r", "rc"]),
            ("*", &["a", "1.2"], &[]),
            ("1.*.*-slim", &["1.2.3-slim", "1..-slim"], &["1.2-slim", "1.2.3-slim2"]),
            ("a**b", &["ab", "axxb"], &["a", "abc"]),
        ] {
            for tag in fits {
                assert!(pattern(text).matches(tag), "{text} {tag}");
            }
            for tag in does_not {
                assert!(!pattern(text).matches(tag), "{text} {tag}");
            }
        }
        for text in ["", "a/b", "v?", "ä", &"x".repeat(129)] {
            assert_eq!(text.parse::<TagPattern>(), Err(TagPatternError), "{text}");
        }
    }

    #[test]
    fn many_stars_take_no_long_time() {
        let text = "*a".repeat(63) + "*b";
        assert!(!pattern(&text).matches(&"a".repeat(128)));
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rule = |tags: &[&str], lifetime| TagRule {
            tags: tags.iter().map(|text| pattern(text)).collect(),
            lifetime,
        };
        let hour = Lifetime::MaxAge(Duration::from_secs(3600));
        let policy = TagPolicy {
            max_age: Duration::from_secs(60),
            rules: vec![rule(&["*-rc*", "edge"], hour), rule(&["v*"], Lifetime::Immutable)],
            ..TagPolicy::DEFAULT
        };
        for (tag, lifetime) in [
            ("v1-rc1", hour),
            ("edge", hour),
            ("v1", Lifetime::Immutable),
            ("latest", Lifetime::MaxAge(Duration::from_secs(60))),
        ] {
            assert_eq!(policy.lifetime(&tag.parse().unwrap()), lifetime, "{tag}");
        }
    }
}
