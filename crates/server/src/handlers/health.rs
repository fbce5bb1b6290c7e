//! For those who watch over the server: is it alive, can it serve, what has it done. Open to everybody, so there are no
//! names in it.

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};

use crate::body::Content;
use crate::error::Failure;
use crate::metrics;
use crate::peer::Peer;
use crate::respond::Answer;

const TEXT: &str = "text/plain; charset=utf-8";

/// The process answers.
pub(crate) fn health(request: &Parts) -> Result<Response<Content>, Failure> {
    only_get(request)?;
    Ok(text(StatusCode::OK, "ok\n"))
}

/// Requests can be served.
pub(crate) async fn ready(peer: &Peer, request: &Parts) -> Result<Response<Content>, Failure> {
    only_get(request)?;
    match peer.shared.registry.ready().await {
        Ok(()) => Ok(text(StatusCode::OK, "ready\n")),
        Err(error) => {
            tracing::warn!(%error, cause = ?std::error::Error::source(&error), "not ready");
            Ok(text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"))
        }
    }
}

/// The numbers, for Prometheus.
pub(crate) fn metrics(peer: &Peer, request: &Parts) -> Result<Response<Content>, Failure> {
    only_get(request)?;
    let text = Content::Whole(Bytes::from(peer.shared.metrics.render()));
    Ok(Answer::new(StatusCode::OK).content(metrics::CONTENT_TYPE, text).into_response())
}

fn only_get(request: &Parts) -> Result<(), Failure> {
    let fine = request.method == Method::GET || request.method == Method::HEAD;
    if fine { Ok(()) } else { Err(Failure::Method("GET, HEAD")) }
}

fn text(status: StatusCode, text: &'static str) -> Response<Content> {
    Answer::new(status).content(TEXT, Content::Whole(Bytes::from_static(text.as_bytes()))).into_response()
}
