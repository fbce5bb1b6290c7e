//! Manifests (distribution-spec, end-3, end-7 and end-9).

use deltaport_oci::wire::Route;
use deltaport_oci::{Reference, RepositoryName, Tag};
use deltaport_registry::{Error, NewManifest};
use http::header::WARNING;
use http::{Method, StatusCode};

use crate::body::Content;
use crate::error::Failure;
use crate::handlers::Asked;
use crate::handlers::conditional;
use crate::request;
use crate::respond::{Answer, OCI_SUBJECT, OCI_TAG};

/// The warning on a tag whose upstream could not be asked (RFC 7234, section 5.5.1).
const STALE: &str = "110 deltaport \"the upstream does not answer; this is what it said last\"";

/// GET and HEAD. What the client accepts is not asked: the bytes are those that were pushed, or their digest is wrong.
pub(crate) async fn get(
    asked: Asked<'_>,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Answer, Failure> {
    let pulled = asked.registry().manifest_for(asked.caller, name, reference).await?;
    let etag = conditional::etag(&pulled.digest);
    let known = conditional::is_known(&asked.request.headers, &etag);
    let status = if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let answer = Answer::new(status).digest(&pulled.digest).etag(etag);
    let answer = if pulled.stale { answer.header(WARNING, STALE) } else { answer };
    if known {
        return Ok(answer);
    }
    if asked.request.method == Method::GET {
        asked.registry().fetch_ahead(name, &pulled.manifest);
    }
    Ok(answer.content(&pulled.media_type, Content::Whole(pulled.bytes.clone())))
}

/// PUT, by tag or by digest, with more tags in the query.
pub(crate) async fn put(
    asked: Asked<'_>,
    name: RepositoryName,
    reference: Reference,
) -> Result<Answer, Failure> {
    let limits = &asked.registry().options().limits;
    // Counted before they are read: a query may be as long as a head.
    if asked.query.all("tag").take(limits.tags_per_put + 1).count() > limits.tags_per_put {
        return Err(Error::TooManyTags { limit: limits.tags_per_put }.into());
    }
    let parsed: Result<Vec<Tag>, _> = asked.query.all("tag").map(str::parse).collect();
    let tags = parsed.map_err(Failure::Tag)?;
    let limit = limits.manifest_bytes;
    let bytes = asked.payload.all(limit).await?.ok_or(Error::ManifestTooLarge { limit })?;
    let manifest = NewManifest {
        reference,
        tags: tags.clone(),
        media_type: request::media_type(&asked.request.headers).to_owned(),
        bytes,
    };
    let put = asked.registry().put_manifest(&name, manifest).await?;
    let location = Route::Manifest(name, Reference::Digest(put.digest));
    let mut answer = Answer::new(StatusCode::CREATED).location(location).digest(&put.digest);
    if let Some(subject) = put.subject {
        answer = answer.header(OCI_SUBJECT, subject.to_string());
    }
    for tag in tags {
        answer = answer.header(OCI_TAG, tag.to_string());
    }
    Ok(answer.length(0))
}

/// DELETE, of a tag or of a manifest.
pub(crate) async fn delete(
    asked: Asked<'_>,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Answer, Failure> {
    asked.registry().delete_manifest(name, reference).await?;
    Ok(Answer::new(StatusCode::ACCEPTED).length(0))
}
