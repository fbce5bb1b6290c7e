//! What the product does: push, pull, fill, vend deltas, evict, collect.
//!
//! This is the only crate that combines the store, the client, the delta engine and the rules, and the place where a
//! use case can be read from top to bottom. It does not know HTTP: no method here takes a header or returns a status.
//! The server hands it typed values and turns its [`Error`]s into answers.
//!
//! Use cases are methods of [`Registry`], in one file per noun: [`pull`], [`image`], [`mirror`], [`space`], `push`,
//! `uploads`, `lists`, `mount`. Every one of them expects that [`Registry::authorize`] was asked first, and says where
//! more than that is decided.

mod alone;
mod authorize;
mod error;
mod files;
mod fill;
mod flight;
mod gate;
pub mod image;
pub mod issuers;
mod lists;
mod memory;
mod metrics;
pub mod mirror;
mod mount;
mod options;
pub mod pull;
mod push;
pub mod space;
pub mod tokens;
mod uploads;
pub mod upstream;
pub mod vend;

use std::sync::Arc;

use arc_swap::ArcSwap;
use deltaport_store::Store;
use deltaport_trust::Rules;

use fill::Fills;
use gate::Gate;
use mirror::Mirrors;
use space::Room;
use upstream::Upstreams;
use vend::Jobs;

pub use deltaport_store::{Manifest, Page};
pub use error::{Error, Kind, Result};
pub use gate::{Refusal, Trust, Verdict};
pub use metrics::Metrics;
pub use options::{Collect, Delta, Fill, Limits, Options, Replicas, Space, Validate};
pub use pull::Pulled;
pub use push::{NewManifest, PutManifest};
pub use uploads::{Incoming, Upload};
pub use upstream::{Deltas, Located, Upstream};

/// A registry; cheap to clone, every clone is the same registry.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    options: Options,
    store: Store,
    rules: ArcSwap<Rules>,
    metrics: Metrics,
    upstreams: Upstreams,
    fills: Fills,
    deltas: Jobs,
    room: Room,
    mirrors: Mirrors,
    gate: Gate,
}

impl Registry {
    /// A registry over `store`, open to whom `rules` let in.
    pub fn new(options: Options, store: Store, rules: Rules) -> Self {
        Self(Arc::new(Inner {
            upstreams: Upstreams::new(&options.upstreams),
            fills: Fills::new(&options),
            deltas: Jobs::new(&options.delta),
            room: Room::default(),
            mirrors: Mirrors::new(&options.mirrors, Self::first_run(store.is_shared())),
            gate: Gate::default(),
            options,
            store,
            rules: ArcSwap::from_pointee(rules),
            metrics: Metrics::default(),
        }))
    }

    /// What it was told.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// What it has counted.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Replaces the rules; requests that have been authorized go on.
    pub fn set_rules(&self, rules: Rules) {
        self.0.rules.store(Arc::new(rules));
    }

    /// Whether requests can be served: the names are readable and the disk has the room that it must keep.
    pub async fn ready(&self) -> Result<()> {
        Ok(self.store().ready().await?)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("options", &self.0.options).finish_non_exhaustive()
    }
}
