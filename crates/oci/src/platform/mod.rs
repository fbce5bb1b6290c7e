//! Platforms of the children of an index (image-spec, image-index.md).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::NameError;

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
}

impl Platform {
    /// Whether a child of platform `other` is meant when this platform is asked for: a variant that is not given
    /// matches every variant.
    pub fn covers(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_empty() || self.variant == other.variant)
    }
}

impl fmt::Display for Platform {
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
    fn no_variant_covers_every_variant() {
        let parse = |text: &str| text.parse::<Platform>().expect("a platform");
        assert!(parse("linux/arm64").covers(&parse("linux/arm64/v8")));
        assert!(!parse("linux/arm64/v8").covers(&parse("linux/arm64")));
        assert!(!parse("linux/arm64").covers(&parse("linux/amd64")));
    }
}
