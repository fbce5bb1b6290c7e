//! Blobs on their way to a registry, in pieces (distribution-spec, "Pushing a blob in chunks"): what has arrived need not
//! be sent again, by another process neither.

use std::io;

use bytes::Bytes;
use deltaport_oci::wire::{Query, Route};
use deltaport_oci::{Digest, RepositoryName, media_type};
use futures_util::Stream;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::Url;

use crate::auth::Scope;
use crate::challenge::Challenge;
use crate::error::{ErrorKind, Result};
use crate::transport::{Answer, Request};
use crate::upstream::Upstream;

/// The longest place of an upload that is remembered, in bytes.
const MAX_PLACE: usize = 8 * 1024;
/// How a registry says that it wants no smaller pieces than so many bytes.
const LEAST: &str = "OCI-Chunk-Min-Length";

/// What a registry says to a blob that is to come.
#[derive(Debug)]
pub enum Begun {
    /// It took the blob from the repository that was named: nothing has to be sent.
    Mounted,
    /// It waits for the bytes.
    Upload(Upload),
}

/// An upload to another registry.
#[derive(Clone, Debug)]
pub struct Upload {
    upstream: Upstream,
    repository: RepositoryName,
    place: Url,
    offset: u64,
    least: u64,
}

impl Upstream {
    /// Begins to give the blob `digest` to `repository`. When it may be in the repository `from` of the same registry, the
    /// registry is asked to take it from there (distribution-spec, "Mounting a blob from another repository").
    pub async fn begin_upload(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<&RepositoryName>,
    ) -> Result<Begun> {
        let mut url = self.url(&Route::Uploads(repository.clone())).map_err(|kind| self.fail(kind))?;
        let home = url.clone();
        if let Some(from) = from {
            let pairs = [("mount", digest.to_string()), ("from", from.to_string())];
            url.set_query(Some(&Query::render(pairs.iter().map(|(name, value)| (*name, value.as_str())))));
        }
        let answer = self.ask(Scope::push(repository), Request::new(Method::POST, url)).await?;
        match answer.status() {
            StatusCode::CREATED if from.is_some() => {
                answer.drain().await;
                Ok(Begun::Mounted)
            }
            StatusCode::ACCEPTED => {
                let place = self.place_of(&answer, &home)?;
                let least = answer.header(LEAST).and_then(|text| text.parse().ok()).unwrap_or(0);
                answer.drain().await;
                let repository = repository.clone();
                Ok(Begun::Upload(Upload { upstream: self.clone(), repository, place, offset: 0, least }))
            }
            _ => Err(self.fail(answer.into_error().await)),
        }
    }

    /// An upload that was begun before, by its [`Upload::place`], with how much of it the registry has; `None` when the
    /// registry knows nothing of it any more.
    pub async fn resume_upload(&self, repository: &RepositoryName, place: &str) -> Result<Option<Upload>> {
        let Ok(url) = Url::parse(place) else { return Ok(None) };
        if !self.is_own(&url) {
            return Ok(None);
        }
        let answer = self.ask(Scope::push(repository), Request::new(Method::GET, url.clone())).await?;
        match answer.status().as_u16() {
            200 | 202 | 204 => {
                let offset = end_of(&answer).unwrap_or(0);
                let place = self.place_of(&answer, &url).unwrap_or(url);
                answer.drain().await;
                let repository = repository.clone();
                Ok(Some(Upload { upstream: self.clone(), repository, place, offset, least: 0 }))
            }
            // Some end an upload of which more has come than they had promised to keep.
            400 | 404 | 405 | 410 | 416 => {
                answer.drain().await;
                Ok(None)
            }
            _ => Err(self.fail(answer.into_error().await)),
        }
    }

