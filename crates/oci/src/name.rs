//! Repository names, tags and references (distribution-spec, "Pulling manifests").

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, DigestError};

/// The longest repository name, in bytes. The specification asks that host and name stay within 255 together; a
/// longer name could not be pulled by most clients.
pub const MAX_NAME_LEN: usize = 255;
/// The longest tag, in bytes (distribution-spec: `{0,127}` after the first character).
pub const MAX_TAG_LEN: usize = 128;

/// Why a text is not a name, tag or reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not a repository name.
    #[error(
        "not a repository name; it is made of lower-case letters, digits and single separators (. _ __ -), in parts \
         joined by slashes, at most 255 bytes in all"
    )]
    Repository,
    /// Not a tag.
    #[error(
        "not a tag; it is made of letters, digits, underscores, dots and dashes, does not begin with a dot or a \
         dash, and has at most 128 characters"
    )]
    Tag,
    /// Not a platform.
    #[error("not a platform; write os/architecture or os/architecture/variant, such as linux/arm64/v8")]
    Platform,
    /// Looks like a digest but is none.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// The name of a repository, such as `library/debian`.
///
/// Grammar: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_NAME_LEN || !text.split('/').all(is_component) {
            return Err(NameError::Repository);
        }
        Ok(Self(text.into()))
    }
}

/// Whether `part` is one component of a repository name: runs of letters and digits with one separator between them.
fn is_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    let mut at = 0;
    loop {
        let run = bytes[at..].iter().take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit()).count();
        if run == 0 {
            return false;
        }
        at += run;
        let rest = &bytes[at..];
        at += match rest {
            [] => return true,
            [b'.', ..] => 1,
            [b'_', b'_', ..] => 2,
            [b'_', ..] => 1,
            [b'-', ..] => rest.iter().take_while(|b| **b == b'-').count(),
            _ => return false,
        };
    }
}

/// The name of a tag, such as `12.5-slim`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        let bytes = text.as_bytes();
        let good = matches!(bytes.first(), Some(first) if word(first))
            && bytes.len() <= MAX_TAG_LEN
            && bytes.iter().all(|b| word(b) || matches!(b, b'.' | b'-'));
        if good { Ok(Self(text.into())) } else { Err(NameError::Tag) }
    }
}

/// What a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// By content.
    Digest(Digest),
    /// By name.
    Tag(Tag),
}

impl FromStr for Reference {
    type Err = NameError;

    /// A colon makes it a digest: tags contain none.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.contains(':') { Ok(Self::Digest(text.parse()?)) } else { Ok(Self::Tag(text.parse()?)) }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Tag(tag) => tag.fmt(f),
        }
    }
}

macro_rules! text_type {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text_type!(RepositoryName);
text_type!(Tag);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_by_the_grammar() {
        for good in ["a", "library/debian", "a.b/c_d/e__f/g-h/i---j", "0/1", &"a".repeat(255)] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a..b",
            "a._b",
            "a___b",
            "-a",
            "a-",
            "a.",
            "_a",
            "a/../b",
            ".",
            "..",
            "a b",
            "a%2fb",
            "ä",
            "a\0",
            &"a".repeat(256),
        ] {
            assert_eq!(bad.parse::<RepositoryName>(), Err(NameError::Repository), "{bad}");
        }
    }

    #[test]
    fn tags_by_the_grammar() {
        for good in ["latest", "_", "A.b-c_9", &"t".repeat(128)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a b", "a:b", "ä", &"t".repeat(129)] {
            assert_eq!(bad.parse::<Tag>(), Err(NameError::Tag), "{bad}");
        }
    }

    #[test]
    fn a_colon_means_a_digest() {
        assert!(matches!("latest".parse(), Ok(Reference::Tag(_))));
        assert_eq!("sha256:x".parse::<Reference>(), Err(NameError::Digest(DigestError::Form)));
        assert_eq!("md5:x".parse::<Reference>(), Err(NameError::Digest(DigestError::Algorithm)));
    }

    proptest! {
        #[test]
        fn the_grammar_generates_names(text in "[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,3}(/[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,3}){0,3}") {
            prop_assert_eq!(text.parse::<RepositoryName>().map(|n| n.to_string()), Ok(text));
        }

        #[test]
        fn no_text_panics_and_none_climbs(text in "[a-z./_-]{0,40}") {
            if let Ok(name) = text.parse::<RepositoryName>() {
                prop_assert!(name.as_str().split('/').all(|part| !part.is_empty() && !part.starts_with('.')));
            }
        }
    }
}
