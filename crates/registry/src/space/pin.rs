//! Images that stay whatever room they take.

use std::fmt;
use std::str::FromStr;

use deltaport_oci::{RepositoryName, Tag};
use deltaport_trust::Pattern;

use crate::upstream::TagPattern;

/// A pattern of images, as `REPOSITORIES` or `REPOSITORIES:TAGS`: of repositories as they are called here, with patterns
/// as in access rules, and of tags, in which `*` stands for anything.
#[derive(Clone, Debug)]
pub struct Pin {
    repositories: Pattern,
    /// `None` is all that the repositories hold.
    tags: Option<TagPattern>,
}

/// Why a text is not a pattern of images.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PinError(String);

impl Pin {
    /// Whether an image with these tags stays.
    pub fn matches(&self, repository: &RepositoryName, tags: &[Tag]) -> bool {
        self.repositories.matches(repository.as_str())
            && self.tags.as_ref().is_none_or(|pattern| tags.iter().any(|tag| pattern.matches(tag.as_str())))
    }
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        // Names of repositories have no colon; the port of a host is written with an underscore there.
        let (repositories, tags) = match text.split_once(':') {
            Some((repositories, tags)) => (repositories, Some(tags)),
            None => (text, None),
        };
        Ok(Self {
            repositories: repositories
                .parse()
                .map_err(|error| PinError(format!("{repositories:?}: {error}")))?,
            tags: tags
                .map(str::parse)
                .transpose()
                .map_err(|error| PinError(format!("{:?}: {error}", tags.unwrap_or_default())))?,
        })
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repositories)?;
        self.tags.as_ref().map_or(Ok(()), |tags| write!(f, ":{tags}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_of_repositories_or_of_their_tags() {
        for (pin, repository, tags, matches) in [
            ("docker.io/library/**", "docker.io/library/debian", &["12"][..], true),
            ("docker.io/library/**", "docker.io/library/debian", &[], true),
            ("docker.io/library/**", "docker.io/other/debian", &["12"], false),
            ("docker.io/*/debian:12*", "docker.io/library/debian", &["latest", "12.5"], true),
            ("docker.io/*/debian:12*", "docker.io/library/debian", &["11"], false),
            ("docker.io/*/debian:12*", "docker.io/library/debian", &[], false),
            ("r.example_5000/a:*", "r.example_5000/a", &["x"], true),
        ] {
            let read: Pin = pin.parse().unwrap();
            assert_eq!(read.to_string(), pin);
            let tags: Vec<Tag> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
            assert_eq!(
                read.matches(&repository.parse().unwrap(), &tags),
                matches,
                "{pin} {repository} {tags:?}"
            );
        }
        for bad in ["", ":v1", "a:", "A", "a:b:c", "a:b/c"] {
            assert!(bad.parse::<Pin>().is_err(), "{bad}");
        }
    }
}