    /// Where the registry wants an upload to go.
    fn place_of(&self, answer: &Answer, from: &Url) -> Result<Url> {
        let place = answer.location(from).map_err(|kind| self.fail(kind))?;
        // Our credentials go there, so it has to be the registry itself.
        match self.is_own(&place) {
            true => Ok(place),
            false => {
                let host = place.host_str().unwrap_or("nowhere");
                let why = format!("wants uploads sent to {}://{host}, which is not itself", place.scheme());
                Err(self.fail(ErrorKind::Protocol(why)))
            }
        }
    }

    fn is_own(&self, place: &Url) -> bool {
        let open = place.username().is_empty() && place.password().is_none();
        open && place.origin() == self.home().origin() && place.as_str().len() <= MAX_PLACE
    }

    /// Sends a request with a long body, which `open` gives from its beginning, and answers one challenge.
    async fn give<S>(&self, scope: Scope<'_>, mut request: Request, open: impl Fn() -> S) -> Result<Answer>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        request.authorization = self.auth().known(&scope.to_string());
        let answer = self.transport().upload(&request, open()).await.map_err(|kind| self.fail(kind))?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let challenge = Challenge::choose(answer.headers());
        answer.drain().await;
        let tried = request.authorization.as_ref();
        let header = self.auth().answer(self.transport(), challenge, &scope, tried).await;
        request.authorization = Some(header.map_err(|kind| self.fail(kind))?);
        self.transport().upload(&request, open()).await.map_err(|kind| self.fail(kind))
    }
}

impl Upload {
    /// What [`Upstream::resume_upload`] needs to go on with it.
    pub fn place(&self) -> &str {
        self.place.as_str()
    }

    /// How many bytes the registry has, as it says.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The fewest bytes that the registry wants in a piece other than the last.
    pub fn least(&self) -> u64 {
        self.least
    }

    /// Sends the next `count` bytes, which `open` gives from [`Upload::offset`] on.
    ///
    /// Fails with [`ErrorKind::Unavailable`] when the bytes cannot be read or the connection breaks: the registry knows how
    /// far the upload is then.
    pub async fn append<S>(&mut self, count: u64, open: impl Fn() -> S) -> Result<()>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let request =
            Request { headers: self.headers(count), ..Request::new(Method::PATCH, self.place.clone()) };
        let answer = self.upstream.give(Scope::push(&self.repository), request, open).await?;
        if !matches!(answer.status(), StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            return Err(self.upstream.fail(answer.into_error().await));
        }
        self.offset = end_of(&answer).unwrap_or(self.offset.saturating_add(count));
        self.place = self.upstream.place_of(&answer, &self.place)?;
        answer.drain().await;
        Ok(())
    }

    /// Sends the last `count` bytes and has the registry check that the whole is `digest`.
    pub async fn finish<S>(self, digest: &Digest, count: u64, open: impl Fn() -> S) -> Result<()>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let mut place = self.place.clone();
        place.query_pairs_mut().append_pair("digest", &digest.to_string());
        let request = Request { headers: self.headers(count), ..Request::new(Method::PUT, place) };
        let answer = self.upstream.give(Scope::push(&self.repository), request, open).await?;
        match answer.status() {
            StatusCode::CREATED => {
                answer.drain().await;
                Ok(())
            }
            _ => Err(self.upstream.fail(answer.into_error().await)),
        }
    }

    /// What is said of the next `count` bytes.
    fn headers(&self, count: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type::OCTET_STREAM));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(count));
        let last = self.offset.saturating_add(count).saturating_sub(1);
        if self.offset > 0
            && count > 0
            && let Ok(range) = HeaderValue::try_from(format!("{}-{last}", self.offset))
        {
            headers.insert(CONTENT_RANGE, range);
        }
        headers
    }
}

/// How many bytes an upload has, as an answer says: `Range: 0-<last>`.
fn end_of(answer: &Answer) -> Option<u64> {
    let range = answer.header(RANGE)?;
    let (first, last) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    // No byte cannot be said: for nothing, registries say what would be one.
    (first == 0).then_some(if last == 0 { 0 } else { last.saturating_add(1) })
}
