//! Layer deltas, deltaport's own extension of the protocol.

use deltaport_oci::delta_artifact::LayerDelta;
use deltaport_oci::wire::{ByteRange, INLINE, Query, Route};
use deltaport_oci::{Digest, RepositoryName, media_type};
use deltaport_registry::vend::DeltaAnswer;
use http::StatusCode;
use http::header::{CONTENT_LOCATION, RETRY_AFTER};
use serde_json::json;

use crate::body::Content;
use crate::error::Failure;
use crate::handlers::Asked;
use crate::handlers::conditional;
use crate::respond::{Answer, DELTA_SIZE};

/// How many layers a client may say it holds. The best base is among the last few.
const MAX_BASES: usize = 64;

/// GET: a delta to the layer `to` from one of the layers `from`. It is a blob of the repository, so the answer is where
/// that is and how large (307), when to ask again (202), or that there is none (404). One of at most `inline` bytes is
/// the answer itself (200). Who names no layer is told which deltas there are (200).
pub(crate) async fn layer(asked: Asked<'_>, name: RepositoryName) -> Result<Answer, Failure> {
    let to = asked.query.first("to").ok_or(Failure::Query("the wanted layer is missing: add ?to="))?;
    let to: Digest = to.parse()?;
    let from: Vec<Digest> =
        asked.query.all("from").take(MAX_BASES).map(str::parse).collect::<Result<_, _>>()?;
    let inline = asked.query.first(INLINE).map(str::parse::<u64>).transpose();
    let inline = inline.map_err(|_| Failure::Query("inline is no number of bytes"))?;
    if from.is_empty() {
        return list(&asked, &name, to).await;
    }
    match asked.registry().layer_delta(&name, &to, &from).await? {
        DeltaAnswer::Ready { delta, size } if inline.is_some_and(|most| size <= most) => {
            send(&asked, &name, delta).await
        }
        DeltaAnswer::Ready { delta, size } => Ok(Answer::new(StatusCode::TEMPORARY_REDIRECT)
            .location(location(&asked, &name, delta))
            .digest(&delta)
            .header(DELTA_SIZE, size.to_string())
            .length(0)),
        DeltaAnswer::Pending(after) => Ok(Answer::new(StatusCode::ACCEPTED)
            .header(RETRY_AFTER, after.as_secs().max(1).to_string())
            .length(0)),
        DeltaAnswer::None => Err(deltaport_registry::Error::BlobUnknown(to).into()),
    }
}

/// The delta as the answer. Where it is besides is said too: that is where an asker goes on when the connection breaks.
async fn send(asked: &Asked<'_>, name: &RepositoryName, delta: Digest) -> Result<Answer, Failure> {
    let blob = asked.registry().blob(name, &delta).await?;
    let size = blob.size();
    Ok(Answer::new(StatusCode::OK)
        .header(CONTENT_LOCATION, location(asked, name, delta))
        .digest(&delta)
        .etag(conditional::etag(&delta))
        .header(DELTA_SIZE, size.to_string())
        .content(
            media_type::LAYER_DELTA,
            Content::Stream(blob.begin(ByteRange { start: 0, end: size }).await?, size),
        ))
}

/// The deltas to a layer that there are, from whichever layers.
async fn list(asked: &Asked<'_>, name: &RepositoryName, to: Digest) -> Result<Answer, Failure> {
    let made = asked.registry().layer_deltas(name, &to).await?;
    if made.is_empty() {
        return Err(deltaport_registry::Error::BlobUnknown(to).into());
    }
    let delta = |made: &LayerDelta| json!({ "base": made.base, "digest": made.delta, "size": made.size });
    let deltas: Vec<_> = made.iter().map(delta).collect();
    Ok(Answer::new(StatusCode::OK).json("application/json", &json!({ "deltas": deltas })))
}

/// Where the delta is, in the words of the request.
fn location(asked: &Asked<'_>, name: &RepositoryName, delta: Digest) -> String {
    let path = Route::Blob(asked.link_name(name), delta);
    match asked.link_namespace() {
        Some(namespace) => format!("{path}?{}", Query::render([namespace])),
        None => path.to_string(),
    }
}
