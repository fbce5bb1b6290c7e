//! Platforms of the children of an index (image-spec, image-index.md), and which of them are wanted.
//!
//! Indexes spell the same machine in several ways: 64-bit ARM comes as `arm64` and as `arm64/v8`. What is compared here
//! is compared in one spelling, the one to which containerd brings both; what is shown is what stands in the index.

mod filter;
mod pattern;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::NameError;

pub use filter::{Child, Filter, NothingMatches, Role, Selection};
pub use pattern::{Pattern, PatternError};

/// What stands for the operating system and the architecture of a child that is for no machine, such as an attestation.
const UNKNOWN: &str = "unknown";

/// How many parts of `os.version` tell two versions of an operating system apart; what follows are its updates.
const VERSION_PARTS: usize = 3;

/// Which machine a child of an index is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct Platform {
    /// Operating system, such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Architecture in Go's words, such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// Variant of the architecture, such as `v8`; empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Version of the operating system, such as `10.0.20348.2402`; empty when there is none. Only Windows needs one.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
}

impl Platform {
    /// Whether it is no platform: nothing is said, or that it is unknown.
    pub fn is_unknown(&self) -> bool {
        let none = |word: &str| word.is_empty() || word == UNKNOWN;
        none(&self.os) && none(&self.architecture)
    }

    /// Whether both are the same machine, however they are spelled. Updates of one version of Windows are the same.
    pub fn is_same(&self, other: &Self) -> bool {
        let (one, other) = (self.normal(), other.normal());
        let version = |platform: &Self| {
            platform.os_version.split('.').take(VERSION_PARTS).map(str::to_owned).collect::<Vec<_>>()
        };
        one.os == other.os
            && one.architecture == other.architecture
            && one.variant == other.variant
            && version(&one) == version(&other)
    }

    /// The one spelling in which platforms are compared: small letters, Go's words, and the variant that is meant when
    /// none is given.
    fn normal(&self) -> Self {
        let os = self.os.to_ascii_lowercase();
        let (architecture, variant) =
            normal_architecture(&self.architecture.to_ascii_lowercase(), &self.variant.to_ascii_lowercase());
        Self {
            os: normal_os(os),
            variant: variant.unwrap_or_else(|| usual_variant(&architecture).to_owned()),
            architecture,
            os_version: self.os_version.clone(),
        }
    }
}

fn normal_os(os: String) -> String {
    if os == "macos" { "darwin".to_owned() } else { os }
}

/// The usual word for an architecture and for a variant of it, both in small letters; no variant when none is given and
/// the word for the architecture does not say one.
fn normal_architecture(architecture: &str, variant: &str) -> (String, Option<String>) {
    let architecture = match architecture {
        "x86_64" | "x86-64" => "amd64",
        "i386" => "386",
        "aarch64" => "arm64",
        "armhf" => return ("arm".to_owned(), Some("v7".to_owned())),
        "armel" => return ("arm".to_owned(), Some("v6".to_owned())),
        other => other,
    };
    let numbered =
        matches!(architecture, "arm" | "arm64") && variant.starts_with(|c: char| c.is_ascii_digit());
    let variant = if numbered { format!("v{variant}") } else { variant.to_owned() };
    (architecture.to_owned(), Some(variant).filter(|variant| !variant.is_empty()))
}

/// The variant of an architecture that is meant when none is given.
fn usual_variant(architecture: &str) -> &'static str {
    match architecture {
        "amd64" => "v1",
        "arm" => "v7",
        "arm64" => "v8",
        _ => "",
    }
}

impl fmt::Display for Platform {
    /// `os/architecture` or `os/architecture/variant`. The version of the operating system is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl FromStr for Platform {
    type Err = NameError;

    /// Reads `os/architecture` or `os/architecture/variant`.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = text.split('/').map(str::to_owned);
        let platform = Self {
            os: parts.next().unwrap_or_default(),
            architecture: parts.next().unwrap_or_default(),
            variant: parts.next().unwrap_or_default(),
            os_version: String::new(),
        };
        if platform.os.is_empty() || platform.architecture.is_empty() || parts.next().is_some() {
            return Err(NameError::Platform);
        }
        Ok(platform)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_value_agree() {
        for text in ["linux/amd64", "linux/arm64/v8"] {
            assert_eq!(text.parse::<Platform>().map(|p| p.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn one_machine_in_several_spellings() {
        let parse = |text: &str| text.parse::<Platform>().expect("a platform");
        for (one, other, same) in [
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/aarch64", "Linux/ARM64/8", true),
            ("linux/amd64", "linux/x86_64/v1", true),
            ("linux/amd64", "linux/amd64/v3", false),
            ("linux/arm", "linux/arm/v7", true),
            ("linux/armhf", "linux/arm/7", true),
            ("linux/armel", "linux/arm/v6", true),
            ("linux/arm/v6", "linux/arm", false),
            ("linux/i386", "linux/386", true),
            ("macos/arm64", "darwin/arm64", true),
            ("linux/amd64", "windows/amd64", false),
        ] {
            assert_eq!(parse(one).is_same(&parse(other)), same, "{one} {other}");
        }
        let windows = |version: &str| Platform { os_version: version.to_owned(), ..parse("windows/amd64") };
        assert!(windows("10.0.20348.2402").is_same(&windows("10.0.20348.1")));
        assert!(!windows("10.0.20348.2402").is_same(&windows("10.0.17763.2402")));
    }

    #[test]
    fn what_says_nothing_is_unknown() {
        for (text, unknown) in [("unknown/unknown", true), ("linux/unknown", false), ("linux/amd64", false)] {
            assert_eq!(text.parse::<Platform>().expect("a platform").is_unknown(), unknown, "{text}");
        }
        assert!(Platform::default().is_unknown());
    }
}
