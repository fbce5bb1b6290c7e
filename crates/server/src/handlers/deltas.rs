//! Layer deltas, deltaport's own extension of the protocol.

use deltaport_oci::wire::{Query, Route};
use deltaport_oci::{Digest, RepositoryName};
use deltaport_registry::vend::DeltaAnswer;
use http::StatusCode;
use http::header::RETRY_AFTER;

use crate::error::Failure;
use crate::handlers::Asked;
use crate::respond::{Answer, DELTA_SIZE};

/// How many layers a client may say it holds. The best base is among the last few.
const MAX_BASES: usize = 64;

/// GET: a delta to the layer `to` from one of the layers `from`. It is a blob of the repository, so the answer is where
/// that is and how large (307), when to ask again (202), or that there is none (404).
pub(crate) async fn layer(asked: Asked<'_>, name: RepositoryName) -> Result<Answer, Failure> {
    let to = asked.query.first("to").ok_or(Failure::Query("the wanted layer is missing: add ?to="))?;
    let to: Digest = to.parse()?;
    let from: Vec<Digest> =
        asked.query.all("from").take(MAX_BASES).map(str::parse).collect::<Result<_, _>>()?;
    Ok(match asked.registry().layer_delta(&name, &to, &from).await? {
        DeltaAnswer::Ready { delta, size } => Answer::new(StatusCode::TEMPORARY_REDIRECT)
            .location(location(&asked, &name, delta))
            .digest(&delta)
            .header(DELTA_SIZE, size.to_string())
            .length(0),
        DeltaAnswer::Pending(after) => Answer::new(StatusCode::ACCEPTED)
            .header(RETRY_AFTER, after.as_secs().max(1).to_string())
            .length(0),
        DeltaAnswer::None => return Err(deltaport_registry::Error::BlobUnknown(to).into()),
    })
}

/// Where the delta is, in the words of the request.
fn location(asked: &Asked<'_>, name: &RepositoryName, delta: Digest) -> String {
    let path = Route::Blob(asked.link_name(name), delta);
    match asked.link_namespace() {
        Some(namespace) => format!("{path}?{}", Query::render([namespace])),
        None => path.to_string(),
    }
}
