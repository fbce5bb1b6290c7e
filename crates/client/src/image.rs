//! What another deltaport has of an image, for commands: its own extension of the protocol.

use bytes::Bytes;
use deltaport_oci::wire::{Query, Route};
use deltaport_oci::{Reference, RepositoryName};
use http::{Method, StatusCode};
use serde::Deserialize;

use crate::auth::Scope;
use crate::error::{ErrorKind, Result};
use crate::transport::{Answer, Request};
use crate::upstream::Upstream;

/// The largest answer, in bytes: a tree of thousands of manifests.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;
/// How much is read of a refusal, in bytes.
const MAX_REFUSAL: u64 = 64 * 1024;

/// What is to be done with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageRequest {
    /// To tell what is there of it.
    Show,
    /// To fetch what is missing.
    Complete,
    /// To remove platforms of it.
    Prune,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageAnswer {
    /// It is done; JSON.
    Done(Bytes),
    /// It goes on, and has come so far; JSON. Asking again waits for more.
    Pending(Bytes),
    /// It cannot be done, in a sentence.
    Refused(String),
}

#[derive(Deserialize)]
struct Refusal {
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    message: String,
}

impl Upstream {
    /// Asks a deltaport for something about an image, of which `platforms` are meant. Other registries do not know the
    /// question; see [`Extensions::images`](crate::Extensions::images).
    pub async fn image(
        &self,
        request: ImageRequest,
        repository: &RepositoryName,
        reference: &Reference,
        platforms: &[String],
    ) -> Result<ImageAnswer> {
        let route = Route::Image(repository.clone(), reference.clone());
        let mut url = self.url(&route).map_err(|kind| self.fail(kind))?;
        if !platforms.is_empty() {
            let pairs = platforms.iter().map(|platform| ("platform", platform.as_str()));
            url.set_query(Some(&Query::render(pairs)));
        }
        let (method, scope) = match request {
            ImageRequest::Show => (Method::GET, Scope::pull(repository)),
            ImageRequest::Complete => (Method::POST, Scope::push(repository)),
            ImageRequest::Prune => (Method::DELETE, Scope::push(repository)),
        };
        let answer = self.ask(scope, Request::new(method, url)).await?;
        self.read_answer("what is said about the image", answer).await
    }

    /// What a deltaport has answered to a command.
    pub(crate) async fn read_answer(&self, what: &'static str, mut answer: Answer) -> Result<ImageAnswer> {
        let status = answer.status();
        match status {
            StatusCode::OK | StatusCode::ACCEPTED => {
                let body = answer.read(what, MAX_ANSWER).await.map_err(|kind| self.fail(kind))?;
                let done = status == StatusCode::OK;
                Ok(if done { ImageAnswer::Done(body) } else { ImageAnswer::Pending(body) })
            }
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => {
                let body = answer.read(what, MAX_REFUSAL).await.map_err(|kind| self.fail(kind))?;
                let refusal: Option<Refusal> = serde_json::from_slice(&body).ok();
                match refusal.and_then(|refusal| refusal.errors.into_iter().next()) {
                    Some(reason) => Ok(ImageAnswer::Refused(reason.message)),
                    None => Err(self.fail(ErrorKind::protocol(format!("answers {status}")))),
                }
            }
            _ => Err(self.fail(answer.into_error().await)),
        }
    }
}
