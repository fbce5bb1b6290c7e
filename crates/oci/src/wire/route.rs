//! Paths under `/v2/`. Repository names contain slashes, so a path is read from both ends; no general router can.

use std::fmt;

use percent_encoding::percent_decode_str;

use crate::{Digest, DigestError, NameError, Reference, RepositoryName};

/// What a path means (distribution-spec, "Endpoints"), without the method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`: is this a registry, and may I?
    Base,
    /// `/v2/_catalog`: the repositories (reserved by the specification, Docker's extension).
    Catalog,
    /// `/v2/_oci/ext/discover`: which extensions are offered.
    Extensions,
    /// `/v2/<name>/blobs/<digest>`.
    Blob(RepositoryName, Digest),
    /// `/v2/<name>/blobs/uploads/`.
    Uploads(RepositoryName),
    /// `/v2/<name>/blobs/uploads/<id>`.
    Upload(RepositoryName, String),
    /// `/v2/<name>/manifests/<reference>`.
    Manifest(RepositoryName, Reference),
    /// `/v2/<name>/tags/list`.
    Tags(RepositoryName),
    /// `/v2/<name>/referrers/<digest>`.
    Referrers(RepositoryName, Digest),
    /// `/v2/<name>/_deltaport/delta/layer`: a delta between two layers, deltaport's extension.
    LayerDelta(RepositoryName),
    /// `/v2/<name>/_deltaport/image/<reference>`: what is here of an image, deltaport's extension.
    Image(RepositoryName, Reference),
    /// `/v2/_deltaport/mirror`: which mirror rules there are, deltaport's extension.
    Mirrors,
    /// `/v2/<name>/_deltaport/mirror/<rule>`: a rule that fills this repository, deltaport's extension.
    Mirror(RepositoryName, String),
}

/// Why a path has no meaning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The digest of a blob or of a subject does not parse.
    #[error(transparent)]
    Digest(DigestError),
    /// The repository name does not parse.
    #[error(transparent)]
    Name(NameError),
    /// Nothing lives there.
    #[error("no such path")]
    Path,
    /// The tag or digest of a manifest does not parse.
    #[error(transparent)]
    Reference(NameError),
}

impl Route {
    /// Reads the path of a request. Escapes are resolved first, and only once.
    pub fn parse(path: &str) -> Result<Self, RouteError> {
        let path = percent_decode_str(path).decode_utf8().map_err(|_| RouteError::Path)?;
        let rest = path.strip_prefix("/v2").ok_or(RouteError::Path)?;
        match rest {
            "" | "/" => return Ok(Self::Base),
            "/_catalog" => return Ok(Self::Catalog),
            "/_oci/ext/discover" => return Ok(Self::Extensions),
            "/_deltaport/mirror" => return Ok(Self::Mirrors),
            _ => {}
        }
        let rest = rest.strip_prefix('/').ok_or(RouteError::Path)?;
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Ok(Self::Tags(name.parse().map_err(RouteError::Name)?));
        }
        if let Some(name) = rest.strip_suffix("/_deltaport/delta/layer") {
            return Ok(Self::LayerDelta(name.parse().map_err(RouteError::Name)?));
        }
        let (head, last) = rest.rsplit_once('/').ok_or(RouteError::Path)?;
        if let Some(name) =
            rest.strip_suffix("/blobs/uploads").or_else(|| head.strip_suffix("/blobs/uploads"))
        {
            let name = name.parse().map_err(RouteError::Name)?;
            let id = if rest.ends_with("/blobs/uploads") { "" } else { last };
            return Ok(if id.is_empty() { Self::Uploads(name) } else { Self::Upload(name, id.to_owned()) });
        }
        if let Some(name) = head.strip_suffix("/_deltaport/image") {
            let name = name.parse().map_err(RouteError::Name)?;
            return Ok(Self::Image(name, last.parse().map_err(RouteError::Reference)?));
        }
        if let Some(name) = head.strip_suffix("/_deltaport/mirror") {
            let name = name.parse().map_err(RouteError::Name)?;
            return if is_rule(last) {
                Ok(Self::Mirror(name, last.to_owned()))
            } else {
                Err(RouteError::Path)
            };
        }
        let (name, noun) = head.rsplit_once('/').ok_or(RouteError::Path)?;
        if !matches!(noun, "blobs" | "manifests" | "referrers") {
            return Err(RouteError::Path);
        }
        let name = name.parse().map_err(RouteError::Name)?;
        match noun {
            "blobs" => Ok(Self::Blob(name, last.parse().map_err(RouteError::Digest)?)),
            "manifests" => Ok(Self::Manifest(name, last.parse().map_err(RouteError::Reference)?)),
            _ => Ok(Self::Referrers(name, last.parse().map_err(RouteError::Digest)?)),
        }
    }

    /// The repository that the path is about, if it is about one.
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Base | Self::Catalog | Self::Extensions | Self::Mirrors => None,
            Self::Blob(name, _)
            | Self::Uploads(name)
            | Self::Upload(name, _)
            | Self::Manifest(name, _)
            | Self::Tags(name)
            | Self::Referrers(name, _)
            | Self::LayerDelta(name)
            | Self::Image(name, _)
            | Self::Mirror(name, _) => Some(name),
        }
    }
}

