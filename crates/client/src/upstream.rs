//! One configured registry and the questions that it can be asked.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use deltaport_oci::wire::{DOCKER_CONTENT_DIGEST, Route};
use deltaport_oci::{Descriptor, Digest, Reference, RepositoryName, media_type};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, IF_NONE_MATCH, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::Url;

use crate::auth::{Auth, Scope};
use crate::challenge::Challenge;
use crate::error::{Error, ErrorKind, Result};
use crate::extensions::Discovered;
use crate::options::Options;
use crate::quota::Quota;
use crate::transport::{Answer, Request, Transport};

/// The largest manifest that is taken, in bytes. The specification asks registries for 4 MiB.
pub const MAX_MANIFEST: u64 = 8 * 1024 * 1024;

/// A registry that we may ask; cheap to clone, every clone shares connections and tokens.
#[derive(Clone, Debug)]
pub struct Upstream(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: Arc<str>,
    transport: Transport,
    auth: Auth,
    discovered: Discovered,
}

/// What an upstream says about a manifest without sending it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// Its digest; some registries do not say.
    pub digest: Option<Digest>,
    /// Its size in bytes, if the upstream says it.
    pub size: Option<u64>,
}

/// A manifest as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The digest of `bytes`, computed here.
    pub digest: Digest,
    /// `Content-Type` without parameters.
    pub media_type: String,
    /// The bytes, as received.
    pub bytes: Bytes,
}

impl Manifest {
    /// What an index would say of it that says no more than it must.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest,
            size: self.bytes.len() as u64,
            urls: Vec::new(),
            artifact_type: None,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

impl Upstream {
    /// Prepares to ask the registry that `options` describe. Nothing is dialled yet.
    ///
    /// Fails when the address is not `http(s)://host[:port]` or a certificate cannot be read.
    pub fn new(options: &Options) -> Result<Self> {
        let upstream = Self::lazy(options)?;
        upstream.0.transport.prepare().map_err(|kind| upstream.fail(kind))?;
        Ok(upstream)
    }

    /// The same for a registry that may never be asked: the system's certificate authorities are read for the first
    /// request, which fails if they cannot be.
    pub fn lazy(options: &Options) -> Result<Self> {
        let host: Arc<str> = options.host.as_str().into();
        let fail = |kind| Error::new(Arc::clone(&host), kind);
        let home = parse_home(&options.url).map_err(fail)?;
        let auth = Auth::new(options, &home);
        let transport = Transport::new(options, home).map_err(fail)?;
        Ok(Self(Arc::new(Inner { host, transport, auth, discovered: Discovered::default() })))
    }

    /// The host that images are named after.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// How many bytes of bodies have been received from this upstream, and from where it redirected to, since the
    /// start: errors, tokens and manifests included, headers not.
    pub fn received(&self) -> u64 {
        self.0.transport.received()
    }

    /// How much the upstream lets us ask, as it said in its last answer that said so. Most upstreams never do.
    pub fn quota(&self) -> Option<Quota> {
        self.0.transport.quota()
    }

    /// Asks whether the upstream is a registry that lets us in.
    pub async fn ping(&self) -> Result<()> {
        let answer = self.get(Scope::REGISTRY, Method::GET, &Route::Base, HeaderMap::new()).await?;
        answer.drain().await;
        Ok(())
    }

    /// Asks which manifest `reference` means.
    pub async fn head_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<ManifestHead> {
        let route = Route::Manifest(repository.clone(), reference.clone());
        let answer = self.get(Scope::pull(repository), Method::HEAD, &route, manifest_headers()).await?;
        Ok(ManifestHead { digest: content_digest(&answer), size: answer.content_length() })
    }

    /// Fetches a manifest.
    ///
    /// Fails with [`ErrorKind::Mismatch`] when its bytes are not what they were asked for by, or not what the answer
    /// says they are.
    pub async fn manifest(&self, repository: &RepositoryName, reference: &Reference) -> Result<Manifest> {
        let route = Route::Manifest(repository.clone(), reference.clone());
        let answer = self.get(Scope::pull(repository), Method::GET, &route, manifest_headers()).await?;
        self.read_manifest(reference, answer).await
    }

