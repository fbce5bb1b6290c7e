//! Uploads (distribution-spec, end-4, end-5, end-6, end-11, end-13 and end-14).

use deltaport_oci::wire::{ContentRange, Route};
use deltaport_oci::{Algorithm, Digest, RepositoryName};
use deltaport_registry::{Error, Upload};
use http::StatusCode;
use http::header::{HeaderName, RANGE};

use crate::error::{Failure, Position};
use crate::handlers::Asked;
use crate::request;
use crate::respond::Answer;

/// Not of the specification; older clients log it.
const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// POST: begins an upload, is one as a whole (`digest`), or makes one unnecessary (`mount`).
pub(crate) async fn post(mut asked: Asked<'_>, name: RepositoryName) -> Result<Answer, Failure> {
    let hint = asked.query.first("digest-algorithm").map(str::parse::<Algorithm>).transpose()?;
    if let Some(digest) = asked.query.first("mount") {
        let digest = digest.parse()?;
        // A source that cannot exist is one that does not exist: the client uploads.
        let from = asked.query.first("from").map(str::parse);
        let mounted = match &from {
            Some(Err(_no_name)) => false,
            Some(Ok(from)) => asked.registry().mount(asked.caller, &name, &digest, Some(from)).await?,
            None => asked.registry().mount(asked.caller, &name, &digest, None).await?,
        };
        if mounted {
            return Ok(created(name, digest));
        }
    } else if let Some(digest) = asked.query.first("digest") {
        let digest: Digest = digest.parse()?;
        return whole(&mut asked, name, digest).await;
    }
    let id = asked.registry().begin_upload(asked.caller, &name, hint).await?;
    Ok(progress(StatusCode::ACCEPTED, &name, &id, 0))
}

/// GET: how far it is.
pub(crate) async fn status(asked: Asked<'_>, name: &RepositoryName, id: &str) -> Result<Answer, Failure> {
    let offset = asked.registry().upload_offset(asked.caller, name, id).await?;
    Ok(progress(StatusCode::NO_CONTENT, name, id, offset))
}

/// PATCH: a chunk, or as many bytes as come.
pub(crate) async fn patch(mut asked: Asked<'_>, name: &RepositoryName, id: &str) -> Result<Answer, Failure> {
    let range = request::content_range(&asked.request.headers)?;
    let offset = receive(&mut asked, name, id, range).await?.finish().await?;
    Ok(progress(StatusCode::ACCEPTED, name, id, offset))
}

/// PUT: the end, perhaps with the last chunk.
pub(crate) async fn put(mut asked: Asked<'_>, name: &RepositoryName, id: &str) -> Result<Answer, Failure> {
    let digest = asked
        .query
        .first("digest")
        .ok_or(Failure::Query("the digest of the blob is missing: add ?digest="))?;
    let digest: Digest = digest.parse()?;
    if asked.payload.is_empty() {
        asked.registry().finish_upload(asked.caller, name, id, &digest).await?;
    } else {
        let range = request::content_range(&asked.request.headers)?;
        receive(&mut asked, name, id, range).await?.commit(name, &digest).await?;
    }
    Ok(created(name.clone(), digest))
}

/// DELETE: gives it up.
pub(crate) async fn cancel(asked: Asked<'_>, name: &RepositoryName, id: &str) -> Result<Answer, Failure> {
    asked.registry().cancel_upload(asked.caller, name, id).await?;
    Ok(Answer::new(StatusCode::NO_CONTENT))
}

/// An upload in one request. What goes wrong in it leaves no upload behind.
async fn whole(asked: &mut Asked<'_>, name: RepositoryName, digest: Digest) -> Result<Answer, Failure> {
    let mut blob = asked.registry().receive(&name, &digest, asked.payload.announced()).await?;
    while let Some(bytes) = asked.payload.next().await? {
        blob.write(bytes).await?;
    }
    blob.finish().await?;
    Ok(created(name, digest))
}

/// Takes the body as the next bytes of an upload, which the caller then finishes or commits.
async fn receive(
    asked: &mut Asked<'_>,
    name: &RepositoryName,
    id: &str,
    range: Option<ContentRange>,
) -> Result<Upload, Failure> {
    let announced = asked.payload.announced();
    let opened = asked.registry().append(asked.caller, name, id, range, announced).await;
    let mut upload = opened.map_err(|error| out_of_order(error, name, id))?;
    while let Some(bytes) = asked.payload.next().await? {
        upload.write(bytes).await?;
    }
    Ok(upload)
}

/// Tells a client that is out of step where the upload is.
fn out_of_order(error: Error, name: &RepositoryName, id: &str) -> Failure {
    match error {
        Error::OutOfOrder { offset } => {
            let location = Route::Upload(name.clone(), id.to_owned()).to_string();
            let at = Box::new(Position { location, range: range(offset) });
            Failure::OutOfOrder { error, at }
        }
        other => other.into(),
    }
}

fn created(name: RepositoryName, digest: Digest) -> Answer {
    Answer::new(StatusCode::CREATED).location(Route::Blob(name, digest)).digest(&digest).length(0)
}

fn progress(status: StatusCode, name: &RepositoryName, id: &str, offset: u64) -> Answer {
    let answer = Answer::new(status)
        .location(Route::Upload(name.clone(), id.to_owned()))
        .header(RANGE, range(offset))
        .header(DOCKER_UPLOAD_UUID, id.to_owned());
    // 204 has no content by itself.
    if status == StatusCode::NO_CONTENT { answer } else { answer.length(0) }
}

/// What is there of an upload. The notation has no way to say "nothing", so that an empty one looks like one with a
/// single byte; every registry answers so.
fn range(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}
