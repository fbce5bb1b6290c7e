//! Platforms by name, with parts left open.

use std::fmt;
use std::str::FromStr;

use super::{Platform, normal_architecture, normal_os};

/// The longest pattern, in bytes.
const MAX_LEN: usize = 128;
/// What stands for any word.
const ANY: &str = "*";

/// Platforms: `linux/arm64`, `linux/arm/v7`, `linux/*`, `windows(10.0.20348)/amd64`.
///
/// `*` stands for any operating system, architecture or variant. Without a variant every variant is meant. A version of
/// the operating system, in containerd's notation, means that version and its updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    os: Part,
    /// Empty is any.
    os_version: String,
    architecture: Part,
    variant: Part,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Any,
    Is(String),
}

/// Why a text is no pattern of platforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a platform such as linux/amd64, linux/arm/v7, linux/* or windows(10.0.20348)/amd64")]
pub struct PatternError;

impl Pattern {
    /// Whether a child for `platform` is meant.
    pub fn matches(&self, platform: &Platform) -> bool {
        let platform = platform.normal();
        self.os.fits(&platform.os)
            && self.architecture.fits(&platform.architecture)
            && self.variant.fits(&platform.variant)
            && is_version(&platform.os_version, &self.os_version)
    }
}

/// Whether `version` is `wanted` or an update of it.
fn is_version(version: &str, wanted: &str) -> bool {
    match version.strip_prefix(wanted) {
        Some(rest) => wanted.is_empty() || rest.is_empty() || rest.starts_with('.'),
        None => false,
    }
}

impl Part {
    fn fits(&self, word: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Is(wanted) => wanted == word,
        }
    }
}

impl From<String> for Part {
    fn from(word: String) -> Self {
        if word == ANY { Self::Any } else { Self::Is(word) }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let text = text.to_ascii_lowercase();
        let mut parts = text.split('/');
        let (os, architecture) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let variant = parts.next();
        let (os, os_version) = match os.split_once('(') {
            Some((os, version)) => {
                (os, version.strip_suffix(')').filter(|v| is_word(v)).ok_or(PatternError)?)
            }
            None => (os, ""),
        };
        let words = [Some(os), Some(architecture), variant];
        if text.len() > MAX_LEN || parts.next().is_some() || !words.into_iter().flatten().all(is_part) {
            return Err(PatternError);
        }
        let (architecture, variant) = normal_architecture(architecture, variant.unwrap_or_default());
        Ok(Self {
            os: normal_os(os.to_owned()).into(),
            os_version: os_version.to_owned(),
            architecture: architecture.into(),
            variant: variant.map_or(Part::Any, Part::from),
        })
    }
}

fn is_part(text: &str) -> bool {
    text == ANY || is_word(text)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.os)?;
        if !self.os_version.is_empty() {
            write!(f, "({})", self.os_version)?;
        }
        write!(f, "/{}", self.architecture)?;
        match &self.variant {
            Part::Any => Ok(()),
            variant => write!(f, "/{variant}"),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str(ANY),
            Self::Is(word) => f.write_str(word),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_and_what_they_mean() {
        for (pattern, fits, does_not) in [
            (
                "linux/amd64",
                &["linux/amd64", "linux/amd64/v1", "linux/amd64/v3", "linux/x86_64"][..],
                &["linux/arm64", "windows/amd64", "unknown/unknown"][..],
            ),
            ("linux/amd64/v1", &["linux/amd64"], &["linux/amd64/v2"]),
            ("linux/arm64", &["linux/arm64", "linux/arm64/v8", "linux/arm64/v9"], &["linux/arm/v8"]),
            ("linux/arm64/v8", &["linux/arm64", "linux/arm64/8", "linux/aarch64"], &["linux/arm64/v9"]),
            ("linux/arm", &["linux/arm/v5", "linux/arm/v7", "linux/arm"], &["linux/arm64"]),
            ("linux/arm/v7", &["linux/arm", "linux/arm/v7", "linux/arm/7"], &["linux/arm/v6"]),
            ("linux/armhf", &["linux/arm", "linux/arm/v7"], &["linux/arm/v6"]),
            ("LINUX/AMD64", &["linux/amd64"], &[]),
            ("linux/*", &["linux/amd64", "linux/s390x", "linux/arm/v7"], &["windows/amd64"]),
            ("*/arm64", &["linux/arm64/v8", "darwin/arm64"], &["linux/amd64"]),
            ("linux/*/v7", &["linux/arm", "linux/arm/v7"], &["linux/arm64", "linux/amd64"]),
            ("linux/arm/*", &["linux/arm/v6", "linux/arm"], &["linux/arm64"]),
            ("*/*", &["linux/amd64", "plan9/386"], &[]),
        ] {
            let pattern: Pattern = pattern.parse().expect(pattern);
            for platform in fits {
                assert!(pattern.matches(&platform.parse().expect("a platform")), "{pattern} {platform}");
            }
            for platform in does_not {
                assert!(!pattern.matches(&platform.parse().expect("a platform")), "{pattern} {platform}");
            }
        }
    }

    #[test]
    fn a_version_of_the_system_means_its_updates_too() {
        for (pattern, version, fits) in [
            ("windows/amd64", "10.0.20348.2402", true),
            ("windows(10.0.20348)/amd64", "10.0.20348.2402", true),
            ("windows(10.0.20348)/amd64", "10.0.20348", true),
            ("windows(10.0.20348.2402)/amd64", "10.0.20348.2402", true),
            ("windows(10.0.20348.2)/amd64", "10.0.20348.2402", false),
            ("windows(10.0.17763)/amd64", "10.0.20348.2402", false),
            ("windows(10.0.20348)/amd64", "", false),
        ] {
            let platform = Platform {
                os: "windows".to_owned(),
                architecture: "amd64".to_owned(),
                os_version: version.to_owned(),
                ..Platform::default()
            };
            assert_eq!(
                pattern.parse::<Pattern>().expect(pattern).matches(&platform),
                fits,
                "{pattern} {version}"
            );
        }
    }

    #[test]
    fn what_is_no_pattern() {
        let long = format!("linux/{}", "a".repeat(128));
        for text in [
            "",
            "linux",
            "linux/",
            "/amd64",
            "linux/arm/",
            "a/b/c/d",
            "linux/arm*",
            "lin ux/a",
            "linux()/a",
            "linux(1/a",
            "linux)/a",
            "linux(*)/a",
            &long,
        ] {
            assert_eq!(text.parse::<Pattern>(), Err(PatternError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(text in "([a-z]{1,6}|\\*)(\\([0-9.]{1,5}\\))?/(arm|arm64|amd64|armhf|\\*)(/([v0-9]{1,3}|\\*))?") {
            let pattern: Pattern = text.parse().expect("a pattern");
            prop_assert_eq!(pattern.to_string().parse::<Pattern>(), Ok(pattern));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Pattern>();
        }
    }
}
