//! Mirror rules, deltaport's own extension of the protocol: to be listed, planned (GET) and run (POST). What takes longer
//! than a request may is answered with how far it is and the number of the run, with which it is asked for again.

use std::time::Duration;

use deltaport_oci::RepositoryName;
use deltaport_registry::mirror::Request;
use http::StatusCode;
use http::header::RETRY_AFTER;

use super::images::may_see;
use crate::error::Failure;
use crate::handlers::Asked;
use crate::respond::Answer;

const JSON: &str = "application/json";
/// How long one request waits for a plan. Clients wait for about twice as long, and ask again.
const PATIENCE: Duration = Duration::from_secs(15);
/// While a run goes on, how far it is is told this often.
const PROGRESS: Duration = Duration::from_secs(1);
/// When to ask again, in seconds: at once, since the answer is waited for.
const AGAIN: &str = "0";

/// GET of the rules whose repositories the caller may pull from.
pub(crate) async fn list(asked: Asked<'_>) -> Answer {
    Answer::new(StatusCode::OK).json(JSON, &asked.registry().mirrors(asked.caller).await)
}

/// GET: what a run would do. Nothing is stored.
pub(crate) async fn plan(asked: Asked<'_>, name: &RepositoryName, rule: &str) -> Result<Answer, Failure> {
    go(asked, name, rule, Request::Plan).await
}

/// POST: a run; with `now`, whatever its hours are.
pub(crate) async fn run(asked: Asked<'_>, name: &RepositoryName, rule: &str) -> Result<Answer, Failure> {
    may_see(&asked, name)?;
    let request = if asked.query.first("now").is_some() { Request::RunNow } else { Request::Run };
    go(asked, name, rule, request).await
}

/// 200 when it is over, 202 with how far it is otherwise.
async fn go(
    asked: Asked<'_>,
    name: &RepositoryName,
    rule: &str,
    request: Request,
) -> Result<Answer, Failure> {
    let number = asked.query.first("run").map(str::parse).transpose();
    let number = number.map_err(|_| Failure::Query("run is not the number of a run"))?;
    let patience = if request == Request::Plan && number.is_none() { PATIENCE } else { PROGRESS };
    let report = asked.registry().mirror(name, rule, request, number, patience).await?;
    Ok(match report.done {
        true => Answer::new(StatusCode::OK).json(JSON, &report),
        false => Answer::new(StatusCode::ACCEPTED).header(RETRY_AFTER, AGAIN).json(JSON, &report),
    })
}
