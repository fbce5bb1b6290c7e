//! What commands are told that work on images in registries.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use deltaport_oci::{Reference, RepositoryName};

use super::Effort;

/// Make the deltas from one image to another, and publish them beside the new one
///
/// For CI jobs: any registry will do, and sites find the deltas there when they need
/// the new image. Both images are in the same registry, as
/// HOST[:PORT]/REPOSITORY:TAG or HOST[:PORT]/REPOSITORY@DIGEST.
///
///   deltaport delta push --from r.example/app:1.0 --to r.example/app:1.1
///
/// The layers that the old image does not have are fetched, with those that they
/// most likely replace, one pair at a time, into the directory that TMPDIR names;
/// there must be room for them, and for twice their uncompressed content. For each
/// platform of the new image, an artifact whose subject is its manifest
/// (docs/delta-artifacts.md) is pushed to the repository of the new image. Doing it
/// again changes nothing.
///
/// Whoever has logged in to the registry with docker or podman needs no password
/// here.
///
/// Exits with 0 when at least one delta was published or none was needed, with 4
/// when some were and none is worth it (nothing is published then), with 1 when
/// something failed, with 2 when the arguments make no sense.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct DeltaPush {
    /// The old image, which the sites have
    #[arg(long, value_name = "IMAGE")]
    pub(crate) from: ImageName,
    /// The new image, which they will want
    #[arg(long, value_name = "IMAGE")]
    pub(crate) to: ImageName,
    #[command(flatten)]
    pub(crate) effort: Effort,
    #[command(flatten)]
    pub(crate) access: Access,
    /// Write JSON: {"images": [{"digest": ..., "artifact": ..., "layers": [{"outcome": "made", ...}]}]}
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show which deltas there are to the layers of an image
///
/// For every platform of the image and each of its layers, the deltas that are
/// published beside the image, and those that its registry, if it is a deltaport
/// hub, has made by itself: from which layer, which blob, and how large.
///
///   deltaport delta list r.example/app:1.1
///
/// Exits with 0 when the registry could be asked, whether or not there are any.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct DeltaList {
    /// The image, as HOST[:PORT]/REPOSITORY:TAG or HOST[:PORT]/REPOSITORY@DIGEST
    #[arg(value_name = "IMAGE")]
    pub(crate) image: ImageName,
    #[command(flatten)]
    pub(crate) access: Access,
    /// Write JSON: {"images": [{"digest": ..., "platform": ..., "layers": [{"digest": ..., "deltas": [{"base": ..., ...}]}]}]}
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a registry is reached, and who we are there.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Access {
    /// Log in as this user
    #[arg(long, value_name = "USER", requires = "password_stdin")]
    pub(crate) username: Option<String>,
    /// Read the password from the standard input, its first line
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,
    /// The file of logins [default: $REGISTRY_AUTH_FILE, or what docker or podman keeps]
    #[arg(long, value_name = "FILE", conflicts_with = "username")]
    pub(crate) authfile: Option<PathBuf>,
    /// Speak HTTP without TLS; with registries on this machine that is the default
    #[arg(long)]
    pub(crate) plain_http: bool,
    /// A PEM file with authorities to trust besides the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Another host whose token service may be given the password; may be repeated
    #[arg(long = "token-host", value_name = "HOST")]
    pub(crate) token_hosts: Vec<String>,
    /// A host with a private address that the registry may redirect to; may be repeated
    #[arg(long = "redirect-host", value_name = "HOST")]
    pub(crate) redirect_hosts: Vec<String>,
}

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageName {
    /// `host[:port]`, in small letters.
    pub(crate) host: String,
    pub(crate) repository: RepositoryName,
    pub(crate) reference: Reference,
}

/// What an image in a registry must be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImageNameError {
    #[error("it begins with the registry's host, as in registry.example/team/app:1.0")]
    NoHost,
    #[error("it ends with a tag or a digest, as in registry.example/team/app:1.0")]
    NoReference,
    #[error("{0}")]
    Name(#[from] deltaport_oci::NameError),
}

impl ImageName {
    const DOCKER: &str = "docker.io";

    /// Where the registry is.
    pub(crate) fn url(&self, plain_http: bool) -> String {
        Self::url_of(&self.host, plain_http)
    }

    /// Where the registry `host` is.
    pub(super) fn url_of(host: &str, plain_http: bool) -> String {
        let place = if host == Self::DOCKER { "registry-1.docker.io" } else { host };
        let scheme = if plain_http || Self::is_on_this_machine(host) { "http" } else { "https" };
        format!("{scheme}://{place}")
    }

    fn is_on_this_machine(host: &str) -> bool {
        let port = host.rfind(':').filter(|at| !host[*at..].contains(']'));
        let name = host[..port.unwrap_or(host.len())].trim_matches(['[', ']']);
        name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

impl FromStr for ImageName {
    type Err = ImageNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, path) = text.split_once('/').ok_or(ImageNameError::NoHost)?;
        if !host.contains(['.', ':']) && host != "localhost" {
            return Err(ImageNameError::NoHost);
        }
        let (name, reference) = match path.split_once('@') {
            // A digest says more than a tag that stands in front of it.
            Some((name, digest)) => (name.split_once(':').map_or(name, |(name, _)| name), digest),
            None => path.split_once(':').ok_or(ImageNameError::NoReference)?,
        };
        let host = match host.to_ascii_lowercase() {
            hub if hub == "index.docker.io" => Self::DOCKER.to_owned(),
            host => host,
        };
        let official = host == Self::DOCKER && !name.contains('/');
        let repository = if official { format!("library/{name}").parse()? } else { name.parse()? };
        Ok(Self { host, repository, reference: reference.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn images_in_registries() {
        for (text, url, repository, reference) in [
            ("r.example/a:1", "https://r.example", "a", "1"),
            ("R.example:5000/a/b:1", "https://r.example:5000", "a/b", "1"),
            ("localhost/a:1", "http://localhost", "a", "1"),
            ("127.0.0.1:5000/a:1", "http://127.0.0.1:5000", "a", "1"),
            ("[::1]:5000/a:1", "http://[::1]:5000", "a", "1"),
            ("[fd00::1]/a:1", "https://[fd00::1]", "a", "1"),
            ("docker.io/debian:12", "https://registry-1.docker.io", "library/debian", "12"),
            ("index.docker.io/a/b:12", "https://registry-1.docker.io", "a/b", "12"),
        ] {
            let image: ImageName = text.parse().unwrap();
            assert_eq!(image.url(false), url, "{text}");
            assert_eq!(
                (image.repository.as_str(), image.reference.to_string().as_str()),
                (repository, reference)
            );
        }
        for text in [format!("r.example/a@{DIGEST}"), format!("r.example/a:1@{DIGEST}")] {
            assert_eq!(text.parse::<ImageName>().unwrap().reference.to_string(), DIGEST);
        }
        assert_eq!("r.example/a:1".parse::<ImageName>().unwrap().url(true), "http://r.example");
    }

    #[test]
    fn what_is_no_image_in_a_registry() {
        for (text, says) in [
            ("a:1", "host"),
            ("team/app:1", "host"),
            ("r.example/a", "tag"),
            ("r.example:5000/a", "tag"),
            ("r.example/A:1", ""),
            ("r.example/a:", ""),
            ("r.example/a@sha256:1", ""),
            ("r.example/:1", ""),
        ] {
            let error = text.parse::<ImageName>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
