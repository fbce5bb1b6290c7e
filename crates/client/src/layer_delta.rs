//! The question for a delta between two layers, as a deltaport hub understands it (docs/delta-protocol.md).

use std::time::Duration;

use deltaport_oci::wire::{DELTA_SIZE, INLINE, Query, Route};
use deltaport_oci::{Digest, RepositoryName, media_type};
use http::Method;
use http::header::CONTENT_TYPE;
use reqwest::Url;

use crate::auth::Scope;
use crate::error::{ErrorKind, Result};
use crate::transport::{Answer, Request};
use crate::upstream::{BlobBody, Upstream, content_digest, without_parameters};

/// How many bases one request for a delta may offer; what the address of a request has room for.
pub const MAX_OFFERED: usize = 16;
/// How long to wait before a delta is asked for again when the upstream does not say.
const DEFAULT_PAUSE: Duration = Duration::from_secs(2);

/// What an upstream has to offer in place of a whole layer.
#[derive(Debug)]
pub enum LayerDelta {
    /// A delta, which comes at once. It is a blob of the repository too, so that it can be gone on with there.
    Sent {
        /// The digest that its bytes should have.
        digest: Digest,
        /// Its bytes.
        body: Box<BlobBody>,
    },
    /// A blob of the repository.
    Named {
        /// Its digest.
        digest: Digest,
        /// Its size in bytes, if the upstream says it.
        size: Option<u64>,
    },
    /// It is being made; ask again after this time.
    Pending(Duration),
    /// There is none.
    None,
}

impl Upstream {
    /// Asks for a delta to layer `to` from one of the layers `from`, the best first; at most [`MAX_OFFERED`] of them
    /// are offered. If it has at most `inline` bytes, the upstream may send it at once; with 0 it is only named.
    /// Registries other than deltaport do not know the question, which reads as [`LayerDelta::None`].
    pub async fn layer_delta(
        &self,
        repository: &RepositoryName,
        to: &Digest,
        from: &[Digest],
        inline: u64,
    ) -> Result<LayerDelta> {
        let bases: Vec<String> = from.iter().take(MAX_OFFERED).map(Digest::to_string).collect();
        let (target, most) = (to.to_string(), inline.to_string());
        let pairs = std::iter::once(("to", target.as_str()))
            .chain(bases.iter().map(|base| ("from", base.as_str())))
            .chain(Some((INLINE, most.as_str())).filter(|_| inline > 0));
        let mut url = self.url(&Route::LayerDelta(repository.clone())).map_err(|kind| self.fail(kind))?;
        url.set_query(Some(&Query::render(pairs)));
        let answer = self.ask(Scope::pull(repository), Request::new(Method::GET, url.clone())).await?;
        let (status, pause) = (answer.status(), answer.retry_after());
        match status.as_u16() {
            200 if inline > 0 && is_delta(&answer) => {
                let digest = content_digest(&answer);
                let digest = digest.ok_or_else(|| ErrorKind::protocol("sends a delta and not its digest"));
                let digest = digest.map_err(|kind| self.fail(kind))?;
                Ok(LayerDelta::Sent { digest, body: Box::new(self.body(answer, 0, inline)?) })
            }
            202 => {
                answer.drain().await;
                Ok(LayerDelta::Pending(pause.unwrap_or(DEFAULT_PAUSE)))
            }
            301 | 302 | 303 | 307 | 308 => {
                let found = answer.location(&url).and_then(|place| self.delta_blob(repository, &place));
                let size = answer.header(DELTA_SIZE).and_then(|text| text.parse().ok());
                answer.drain().await;
                found.map(|digest| LayerDelta::Named { digest, size }).map_err(|kind| self.fail(kind))
            }
            // Other registries answer a path that they do not know in one of these ways.
            400 | 404 | 405 | 410 | 501 => {
                answer.drain().await;
                Ok(LayerDelta::None)
            }
            _ => Err(self.fail(answer.into_error().await)),
        }
    }

    /// The blob that the location of a delta names. It must be one of the same repository: its digest then says what
    /// has to come, and the way there is that of every other blob.
    fn delta_blob(&self, repository: &RepositoryName, place: &Url) -> Result<Digest, ErrorKind> {
        let home = place.origin() == self.home().origin();
        match Route::parse(place.path()) {
            Ok(Route::Blob(name, digest)) if home && name == *repository => Ok(digest),
            _ => Err(ErrorKind::protocol("says that a delta is where it cannot be")),
        }
    }
}

/// Whether the body of an answer is a delta. Some servers answer 200 and a page of text to whatever they do not know.
fn is_delta(answer: &Answer) -> bool {
    answer.header(CONTENT_TYPE).map(without_parameters).as_deref() == Some(media_type::LAYER_DELTA)
}
