//! Giving something to another registry (distribution-spec, "Push").

use std::io;
use std::str::FromStr;

use bytes::Bytes;
use deltaport_oci::wire::{OCI_SUBJECT, Route};
use deltaport_oci::{Descriptor, Digest, Reference, RepositoryName, Tag, media_type};
use futures_util::Stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::auth::Scope;
use crate::error::{ErrorKind, Result};
use crate::referrers::fallback_tag;
use crate::transport::{Answer, Request};
use crate::upload::Begun;
use crate::upstream::{MAX_MANIFEST, Upstream};

/// How often the list of referrers under a tag is written again when others write it at the same time.
const LIST_ATTEMPTS: usize = 4;
/// How much is read of a refusal, in bytes.
const MAX_REFUSAL: u64 = 64 * 1024;

/// What became of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The repository had it already; nothing was sent.
    Present,
    /// It was sent.
    Uploaded,
}

/// What became of a manifest that was offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It is there.
    Taken {
        /// The subject that the registry has recognised in it; if it has one and this is `None`,
        /// [`Upstream::list_referrer`] has to follow.
        subject: Option<Digest>,
    },
    /// The registry does not want it.
    Refused {
        /// The status of its answer.
        status: u16,
        /// Its error code (distribution-spec, "Error Codes"); empty when it said none.
        code: String,
        /// Its own words.
        message: String,
    },
}

/// The body of a refusal.
#[derive(Deserialize)]
struct Said {
    errors: Vec<Complaint>,
}

#[derive(Default, Deserialize)]
struct Complaint {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
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
        match self.begin_upload(repository, digest, None).await? {
            Begun::Mounted => Ok(Pushed::Present),
            Begun::Upload(upload) => upload.finish(digest, size, open).await.map(|()| Pushed::Uploaded),
        }
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
        let request = self.manifest_request(repository, reference, media_type, bytes)?;
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

    /// Offers a manifest to `repository`: a refusal is an answer like any other, with what the registry says about it.
    pub async fn offer_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Offered> {
        let request = self.manifest_request(repository, reference, media_type, bytes)?;
        let mut answer = self.ask(Scope::push(repository), request).await?;
        match answer.status().as_u16() {
            200 | 201 => {
                let subject = answer.header(OCI_SUBJECT).and_then(|text| Digest::from_str(text).ok());
                answer.drain().await;
                Ok(Offered::Taken { subject })
            }
            status @ (400 | 404 | 405 | 409 | 412 | 413 | 415 | 422) => {
                let body = answer.read("a refusal", MAX_REFUSAL).await.unwrap_or_default();
                let said: Option<Said> = serde_json::from_slice(&body).ok();
                let first = said.and_then(|said| said.errors.into_iter().next()).unwrap_or_default();
                Ok(Offered::Refused { status, code: first.code, message: first.message })
            }
            _ => Err(self.fail(answer.into_error().await)),
        }
    }

    /// Removes a tag; `false` when the registry does not do that. One that is not there is no error.
    pub async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<bool> {
        let route = Route::Manifest(repository.clone(), Reference::Tag(tag.clone()));
        let url = self.url(&route).map_err(|kind| self.fail(kind))?;
        let answer = self.ask(Scope::delete(repository), Request::new(Method::DELETE, url)).await?;
        match answer.status().as_u16() {
            200 | 202 | 204 | 404 => {
                answer.drain().await;
                Ok(true)
            }
            // Some remove manifests only, and with them every other tag on the same one.
            400 | 405 | 501 => {
                answer.drain().await;
                Ok(false)
            }
            _ => Err(self.fail(answer.into_error().await)),
        }
    }

    fn manifest_request(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Request> {
        let route = Route::Manifest(repository.clone(), reference.clone());
        let mut request = Request::new(Method::PUT, self.url(&route).map_err(|kind| self.fail(kind))?);
        let media_type = HeaderValue::try_from(media_type);
        let unsendable = |_| self.fail(ErrorKind::protocol("cannot be sent a manifest of that media type"));
        request.headers.insert(CONTENT_TYPE, media_type.map_err(unsendable)?);
        request.body = bytes;
        Ok(request)
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
