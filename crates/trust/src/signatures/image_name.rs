//! What an image is called at its source: `registry.redhat.io/ubi9/ubi:9.4`, `docker.io/library/debian@sha256:…`.
//!
//! Policies and signatures speak of images in this way, with the registry in front and everything written out.

use std::fmt;
use std::str::FromStr;

use deltaport_oci::{Digest, RepositoryName, Tag};

/// The most bytes that a registry and a repository have together, as docker's references have it.
pub(crate) const MAX_NAME_LEN: usize = 255;
/// The registry that is meant when none is named.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The most bytes of a name with tag and digest that are looked at.
const MAX_TEXT_LEN: usize = 1024;

/// A text does not name an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an image, such as registry.example/team/app:1.0")]
pub struct ImageNameError;

/// The name of an image, or of a repository of images, at the registry that it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageName {
    /// Registry and repository, with a slash between them.
    repository: Box<str>,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl ImageName {
    /// The name of what `registry` has in `repository` under `tag`; without a tag, of what is asked for by digest.
    ///
    /// `registry` is a host with an optional port. `docker.io/debian` is `docker.io/library/debian`.
    pub fn new(
        registry: &str,
        repository: &RepositoryName,
        tag: Option<Tag>,
    ) -> Result<Self, ImageNameError> {
        if !is_registry(registry) {
            return Err(ImageNameError);
        }
        let repository = join(registry, repository.as_str())?;
        Ok(Self { repository, tag, digest: None })
    }

    /// Reads a name as people type it: `debian:12` is `docker.io/library/debian:12`.
    pub fn parse(text: &str) -> Result<Self, ImageNameError> {
        let (name, tag, digest) = split(text)?;
        let (registry, path) = match name.split_once('/') {
            Some((first, rest)) if names_registry(first) => (first, rest),
            _ => (DEFAULT_REGISTRY, name),
        };
        if !is_registry(registry) {
            return Err(ImageNameError);
        }
        Ok(Self { repository: join(registry, path)?, tag, digest })
    }

    /// Reads a name that is already written out.
    pub(crate) fn parse_full(text: &str) -> Result<Self, ImageNameError> {
        let name = Self::parse(text)?;
        if name.to_string() == text { Ok(name) } else { Err(ImageNameError) }
    }

    /// The same image, asked for by digest.
    pub fn by_digest(&self, digest: Digest) -> Self {
        Self { repository: self.repository.clone(), tag: None, digest: Some(digest) }
    }

    /// Registry and repository: `docker.io/library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if the name has one.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, if the name has one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether it names a repository rather than an image.
    pub fn is_repository(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }
}

impl FromStr for ImageName {
    type Err = ImageNameError;

    fn from_str(text: &str) -> Result<Self, ImageNameError> {
        Self::parse(text)
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{}", tag.as_str())?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Takes tag and digest from the end of a name.
fn split(text: &str) -> Result<(&str, Option<Tag>, Option<Digest>), ImageNameError> {
    if text.len() > MAX_TEXT_LEN {
        return Err(ImageNameError);
    }
    let (text, digest) = match text.split_once('@') {
        Some((text, digest)) => (text, Some(digest.parse().map_err(|_| ImageNameError)?)),
        None => (text, None),
    };
    match text.rsplit_once(':') {
        // A colon before a slash is that of a port.
        Some((name, tag)) if !tag.contains('/') => {
            Ok((name, Some(tag.parse().map_err(|_| ImageNameError)?), digest))
        }
        _ => Ok((text, None, digest)),
    }
}

fn join(registry: &str, path: &str) -> Result<Box<str>, ImageNameError> {
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    let _: RepositoryName = path.parse().map_err(|_| ImageNameError)?;
    let library = if registry == DEFAULT_REGISTRY && !path.contains('/') { "library/" } else { "" };
    let name = format!("{registry}/{library}{path}");
    if name.len() > MAX_NAME_LEN { Err(ImageNameError) } else { Ok(name.into()) }
}

/// Whether the first part of a name is a registry; docker's rule.
fn names_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.contains(|c: char| c.is_ascii_uppercase())
}

/// Whether `text` is a host with an optional port.
pub(super) fn is_registry(text: &str) -> bool {
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        let address_is_good = address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
        return !address.is_empty()
            && address_is_good
            && (rest.is_empty() || rest.strip_prefix(':').is_some_and(digits));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_out() {
        for (text, full) in [
            ("debian", "docker.io/library/debian"),
            ("debian:12", "docker.io/library/debian:12"),
            ("team/app", "docker.io/team/app"),
            ("index.docker.io/debian", "docker.io/library/debian"),
            ("localhost/app:1", "localhost/app:1"),
            ("Host/app", "Host/app"),
            ("host:5000/app", "host:5000/app"),
            ("host:5000/app:1", "host:5000/app:1"),
            ("[::1]:5000/app", "[::1]:5000/app"),
            ("registry.redhat.io/ubi9/ubi:9.4", "registry.redhat.io/ubi9/ubi:9.4"),
        ] {
            assert_eq!(ImageName::parse(text).map(|name| name.to_string()), Ok(full.to_owned()), "{text}");
        }
        for text in [
            "",
            "/",
            "a//b",
            "host:5000/",
            "a/b:",
            "a/b@sha256:12",
            "-.io/a",
            "A",
            "a.io/B",
            "a/b:c:d",
            "h:x/a",
        ] {
            assert_eq!(ImageName::parse(text), Err(ImageNameError), "{text}");
        }
        assert_eq!(ImageName::parse(&format!("a.io/{}", "a".repeat(251))), Err(ImageNameError));
        assert_eq!(ImageName::parse_full("debian:12"), Err(ImageNameError));
    }

    #[test]
    fn a_repository_of_docker_s_library_may_be_short() {
        let debian: RepositoryName = "debian".parse().unwrap();
        let name = ImageName::new("docker.io", &debian, Some("12".parse().unwrap())).unwrap();
        assert_eq!(name.to_string(), "docker.io/library/debian:12");
        assert!(ImageName::new("docker.io/a", &debian, None).is_err());
    }
}
