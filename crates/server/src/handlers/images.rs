//! What is here of an image, deltaport's own extension of the protocol: to be shown (GET), completed (POST) and pruned
//! (DELETE). `platform` in the query, once or more, says which children of an index are meant.

use std::time::Duration;

use deltaport_oci::platform::{Filter, Pattern, PatternError};
use deltaport_oci::{Reference, RepositoryName};
use deltaport_trust::Action;
use http::StatusCode;
use http::header::RETRY_AFTER;
use serde_json::json;

use crate::error::Failure;
use crate::handlers::Asked;
use crate::respond::Answer;

const JSON: &str = "application/json";
/// How long one request waits for an image to be complete. Clients wait for about twice as long, and ask again.
const PATIENCE: Duration = Duration::from_secs(15);
/// When to ask again whether it is, in seconds: at once, since the answer is waited for.
const AGAIN: &str = "0";
/// How many platforms one request may name.
const MAX_PLATFORMS: usize = 64;

/// GET: the tree of its manifests, with what is here of each.
pub(crate) async fn show(
    asked: Asked<'_>,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Answer, Failure> {
    let tree = asked.registry().image(name, reference).await?;
    Ok(Answer::new(StatusCode::OK).json(JSON, &tree))
}

/// POST: fetches what is missing of it. 200 when everything is here or has failed; 202 when that takes longer, with what
/// is here so far: asking again goes on with it.
pub(crate) async fn complete(
    asked: Asked<'_>,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Answer, Failure> {
    may_see(&asked, name)?;
    let (registry, filter) = (asked.registry(), filter(&asked)?);
    match tokio::time::timeout(PATIENCE, registry.complete(name, reference, &filter)).await {
        Ok(completed) => {
            let completed = completed?;
            let done = json!({ "done": true, "tree": completed.tree, "failed": completed.failed });
            Ok(Answer::new(StatusCode::OK).json(JSON, &done))
        }
        Err(_) => {
            // Where not even its own manifest has come yet, there is nothing to tell.
            let tree = registry.image(name, reference).await.ok();
            let so_far = json!({ "done": false, "tree": tree, "failed": [] });
            Ok(Answer::new(StatusCode::ACCEPTED).header(RETRY_AFTER, AGAIN).json(JSON, &so_far))
        }
    }
}

/// DELETE: removes children of an index, which must be named by platform.
pub(crate) async fn prune(
    asked: Asked<'_>,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Answer, Failure> {
    may_see(&asked, name)?;
    let filter = filter(&asked)?;
    if filter.is_all() {
        return Err(Failure::Query("what is to be removed is missing: add ?platform=linux/arm64"));
    }
    let pruned = asked.registry().prune(name, reference, &filter).await?;
    Ok(Answer::new(StatusCode::OK).json(JSON, &pruned))
}

/// Fails when the caller may not pull: what is done to an image is answered with what there is of it, and that is not for
/// those who may only push or delete.
pub(super) fn may_see(asked: &Asked<'_>, name: &RepositoryName) -> Result<(), Failure> {
    Ok(asked.registry().authorize(asked.caller, Action::Pull, Some(name))?)
}

/// Which children of an index are meant.
fn filter(asked: &Asked<'_>) -> Result<Filter, Failure> {
    let platforms = || asked.query.all("platform");
    if platforms().take(MAX_PLATFORMS + 1).count() > MAX_PLATFORMS {
        return Err(Failure::Query("too many platforms; 64 may be named"));
    }
    let patterns: Result<Vec<Pattern>, PatternError> = platforms().map(str::parse).collect();
    let wrong = "platform is none such as linux/amd64, linux/arm/v7, linux/* or windows(10.0.20348)/amd64";
    Ok(Filter::new(patterns.map_err(|_| Failure::Query(wrong))?))
}
