//! What an upstream can do beyond the distribution specification, as it says itself (distribution-spec,
//! extensions/_oci.md).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deltaport_oci::delta_artifact::LayerDelta;
use deltaport_oci::wire::{Query, Route};
use deltaport_oci::{Digest, RepositoryName};
use http::Method;
use serde::Deserialize;

use crate::auth::Scope;
use crate::error::{ErrorKind, Result};
use crate::transport::Request;
use crate::upstream::Upstream;

/// The largest answer, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;
/// How long it is believed that the upstream has an extension.
const LIFE: Duration = Duration::from_secs(60 * 60);
/// How long it is believed that it has none: it may be replaced by one that has.
const LIFE_OF_NONE: Duration = Duration::from_secs(10 * 60);
/// The last part of the path by which layers are asked for as deltas.
const LAYER_DELTAS: &str = "_deltaport/delta/layer";
/// The part of the path in front of the reference of an image that is shown, completed or pruned.
const IMAGES: &str = "_deltaport/image";

/// What an upstream offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Deltas between layers: it is a deltaport hub.
    pub layer_deltas: bool,
    /// What is there of an image can be asked ([`Upstream::image`]).
    pub images: bool,
}

/// What has been found out.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    /// The last answer, and until when it counts.
    known: Mutex<Option<(Extensions, Instant)>>,
    /// Held while the upstream is asked, so that it is asked once.
    asking: tokio::sync::Mutex<()>,
}

impl Discovered {
    fn known(&self) -> MutexGuard<'_, Option<(Extensions, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Option<Extensions> {
        self.known().filter(|(_, until)| Instant::now() < *until).map(|(extensions, _)| extensions)
    }
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    extensions: Vec<Extension>,
}

#[derive(Deserialize)]
struct Extension {
    #[serde(default)]
    endpoints: Vec<String>,
}

#[derive(Deserialize)]
struct Made {
    deltas: Vec<MadeDelta>,
}

#[derive(Deserialize)]
struct MadeDelta {
    base: Digest,
    digest: Digest,
    size: u64,
}

impl Upstream {
    /// Asks what the upstream offers, or remembers it from the last time: for an hour, for ten minutes if that was
    /// nothing. A registry that does not know the question, or has no answer for us, offers nothing.
    pub async fn discover(&self) -> Result<Extensions> {
        let discovered = self.discovered();
        if let Some(extensions) = discovered.current() {
            return Ok(extensions);
        }
        let _alone = discovered.asking.lock().await;
        if let Some(extensions) = discovered.current() {
            return Ok(extensions);
        }
        let found = match self.ask_for_extensions().await {
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable { .. }) => return Err(error),
            other => other.unwrap_or_default(),
        };
        let life = if found == Extensions::default() { LIFE_OF_NONE } else { LIFE };
        *discovered.known() = Some((found, Instant::now() + life));
        Ok(found)
    }

    /// Asks a hub which deltas to the layer `to` it has made, from whichever layers. Other registries, and hubs that do
    /// not know the question, have none.
    pub async fn layer_deltas(&self, repository: &RepositoryName, to: &Digest) -> Result<Vec<LayerDelta>> {
        if !self.discover().await?.layer_deltas {
            return Ok(Vec::new());
        }
        let mut url = self.url(&Route::LayerDelta(repository.clone())).map_err(|kind| self.fail(kind))?;
        url.set_query(Some(&Query::render([("to", to.to_string().as_str())])));
        let mut answer = self.ask(Scope::pull(repository), Request::new(Method::GET, url)).await?;
        match answer.status().as_u16() {
            200 => {}
            404 => {
                answer.drain().await;
                return Ok(Vec::new());
            }
            _ => return Err(self.fail(answer.into_error().await)),
        }
        let bytes = answer.read("the list of deltas", MAX_ANSWER).await.map_err(|kind| self.fail(kind))?;
        let made: Made = serde_json::from_slice(&bytes)
            .map_err(|_| self.fail(ErrorKind::protocol("sends a broken list of deltas")))?;
        let delta = |made: MadeDelta| LayerDelta {
            base: made.base,
            target: *to,
            delta: made.digest,
            size: made.size,
        };
        Ok(made.deltas.into_iter().map(delta).collect())
    }

    /// Whether the upstream is a deltaport hub, as far as it has ever said so; it is not asked.
    pub fn is_known_hub(&self) -> bool {
        self.discovered().known().is_some_and(|(extensions, _)| extensions.layer_deltas)
    }

    /// Makes ready for what comes after a first question, while that is under way: finds out what the upstream offers,
    /// unless that is known, and opens a few connections to a hub, unless there are some. It does no harm that this
    /// fails.
    pub async fn prepare(&self) {
        match self.discovered().current() {
            Some(extensions) if extensions.layer_deltas => {
                let authorization = self.auth().known(&Scope::REGISTRY.to_string());
                if let Ok(url) = self.url(&Route::Base) {
                    self.transport().warm(&Request { authorization, ..Request::new(Method::GET, url) }).await;
                }
            }
            Some(_) => {}
            // Once, however many ask: whoever needs the answer waits for it.
            None if self.discovered().asking.try_lock().is_err() => {}
            None => {
                if let Err(error) = self.discover().await {
                    tracing::debug!(%error, "what an upstream offers is not known yet");
                }
            }
        }
    }

    async fn ask_for_extensions(&self) -> Result<Extensions> {
        let url = self.url(&Route::Extensions).map_err(|kind| self.fail(kind))?;
        let question = Request { follow: true, ..Request::new(Method::GET, url) };
        let mut answer = self.ask(Scope::REGISTRY, question).await?;
        match answer.status().as_u16() {
            200 => {}
            // Not down, although the status is of that kind: it does not know the question.
            501 => {
                answer.drain().await;
                return Ok(Extensions::default());
            }
            _ => return Err(self.fail(answer.into_error().await)),
        }
        let bytes =
            answer.read("the list of extensions", MAX_ANSWER).await.map_err(|kind| self.fail(kind))?;
        let list: List = serde_json::from_slice(&bytes)
            .map_err(|_| self.fail(ErrorKind::protocol("sends a broken list of extensions")))?;
        let offers = |wanted: &str| {
            let mut endpoints = list.extensions.iter().flat_map(|extension| &extension.endpoints);
            endpoints.any(|endpoint| endpoint == wanted)
        };
        Ok(Extensions { layer_deltas: offers(LAYER_DELTAS), images: offers(IMAGES) })
    }
}
