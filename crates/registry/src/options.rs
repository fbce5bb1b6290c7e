//! What a registry is told. Settings are data: every limit has its name here and its key in the configuration.

use std::time::Duration;

use deltaport_oci::{RepositoryName, manifest, platform};
use deltaport_trust::Pattern;

use crate::space::Pin;
use crate::{Upstream, mirror};

/// What a [`Registry`](crate::Registry) is told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How much callers may ask for.
    pub limits: Limits,
    /// Which references of a pushed manifest must be in the repository.
    pub validate: Validate,
    /// Repositories for which that is something else; the first that fits counts.
    pub validate_in: Vec<(Vec<Pattern>, Validate)>,
    /// How often unreferenced content is looked for.
    pub collect: Collect,
    /// How much room what comes from upstreams may take.
    pub space: Space,
    /// Registries whose content is served here.
    pub upstreams: Vec<Upstream>,
    /// What of it is to be here without being asked for.
    pub mirrors: Vec<mirror::Rule>,
    /// The clock that their schedules and windows go by.
    pub clock: mirror::Clock,
    /// How content is fetched from them.
    pub fill: Fill,
    /// How deltas between layers are made and applied.
    pub delta: Delta,
    /// How replicas share what only one of them does at a time.
    pub replicas: Replicas,
}

/// How the replicas over one store share what only one of them does at a time.
#[derive(Clone, Copy, Debug)]
pub struct Replicas {
    /// For how long a replica that has died is believed to be at work: then another one takes its place. One that lives says
    /// so three times as often.
    pub lease: Duration,
}

impl Default for Replicas {
    fn default() -> Self {
        Self { lease: Duration::from_secs(30) }
    }
}

/// How much callers may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest manifest, in bytes. The specification asks for at least 4 MiB.
    pub manifest_bytes: usize,
    /// How deep the JSON of a manifest may nest.
    pub json_depth: usize,
    /// How many things one manifest may refer to.
    pub references: usize,
    /// The largest blob, in bytes.
    pub blob_bytes: u64,
    /// The longest page of a list (`n`), in entries; also the length of a page when nobody asks.
    pub page: usize,
    /// How many uploads one caller may have open.
    pub uploads_per_caller: usize,
    /// How many tags one push of a manifest may set. The specification asks for at least 10.
    pub tags_per_put: usize,
}

impl Limits {
    /// What the configuration begins with.
    pub const DEFAULT: Self = Self {
        manifest_bytes: 8 << 20,
        json_depth: manifest::Limits::DEFAULT.depth,
        references: manifest::Limits::DEFAULT.descriptors,
        blob_bytes: 64 << 30,
        page: 1000,
        uploads_per_caller: 100,
        tags_per_put: 32,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Which references of a pushed manifest must be in the repository. A subject never has to be, nor a layer that is
/// kept elsewhere by design.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Validate {
    /// All of them.
    #[default]
    All,
    /// None: sparse images and sparse indexes are taken.
    None,
    /// All blobs of an image, and those children of an index that are for one of these platforms or for none in
    /// particular.
    Platforms(platform::Filter),
}

impl Options {
    /// Which references of a manifest must be there when it is pushed to `repository`.
    pub fn validate(&self, repository: &RepositoryName) -> &Validate {
        let fits = |(patterns, _): &&(Vec<Pattern>, Validate)| {
            patterns.iter().any(|pattern| pattern.matches(repository.as_str()))
        };
        self.validate_in.iter().find(fits).map_or(&self.validate, |(_, validate)| validate)
    }
}

/// How often unreferenced content is looked for. How long it is kept first is the store's setting.
#[derive(Clone, Copy, Debug)]
pub struct Collect {
    /// Time between the end of one run and the start of the next.
    pub interval: Duration,
}

impl Default for Collect {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5 * 60) }
    }
}

/// How much room what comes from upstreams may take. When it is too much, the least recently used images are evicted.
#[derive(Clone, Debug, Default)]
pub struct Space {
    /// The most bytes that are here only because they came from upstreams; `None` is as many as come.
    pub cached: Option<u64>,
    /// Free disk space, in bytes, below which images are evicted as if there were too many.
    pub free: u64,
    /// Images that stay whatever room they take.
    pub pins: Vec<Pin>,
}

/// How content is fetched from upstreams.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    /// How many blobs are fetched at a time; more wait.
    pub concurrent: usize,
    /// The most bytes of blobs and deltas a second, from all upstreams together; `None` is as many as come.
    pub bandwidth: Option<u64>,
    /// Whether the blobs of an image are fetched as soon as a client has asked for its manifest.
    pub ahead: bool,
    /// How long a transfer that has begun may go without a new byte, attempts to take it up included.
    pub patience: Duration,
    /// How long to wait for a delta that an upstream is still making.
    pub delta_wait: Duration,
    /// How long the way by a delta may take, counted from when a client began to wait, before the whole layer is fetched
    /// beside it.
    pub delta_deadline: Duration,
}

impl Default for Fill {
    fn default() -> Self {
        Self {
            concurrent: 8,
            bandwidth: None,
            ahead: true,
            patience: Duration::from_secs(120),
            delta_wait: Duration::from_secs(20),
            delta_deadline: Duration::from_secs(20),
        }
    }
}

/// How deltas between layers are made and applied.
#[derive(Clone, Copy, Debug)]
pub struct Delta {
    /// How much memory making one delta may take, in bytes. With little, a coarser search makes a larger delta.
    pub memory: u64,
    /// How much disk space applying one delta may take, in bytes: for the old layers, uncompressed.
    pub scratch: u64,
    /// How many deltas are made, and how many applied, at a time.
    pub jobs: usize,
    /// The largest layer, in bytes, that deltas are made from or to.
    pub maximum_layer: u64,
    /// When a tag moves, from how many of the manifests that it pointed to before deltas are made ahead; at most 16 are
    /// remembered, and with 0 none are made ahead.
    pub history: usize,
}

impl Default for Delta {
    fn default() -> Self {
        Self { memory: 1 << 30, scratch: 16 << 30, jobs: 1, maximum_layer: 4 << 30, history: 3 }
    }
}