/// Whether a text can be the name of a mirror rule: 1 to 64 small letters, digits, hyphens and underscores.
pub fn is_rule(text: &str) -> bool {
    let possible =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    (1..=64).contains(&text.len()) && text.bytes().all(possible)
}

impl fmt::Display for Route {
    /// The path, for the asking end and for `Location`. Nothing in it needs an escape.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str("/v2/"),
            Self::Catalog => f.write_str("/v2/_catalog"),
            Self::Extensions => f.write_str("/v2/_oci/ext/discover"),
            Self::Blob(name, digest) => write!(f, "/v2/{name}/blobs/{digest}"),
            Self::Uploads(name) => write!(f, "/v2/{name}/blobs/uploads/"),
            Self::Upload(name, id) => write!(f, "/v2/{name}/blobs/uploads/{id}"),
            Self::Manifest(name, reference) => write!(f, "/v2/{name}/manifests/{reference}"),
            Self::Tags(name) => write!(f, "/v2/{name}/tags/list"),
            Self::Referrers(name, digest) => write!(f, "/v2/{name}/referrers/{digest}"),
            Self::LayerDelta(name) => write!(f, "/v2/{name}/_deltaport/delta/layer"),
            Self::Image(name, reference) => write!(f, "/v2/{name}/_deltaport/image/{reference}"),
            Self::Mirrors => f.write_str("/v2/_deltaport/mirror"),
            Self::Mirror(name, rule) => write!(f, "/v2/{name}/_deltaport/mirror/{rule}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn examples() -> Vec<Route> {
        let name: RepositoryName = "blobs/uploads/manifests/tags/list".parse().expect("a name");
        let digest: Digest = DIGEST.parse().expect("a digest");
        vec![
            Route::Base,
            Route::Catalog,
            Route::Extensions,
            Route::Blob(name.clone(), digest),
            Route::Uploads(name.clone()),
            Route::Upload(name.clone(), "0123abcd".to_owned()),
            Route::Manifest(name.clone(), Reference::Digest(digest)),
            Route::Manifest(name.clone(), Reference::Tag("latest".parse().expect("a tag"))),
            Route::Tags(name.clone()),
            Route::Referrers(name.clone(), digest),
            Route::LayerDelta(name.clone()),
            Route::Image(name.clone(), Reference::Digest(digest)),
            Route::Mirrors,
            Route::Mirror(name.clone(), "nightly-1".to_owned()),
            Route::Image(name, Reference::Tag("latest".parse().expect("a tag"))),
        ]
    }

    #[test]
    fn every_route_reads_back_what_it_writes() {
        for route in examples() {
            assert_eq!(Route::parse(&route.to_string()), Ok(route));
        }
    }

    #[test]
    fn spellings_that_clients_use() {
        let digest: Digest = DIGEST.parse().expect("a digest");
        let name: RepositoryName = "a/b".parse().expect("a name");
        let escaped = format!("/v2/a%2Fb/blobs/{}", DIGEST.replace(':', "%3A"));
        assert_eq!(Route::parse(&escaped), Ok(Route::Blob(name.clone(), digest)));
        assert_eq!(Route::parse("/v2"), Ok(Route::Base));
        assert_eq!(Route::parse("/v2/a/b/blobs/uploads"), Ok(Route::Uploads(name)));
    }

    #[test]
    fn errors_say_which_part_is_wrong() {
        for (path, expected) in [
            ("/v2/A/tags/list", RouteError::Name(NameError::Repository)),
            ("/v2/a/../b/tags/list", RouteError::Name(NameError::Repository)),
            ("/v2/a/blobs/sha256:x", RouteError::Digest(DigestError::Form)),
            ("/v2/a/manifests/.x", RouteError::Reference(NameError::Tag)),
            ("/v2/a/manifests/md5:x", RouteError::Reference(NameError::Digest(DigestError::Algorithm))),
            ("/v2/a/b", RouteError::Path),
            ("/v2/a/_deltaport/mirror/Rule", RouteError::Path),
            ("/v2/a/_deltaport/mirror/", RouteError::Path),
            ("/v1/a/tags/list", RouteError::Path),
            ("/v2/blobs/sha256:x", RouteError::Path),
            ("/v2/%ff/tags/list", RouteError::Path),
            ("/", RouteError::Path),
        ] {
            assert_eq!(Route::parse(path), Err(expected), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "(/v2/)?[a-z/%:._]{0,60}(blobs|manifests|uploads|tags/list|referrers)?[a-z/%:.]{0,20}") {
            let _ = Route::parse(&path);
        }
    }
}
