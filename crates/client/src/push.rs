//! Giving something to another registry (distribution-spec, "Push").

use std::io;
use std::str::FromStr;

use bytes::Bytes;
use deltaport_oci::wire::{OCI_SUBJECT, Route};
use deltaport_oci::{Descriptor, Digest, Reference, RepositoryName, media_type};
use futures_util::Stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::Url;
use serde_json::{Value, json};

use crate::auth::Scope;
use crate::challenge::Challenge;
use crate::error::{ErrorKind, Result};
use crate::referrers::fallback_tag;
use crate::transport::{Answer, Request};
use crate::upstream::{MAX_MANIFEST, Upstream};

/// How often the list of referrers under a tag is written again when others write it at the same time.
const LIST_ATTEMPTS: usize = 4;

/// What became of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The repository had it already; nothing was sent.
    Present,
    /// It was sent.
    Uploaded,
}

impl Upstream {
    /// Makes sure that `repository` holds the blob `digest`, of `size` bytes. `open` gives its content from the beginning; it
    /// is called when the upstream lacks the blob, and again if it wants other credentials in the middle.
    ///
    /// Fails with [`ErrorKind::Unavailable`] when the content cannot be read or the connection breaks: then the whole has to
    /// be sent again.
    pub async fn push_blob<S>(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        size: u64,
        open: impl Fn() -> S,
    ) -> Result<Pushed>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let scope = Scope::push(repository);
        let route = Route::Blob(repository.clone(), *digest);
        match self.get(scope, Method::HEAD, &route, HeaderMap::new()).await {
            Ok(_) => return Ok(Pushed::Present),
            Err(error) if *error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut place = self.begin_upload(scope).await?;
        place.query_pairs_mut().append_pair("digest", &digest.to_string());
        let mut request = Request::new(Method::PUT, place);
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type::OCTET_STREAM));
        request.headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
        request.authorization = self.auth().known(&scope.to_string());
        let mut answer = self.transport().upload(&request, open()).await.map_err(|kind| self.fail(kind))?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let challenge = Challenge::choose(answer.headers());
            answer.drain().await;
            let tried = request.authorization.as_ref();
            let header = self.auth().answer(self.transport(), challenge, &scope, tried).await;
            request.authorization = Some(header.map_err(|kind| self.fail(kind))?);
            answer = self.transport().upload(&request, open()).await.map_err(|kind| self.fail(kind))?;
        }
        self.created(answer).await?.drain().await;
        Ok(Pushed::Uploaded)
    }

    /// Gives a manifest to `repository`. Returns the subject that the upstream has recognised in it; if it has one and the
    /// upstream says nothing, [`Upstream::list_referrer`] has to follow.
    pub async fn push_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Option<Digest>> {
        let route = Route::Manifest(repository.clone(), reference.clone());
        let mut request = Request::new(Method::PUT, self.url(&route).map_err(|kind| self.fail(kind))?);
        let media_type = HeaderValue::try_from(media_type);
        let unsendable = |_| self.fail(ErrorKind::protocol("cannot be sent a manifest of that media type"));
        request.headers.insert(CONTENT_TYPE, media_type.map_err(unsendable)?);
        request.body = bytes;
        let answer = self.created(self.ask(Scope::push(repository), request).await?).await?;
        let subject = answer.header(OCI_SUBJECT).and_then(|text| Digest::from_str(text).ok());
        answer.drain().await;
        Ok(subject)
    }

    /// Adds `referrer` to the list that clients keep under a tag for registries that keep none themselves
    /// (distribution-spec, "Pushing Manifests with Subject"). Others may do the same at the same time, and there is no way
    /// to exclude them: the list is read again until the referrer is in it.
    pub async fn list_referrer(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        referrer: &Descriptor,
    ) -> Result<()> {
        let reference = Reference::Tag(fallback_tag(subject).map_err(|kind| self.fail(kind))?);
        for _ in 0..LIST_ATTEMPTS {
            let list = match self.manifest(repository, &reference).await {
                Ok(manifest) => Some(manifest.bytes),
                Err(error) if *error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            match with_referrer(list.as_deref(), referrer).map_err(|kind| self.fail(kind))? {
                None => return Ok(()),
                Some(list) => {
                    self.push_manifest(repository, &reference, media_type::OCI_INDEX, list).await?;
                }
            }
        }
        Err(self.fail(ErrorKind::unavailable("others keep overwriting the list of referrers")))
    }

    /// Begins an upload and returns where its content goes.
    async fn begin_upload(&self, scope: Scope<'_>) -> Result<Url> {
        let repository = scope.repository.ok_or_else(|| self.fail(ErrorKind::NotFound))?;
        let url = self.url(&Route::Uploads(repository.clone())).map_err(|kind| self.fail(kind))?;
        let answer = self.ask(scope, Request::new(Method::POST, url.clone())).await?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(self.fail(answer.into_error().await));
        }
        let place = answer.location(&url).map_err(|kind| self.fail(kind))?;
        answer.drain().await;
        // Our credentials go there, so it has to be the registry itself.
        let own = place.origin() == self.home().origin();
        match own && place.username().is_empty() && place.password().is_none() {
            true => Ok(place),
            false => {
                let host = place.host_str().unwrap_or("nowhere");
                let why = format!("wants uploads sent to {}://{host}, which is not itself", place.scheme());
                Err(self.fail(ErrorKind::Protocol(why)))
            }
        }
    }

    async fn created(&self, answer: Answer) -> Result<Answer> {
        match answer.status() {
            StatusCode::CREATED => Ok(answer),
            _ => Err(self.fail(answer.into_error().await)),
        }
    }
}

/// The list with `referrer` added; `None` if that is in it. Everything else in it stays what it was.
fn with_referrer(list: Option<&[u8]>, referrer: &Descriptor) -> Result<Option<Bytes>, ErrorKind> {
    let other = || ErrorKind::protocol("has something else under the tag of the list of referrers");
    let mut list: Value = match list {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|_| other())?,
        None => json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [] }),
    };
    let referrers = list.get_mut("manifests").and_then(Value::as_array_mut).ok_or_else(other)?;
    let digest = referrer.digest.to_string();
    if referrers.iter().any(|listed| listed.get("digest").and_then(Value::as_str) == Some(&digest)) {
        return Ok(None);
    }
    referrers.push(serde_json::to_value(referrer).map_err(|_| other())?);
    let bytes = serde_json::to_vec(&list).map_err(|_| other())?;
    match bytes.len() as u64 > MAX_MANIFEST {
        true => Err(ErrorKind::Limit { what: "the list of referrers", limit: MAX_MANIFEST }),
        false => Ok(Some(bytes.into())),
    }
}
