//! What most tests begin with: a script, a client that asks it, and content to ask for.

use std::time::Duration;

use deltaport_client::{CredentialSource, Credentials, Error, ErrorKind, Options, Timeouts, Upstream};
use deltaport_oci::{Digest, Reference, RepositoryName, media_type};
use deltaport_testkit::sample::{Content, bytes};
use deltaport_testkit::upstream::Upstream as Script;

pub(crate) const LIMIT: u64 = 1 << 20;

pub(crate) fn repository() -> RepositoryName {
    "library/app".parse().unwrap()
}

pub(crate) fn tag() -> Reference {
    "latest".parse().unwrap()
}

pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("/v2/library/app/blobs/{digest}")
}

pub(crate) fn layer(seed: u64, size: usize) -> Content {
    Content::new(media_type::OCTET_STREAM, bytes(seed, size))
}

pub(crate) fn options(script: &Script) -> Options {
    let mut options = Options::new("registry.example", script.url());
    options.credentials = Some(given("secret"));
    options.timeouts = Timeouts {
        connect: Duration::from_secs(5),
        header: Duration::from_millis(500),
        stall: Duration::from_millis(300),
    };
    options
}

/// The user `user` with a password. With `secret` that makes `Basic dXNlcjpzZWNyZXQ=`.
pub(crate) fn given(password: &str) -> CredentialSource {
    CredentialSource::Given(Credentials { username: "user".to_owned(), password: password.to_owned() })
}

pub(crate) fn upstream(script: &Script) -> Upstream {
    Upstream::new(&options(script)).unwrap()
}

/// Fetches a blob whole, as far as it comes.
pub(crate) async fn fetch(upstream: &Upstream, digest: &Digest, start: u64) -> (Vec<u8>, Result<(), Error>) {
    let mut received = Vec::new();
    let mut body = match upstream.blob(&repository(), digest, start, LIMIT).await {
        Ok(body) => body,
        Err(error) => return (received, Err(error)),
    };
    loop {
        match body.chunk().await {
            Ok(Some(chunk)) => received.extend_from_slice(&chunk),
            Ok(None) => return (received, Ok(())),
            Err(error) => return (received, Err(error)),
        }
    }
}

pub(crate) fn kind(error: Result<(), Error>) -> ErrorKind {
    error.unwrap_err().kind().clone()
}

/// Every `Authorization` that the script was sent, with where to.
pub(crate) fn authorizations(script: &Script) -> Vec<(String, Option<String>)> {
    let asked = script.asked();
    asked.iter().map(|a| (a.line(), a.headers.first("authorization").map(str::to_owned))).collect()
}
