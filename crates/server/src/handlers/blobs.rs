//! Blobs (distribution-spec, end-2 and end-10), whole or in ranges.

use aws_lc_rs::rand;
use deltaport_oci::wire::{ByteRange, Ranges};
use deltaport_oci::{Digest, RepositoryName, media_type};
use http::StatusCode;
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, LOCATION};

use crate::body::{Content, Parts};
use crate::error::Failure;
use crate::handlers::Asked;
use crate::handlers::conditional;
use crate::respond::Answer;

/// GET.
pub(crate) async fn get(asked: Asked<'_>, name: &RepositoryName, digest: &Digest) -> Result<Answer, Failure> {
    let (headers, etag) = (&asked.request.headers, conditional::etag(digest));
    if conditional::is_known(headers, &etag) {
        // The bytes are not needed, and opening them might fetch them from an upstream.
        return head(asked, name, digest).await;
    }
    if let Some(redirect) = asked.redirect()
        && let Some(address) = asked.registry().blob_address(name, digest, redirect.life).await?
    {
        // A client asks there for the same range again.
        return Ok(Answer::new(StatusCode::TEMPORARY_REDIRECT)
            .digest(digest)
            .header(LOCATION, address)
            .header(CACHE_CONTROL, "no-store")
            .length(0));
    }
    let blob = asked.registry().blob(name, digest).await?;
    let size = blob.size();
    let ranges = conditional::range(headers, &etag).map_or(Ranges::Full, |range| Ranges::parse(range, size));
    let answer = |status| Answer::new(status).digest(digest).etag(etag).header(ACCEPT_RANGES, "bytes");
    Ok(match ranges {
        Ranges::Full => {
            let content = match size {
                0 => Content::Empty,
                _ => Content::Stream(blob.begin(ByteRange { start: 0, end: size }).await?, size),
            };
            answer(StatusCode::OK).content(media_type::OCTET_STREAM, content)
        }
        Ranges::Single(range) => answer(StatusCode::PARTIAL_CONTENT)
            .header(CONTENT_RANGE, range.content_range(size))
            .content(media_type::OCTET_STREAM, Content::Stream(blob.begin(range).await?, range.len())),
        Ranges::Multiple(ranges) => {
            let boundary = boundary();
            let parts = Parts::new(blob, &ranges, &boundary);
            answer(StatusCode::PARTIAL_CONTENT)
                .content(format!("multipart/byteranges; boundary={boundary}"), Content::Parts(parts))
        }
        Ranges::Unsatisfiable => return Err(Failure::Range { size }),
    })
}

/// HEAD: what GET of the whole would say, without opening the bytes.
pub(crate) async fn head(
    asked: Asked<'_>,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Answer, Failure> {
    let size = asked.registry().blob_size_for(asked.caller, name, digest).await?;
    let etag = conditional::etag(digest);
    if conditional::is_known(&asked.request.headers, &etag) {
        return Ok(Answer::new(StatusCode::NOT_MODIFIED).digest(digest).etag(etag));
    }
    Ok(Answer::new(StatusCode::OK)
        .digest(digest)
        .etag(etag)
        .header(ACCEPT_RANGES, "bytes")
        .header(CONTENT_TYPE, media_type::OCTET_STREAM)
        .length(size))
}

/// DELETE.
pub(crate) async fn delete(
    asked: Asked<'_>,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Answer, Failure> {
    asked.registry().delete_blob(name, digest).await?;
    Ok(Answer::new(StatusCode::ACCEPTED).length(0))
}

/// What separates parts. Random, so that nobody can make a blob that contains it.
fn boundary() -> String {
    let mut bytes = [0; 16];
    // Without random numbers the process could not have made its keys; the boundary would be a fixed one then.
    let _filled = rand::fill(&mut bytes);
    bytes.iter().fold(String::from("deltaport-"), |text, byte| text + &format!("{byte:02x}"))
}
