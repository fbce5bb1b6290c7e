//! What an upstream can do beyond the distribution specification, as it says itself (distribution-spec,
//! extensions/_oci.md).

use std::time::{Duration, Instant};

use deltaport_oci::wire::Route;
use http::{HeaderMap, Method};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::auth::Scope;
use crate::error::{ErrorKind, Result};
use crate::upstream::Upstream;

/// The largest answer, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;
/// How long it is believed that the upstream has an extension.
const LIFE: Duration = Duration::from_secs(60 * 60);
/// How long it is believed that it has none: it may be replaced by one that has.
const LIFE_OF_NONE: Duration = Duration::from_secs(10 * 60);
/// The last part of the path by which layers are asked for as deltas.
const LAYER_DELTAS: &str = "_deltaport/delta/layer";

/// What an upstream offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Deltas between layers: it is a deltaport hub.
    pub layer_deltas: bool,
}

/// What has been found out, and until when it counts. Held while the upstream is asked, so that it is asked once.
pub(crate) type Discovered = Mutex<Option<(Extensions, Instant)>>;

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

impl Upstream {
    /// Asks what the upstream offers, or remembers it from the last time: for an hour, for ten minutes if that was
    /// nothing. A registry that does not know the question, or has no answer for us, offers nothing.
    pub async fn discover(&self) -> Result<Extensions> {
        let mut discovered = self.discovered().lock().await;
        if let Some((extensions, until)) = *discovered
            && Instant::now() < until
        {
            return Ok(extensions);
        }
        let found = match self.ask_for_extensions().await {
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable { .. }) => return Err(error),
            other => other.unwrap_or_default(),
        };
        let life = if found == Extensions::default() { LIFE_OF_NONE } else { LIFE };
        *discovered = Some((found, Instant::now() + life));
        Ok(found)
    }

    async fn ask_for_extensions(&self) -> Result<Extensions> {
        let route = Route::Extensions;
        let mut answer = self.get(Scope::REGISTRY, Method::GET, &route, HeaderMap::new()).await?;
        let bytes =
            answer.read("the list of extensions", MAX_ANSWER).await.map_err(|kind| self.fail(kind))?;
        let list: List = serde_json::from_slice(&bytes)
            .map_err(|_| self.fail(ErrorKind::protocol("sends a broken list of extensions")))?;
        let mut endpoints = list.extensions.iter().flat_map(|extension| &extension.endpoints);
        Ok(Extensions { layer_deltas: endpoints.any(|endpoint| endpoint == LAYER_DELTAS) })
    }
}