    /// Fetches the manifest that `reference` means, unless that is `known` (RFC 9110, section 13.1.2); `None` when it
    /// is. Fails as [`Upstream::manifest`].
    pub async fn manifest_unless(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        known: &Digest,
    ) -> Result<Option<Manifest>> {
        let route = Route::Manifest(repository.clone(), reference.clone());
        let mut headers = manifest_headers();
        if let Ok(etag) = HeaderValue::try_from(format!("\"{known}\"")) {
            headers.insert(IF_NONE_MATCH, etag);
        }
        let answer = self.fetch(Scope::pull(repository), Method::GET, &route, headers).await?;
        match answer.status() {
            StatusCode::OK => self.read_manifest(reference, answer).await.map(Some),
            StatusCode::NOT_MODIFIED if content_digest(&answer).is_none_or(|digest| digest == *known) => {
                Ok(None)
            }
            StatusCode::NOT_MODIFIED => {
                Err(self.fail(ErrorKind::protocol("says that another manifest has not changed")))
            }
            _ => Err(self.fail(answer.into_error().await)),
        }
    }

    async fn read_manifest(&self, reference: &Reference, mut answer: Answer) -> Result<Manifest> {
        let announced = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(_) => content_digest(&answer),
        };
        let Some(media_type) = answer.header(CONTENT_TYPE).map(without_parameters) else {
            return Err(self.fail(ErrorKind::protocol("sends a manifest without a Content-Type")));
        };
        let bytes = answer.read("the manifest", MAX_MANIFEST).await.map_err(|kind| self.fail(kind))?;
        let digest = match announced {
            None => Digest::sha256(&bytes),
            Some(expected) => {
                let actual = Digest::of(expected.algorithm(), &bytes);
                if actual != expected {
                    return Err(self.fail(ErrorKind::Mismatch { expected, actual: Box::new(actual) }));
                }
                actual
            }
        };
        Ok(Manifest { digest, media_type, bytes })
    }

    /// Asks whether `repository` holds a blob, and how large it is if the upstream says so.
    pub async fn head_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>> {
        let route = Route::Blob(repository.clone(), *digest);
        let answer = self.get(Scope::pull(repository), Method::HEAD, &route, blob_headers(0, None)).await?;
        Ok(answer.content_length())
    }

    /// Begins to fetch a blob, from byte `start` on if the upstream can do that. At most `limit` bytes are taken of
    /// the whole blob.
    ///
    /// The bytes are not verified here: a part has no digest.
    pub async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        start: u64,
        limit: u64,
    ) -> Result<BlobBody> {
        self.blob_part(repository, digest, start, None, limit).await
    }

    /// The same, up to byte `end`, which is not part of it. An upstream that does not do parts sends more.
    pub async fn blob_part(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        start: u64,
        end: Option<u64>,
        limit: u64,
    ) -> Result<BlobBody> {
        let route = Route::Blob(repository.clone(), *digest);
        let headers = blob_headers(start, end);
        let answer = self.get(Scope::pull(repository), Method::GET, &route, headers).await?;
        self.body(answer, start, limit)
    }

    /// The blob in an answer to a request for what is behind byte `start`.
    pub(crate) fn body(&self, answer: Answer, start: u64, limit: u64) -> Result<BlobBody> {
        let part = part_of(&answer, start).map_err(|kind| self.fail(kind))?;
        let body = BlobBody {
            upstream: self.clone(),
            answer,
            start: part.start,
            size: part.size,
            at: part.start,
            limit,
        };
        match part.size {
            Some(size) if size > limit => Err(body.too_large()),
            _ => Ok(body),
        }
    }

    pub(crate) fn url(&self, route: &Route) -> Result<Url, ErrorKind> {
        let path = route.to_string();
        self.home().join(&path).map_err(|_| ErrorKind::protocol("cannot be asked for that name"))
    }

    /// Asks and insists on success.
    pub(crate) async fn get(
        &self,
        scope: Scope<'_>,
        method: Method,
        route: &Route,
        headers: HeaderMap,
    ) -> Result<Answer> {
        let answer = self.fetch(scope, method, route, headers).await?;
        match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(answer),
            _ => Err(self.fail(answer.into_error().await)),
        }
    }

    /// Asks and follows to where the content is.
    async fn fetch(
        &self,
        scope: Scope<'_>,
        method: Method,
        route: &Route,
        headers: HeaderMap,
    ) -> Result<Answer> {
        let url = self.url(route).map_err(|kind| self.fail(kind))?;
        self.ask(scope, Request { headers, follow: true, ..Request::new(method, url) }).await
    }

    /// Asks, and answers one challenge.
    pub(crate) async fn ask(&self, scope: Scope<'_>, mut request: Request) -> Result<Answer> {
        let Inner { transport, auth, .. } = &*self.0;
        request.authorization = auth.known(&scope.to_string());
        let answer = transport.send(&request).await.map_err(|kind| self.fail(kind))?;
        if answer.status() != StatusCode::UNAUTHORIZED || !answer.from_home {
            return Ok(answer);
        }
        let challenge = Challenge::choose(answer.headers());
        answer.drain().await;
        let header = auth.answer(transport, challenge, &scope, request.authorization.as_ref()).await;
        request.authorization = Some(header.map_err(|kind| self.fail(kind))?);
        transport.send(&request).await.map_err(|kind| self.fail(kind))
    }

    /// The address of the upstream.
    pub(crate) fn home(&self) -> &Url {
        self.0.transport.home()
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.0.transport
    }

    pub(crate) fn auth(&self) -> &Auth {
        &self.0.auth
    }

    pub(crate) fn discovered(&self) -> &Discovered {
        &self.0.discovered
    }

    pub(crate) fn fail(&self, kind: ErrorKind) -> Error {
        Error::new(Arc::clone(&self.0.host), kind)
    }
}

/// The body of a blob on its way in.
#[derive(Debug)]
pub struct BlobBody {
    upstream: Upstream,
    answer: Answer,
    start: u64,
    size: Option<u64>,
    at: u64,
    limit: u64,
}

impl BlobBody {
    /// The offset of the first byte that comes: what was asked for, or 0 when the upstream cannot resume.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The size of the whole blob, if the upstream says it.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The next bytes; `None` at the end of the body.
    ///
    /// Fails with [`ErrorKind::Unavailable`] when the body breaks off or stalls, so that it can be taken up again, and
    /// with [`ErrorKind::Limit`] when more comes than may.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let chunk = self.answer.chunk().await.map_err(|kind| self.upstream.fail(kind))?;
        self.at += chunk.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if self.at > self.limit { Err(self.too_large()) } else { Ok(chunk) }
    }

    fn too_large(&self) -> Error {
        self.upstream.fail(ErrorKind::Limit { what: "the blob", limit: self.limit })
    }
}

/// Which part of a blob an answer holds.
struct Part {
    start: u64,
    size: Option<u64>,
}

fn part_of(answer: &Answer, asked: u64) -> Result<Part, ErrorKind> {
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(Part { start: 0, size: answer.content_length() });
    }
    // RFC 9110, section 14.4: `bytes <first>-<last>/<size or *>`.
    let range = answer.header(CONTENT_RANGE).and_then(|text| text.strip_prefix("bytes "));
    let parsed = range.and_then(|range| {
        let (range, size) = range.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, size.parse::<u64>().ok()))
    });
    match parsed {
        Some((first, last, size)) if first == asked && size.is_none_or(|size| last < size) => {
            Ok(Part { start: first, size })
        }
        _ => Err(ErrorKind::protocol("sends another part of the blob than it was asked for")),
    }
}

/// The address of a registry: a scheme, a host, and nothing behind.
fn parse_home(text: &str) -> Result<Url, ErrorKind> {
    let wrong =
        || ErrorKind::protocol(format!("{text:?} is not an address like https://registry.example:5000"));
    let url = Url::parse(text).map_err(|_| wrong())?;
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    let open = url.username().is_empty() && url.password().is_none() && url.has_host();
    if matches!(url.scheme(), "http" | "https") && bare && open { Ok(url) } else { Err(wrong()) }
}

fn manifest_headers() -> HeaderMap {
    // One field with a list, not four fields: some proxies in front of registries read only the first.
    let accept = HeaderValue::try_from(media_type::MANIFEST_ACCEPT.join(", "));
    accept.into_iter().map(|value| (ACCEPT, value)).collect()
}

fn blob_headers(start: u64, end: Option<u64>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // A body that is compressed on the way would neither have the size nor the digest of the blob.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let last = end.map_or(String::new(), |end| end.saturating_sub(1).to_string());
    if (start > 0 || end.is_some())
        && let Ok(range) = HeaderValue::try_from(format!("bytes={start}-{last}"))
    {
        headers.insert(RANGE, range);
    }
    headers
}

pub(crate) fn content_digest(answer: &Answer) -> Option<Digest> {
    Digest::from_str(answer.header(DOCKER_CONTENT_DIGEST)?).ok()
}

pub(crate) fn without_parameters(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_owned()
}
