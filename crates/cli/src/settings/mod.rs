//! What an operator can say: the settings, as data.
//!
//! They come from a TOML file and the command line. One table (`keys`) lists every key with its type, bounds, default
//! and meaning; reading, `deltaport config reference` and docs/configuration.md are all made from it. Nothing here
//! opens the files that settings name, nor constructs anything: that is the wiring's work.

mod access;
mod check;
mod key;
mod keys;
mod read;
mod reference;
mod storage;
#[cfg(test)]
mod tests;
mod units;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use deltaport_oci::{RepositoryName, platform};
use deltaport_registry::mirror::timetable::Window;
use deltaport_registry::mirror::{Destination, Repositories, select};
use deltaport_registry::space::Pin;
use deltaport_registry::upstream::TagPattern;
use deltaport_server::Network;
use deltaport_trust::Pattern;
use serde::{Serialize, Serializer};

pub use access::{Access, Audit, Certificate, Issuer, Rule};
pub(crate) use keys::{host, url};
pub use read::{MAX_FILE_LEN, Overrides, Problem, Problems};
pub use reference::{Format as ReferenceFormat, reference};
pub use storage::{BlobPlace, BucketAddress, DatabaseAddress, NamePlace, Postgres, PostgresTls, S3, Storage};
pub use units::{Rate, Size, Span, UnitError};

/// Everything that `deltaport serve` can be told. Made by [`Settings::read`] only, so that the defaults stand in one
/// place, the table of keys; what its parts implement as `Default` is their being empty.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The directory that holds everything; `None` is the platform's.
    pub data: Option<PathBuf>,
    /// Where bytes and names are, if not there.
    pub storage: Storage,
    /// The proxies that are believed whom they speak for.
    #[serde(serialize_with = "as_texts")]
    pub trusted_proxies: Vec<Network>,
    /// Whether plain HTTP is wanted on an address that other machines reach.
    pub insecure_http: bool,
    /// How long requests may take to end when the process was asked to stop.
    pub shutdown_grace: Span,
    /// Which of the things that a manifest refers to must be here when it is pushed.
    pub validate: Validate,
    /// Repositories that are not as the others.
    pub repository: Vec<Repository>,
    /// The certificate.
    pub tls: Tls,
    /// The certificate that is asked for instead.
    pub acme: Acme,
    /// Who may do what.
    pub access: Access,
    /// Where it is written who did what.
    pub audit: Audit,
    /// Which images are served.
    pub trust: Trust,
    /// What is too much.
    pub limits: Limits,
    /// What is kept in memory.
    pub cache: Cache,
    /// When space is taken back.
    pub collect: Collect,
    /// How much room what comes from upstreams may take.
    pub space: Space,
    /// What is written about the run.
    pub log: Log,
    /// Where the clock hangs that schedules and windows go by.
    pub timezone: String,
    /// Whether the well-known public registries are upstreams too; `None` depends on whether there are others.
    pub public_upstreams: Option<bool>,
    /// Where missing things come from.
    pub upstream: Vec<Upstream>,
    /// What of it is to be here without being asked for.
    pub mirror: Vec<Mirror>,
    /// How they are fetched.
    pub fill: Fill,
    /// How deltas are made.
    pub delta: Delta,
}

impl Settings {
    /// Nothing at all, for the table of keys to be applied to.
    fn empty() -> Self {
        Self {
            listen: SocketAddr::from(([0; 4], 0)),
            data: None,
            storage: Storage::default(),
            trusted_proxies: Vec::new(),
            insecure_http: false,
            shutdown_grace: Span::default(),
            validate: Validate::default(),
            repository: Vec::new(),
            tls: Tls::default(),
            acme: Acme::default(),
            access: Access::default(),
            audit: Audit::default(),
            trust: Trust::default(),
            limits: Limits::default(),
            cache: Cache::default(),
            collect: Collect::default(),
            space: Space::default(),
            log: Log::default(),
            timezone: String::new(),
            public_upstreams: None,
            upstream: Vec::new(),
            mirror: Vec::new(),
            fill: Fill::default(),
            delta: Delta::default(),
        }
    }

    /// Whether the well-known public registries are upstreams.
    pub fn mirrors_public(&self) -> bool {
        self.public_upstreams.unwrap_or(self.upstream.is_empty())
    }
}

/// Which of the things that a manifest refers to must be in the repository when it is pushed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Validate {
    /// Nothing: sparse indexes and images are welcome.
    #[default]
    None,
    /// Everything.
    All,
    /// The children of an index that are for these platforms, and what every image refers to.
    Platforms(Vec<platform::Pattern>),
}

/// `[[repository]]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Repository {
    /// Which repositories.
    #[serde(serialize_with = "as_texts")]
    pub names: Vec<Pattern>,
    /// Which of the things that a manifest refers to must be there when it is pushed.
    pub validate: Validate,
}

/// `[tls]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Tls {
    /// PEM file with the certificate and its chain.
    pub certificate: Option<PathBuf>,
    /// PEM file with the private key.
    pub key: Option<PathBuf>,
    /// PEM file with the authorities of clients' certificates.
    pub client_ca: Option<PathBuf>,
}

/// `[acme]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Acme {
    /// The names that a certificate is asked for; none is no certificate.
    pub names: Vec<String>,
    /// The authority's directory.
    pub directory: String,
    /// How it finds out that the names are ours.
    pub challenge: AcmeChallenge,
    /// Where it is answered with `http-01`.
    pub listen: Option<SocketAddr>,
    /// Where it may write to.
    pub contact: Option<String>,
    /// PEM file with the certificates of those who vouch for its server.
    pub ca: Option<PathBuf>,
}

/// How an authority finds out that a name is ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum AcmeChallenge {
    /// It looks at a certificate on port 443.
    #[default]
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// It asks for a token on port 80.
    #[serde(rename = "http-01")]
    Http01,
}

/// `[trust]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Trust {
    /// The policy; without one, signatures are not looked at.
    pub policy: Option<PathBuf>,
    /// Whether signatures count that name no image.
    pub accept_nameless: bool,
    /// What this registry is called in what is pushed to it.
    pub name: String,
    /// Whether that is judged, too.
    pub pushes: Pushes,
}

/// Whether what is pushed is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pushes {
    /// It is.
    #[default]
    Judge,
    /// It is served as it is.
    Accept,
}

/// `[limits]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Limits {
    /// The largest manifest.
    pub manifest_size: Size,
    /// The largest body of a request that uploads a blob, and the largest blob.
    pub blob_size: Size,
    /// The most bytes of a request's line and headers.
    pub header_size: Size,
    /// The most entries on one page of a list.
    pub page_size: u64,
    /// How deep a manifest's JSON may be nested.
    pub json_depth: u64,
    /// How many descriptors a manifest may have.
    pub manifest_references: u64,
    /// How many tags one push may set.
    pub tags_per_push: u64,
    /// How many uploads a caller may have open.
    pub uploads_per_caller: u64,
    /// How many connections may be open.
    pub connections: u64,
    /// How long a request's headers may take to arrive.
    pub header_timeout: Span,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Span,
    /// How long a body may stand still.
    pub stall_timeout: Span,
    /// How many bytes a second a body has to move on average.
    pub minimum_rate: Size,
    /// How many passwords are checked at the same time.
    pub password_checks: u64,
    /// How much disk space is left free.
    pub free_disk: Size,
}

/// `[cache]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Cache {
    /// Memory for recently served manifests.
    pub manifests: Size,
}

/// `[collect]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Collect {
    /// How often.
    pub interval: Span,
    /// How long bytes that nothing refers to are kept.
    pub grace: Span,
    /// How long an upload that nobody touches is kept.
    pub upload_expiry: Span,
    /// How long the beginning of a blob that did not arrive whole is kept.
    pub partial_expiry: Span,
}

/// `[space]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Space {
    /// The most that is here only because it came from upstreams; none is no limit.
    pub cached: Size,
    /// How much of the disk is kept free by evicting.
    pub free_disk: Size,
    /// Images that stay.
    #[serde(serialize_with = "as_texts")]
    pub pins: Vec<Pin>,
}

/// `[log]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Log {
    /// What is important enough.
    pub level: Level,
    /// For people or for machines.
    pub format: LogFormat,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What needs somebody's attention now.
    Error,
    /// And what may need it.
    Warn,
    /// And every change and every failure.
    #[default]
    Info,
    /// And every request.
    Debug,
    /// And everything else.
    Trace,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object in a line.
    Json,
}

/// `[[upstream]]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Upstream {
    /// What it is called in pulls.
    pub host: String,
    /// Where it is.
    pub url: String,
    /// Whether repositories that name no upstream come from it.
    pub default: bool,
    /// What this registry is called where it stands for that upstream alone.
    pub hosts: BTreeSet<String>,
    /// Which of its repositories are served.
    #[serde(serialize_with = "as_texts")]
    pub repositories: Vec<Pattern>,
    /// For which platforms images are fetched; none given are all.
    #[serde(serialize_with = "as_texts")]
    pub platforms: Vec<platform::Pattern>,
    /// Whether what is for no platform is fetched too.
    pub platformless: bool,
    /// How long a tag is served without asking again.
    pub max_age: Span,
    /// How long a stored tag stands in for an upstream that does not answer.
    pub stale: Stale,
    /// How long it is believed that there is nothing.
    pub negative_age: Span,
    /// Tags that are not as the others.
    pub tags: Vec<TagRule>,
    /// The user to log in as.
    pub username: Option<String>,
    /// The file that holds the password.
    pub password_file: Option<PathBuf>,
    /// The environment variable with the password.
    pub password_env: Option<String>,
    /// The file of logins, docker's or podman's.
    pub credentials_file: Option<PathBuf>,
    /// The program that knows the credentials, without `docker-credential-`.
    pub credential_helper: Option<String>,
    /// PEM file with the certificate to show.
    pub client_certificate: Option<PathBuf>,
    /// PEM file with its private key.
    pub client_key: Option<PathBuf>,
    /// PEM file with the certificates to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// Other hosts that may give tokens.
    pub token_hosts: BTreeSet<String>,
    /// Hosts with private addresses that it may redirect to.
    pub redirect_hosts: BTreeSet<String>,
    /// Whether to ask for deltas.
    pub deltas: Deltas,
    /// Whether bytes from it are paid for.
    pub metered: bool,
}

/// `[[upstream.tags]]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct TagRule {
    /// Which tags.
    #[serde(serialize_with = "as_texts")]
    pub tags: Vec<TagPattern>,
    /// How long they are served without asking again.
    pub max_age: Option<Span>,
    /// Whether they never move.
    pub immutable: bool,
}

/// `[[mirror]]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Mirror {
    /// What it is called.
    pub name: String,
    /// The repository, as `host/repository`, or an OCI image layout, as `oci:DIRECTORY`.
    pub source: String,
    /// Where images of a layout are kept.
    pub repository: Option<RepositoryName>,
    /// Where it goes on to, likewise.
    pub to: Option<String>,
    /// Whether tags are removed that are not wanted any more.
    pub prune: bool,
    /// How many of them at most.
    pub prune_cap: String,
    /// Which tags.
    #[serde(serialize_with = "as_texts")]
    pub tags: Vec<select::Pattern>,
    /// Which of them not.
    #[serde(serialize_with = "as_texts")]
    pub except: Vec<select::Pattern>,
    /// Which versions of them.
    pub semver: Option<String>,
    /// How many of them; 0 is all.
    pub newest: u64,
    /// Which are the newest.
    pub newest_by: NewestBy,
    /// For which platforms; none given are those of the upstream.
    #[serde(serialize_with = "as_texts")]
    pub platforms: Vec<platform::Pattern>,
    /// How long after a run the next begins by itself; zero is never.
    pub every: Span,
    /// By the clock, when the registry begins a run by itself.
    pub schedule: Option<String>,
    /// The hours in which it may go on; none given are all.
    #[serde(serialize_with = "as_texts")]
    pub windows: Vec<Window>,
    /// The most bytes a second; none is no cap.
    pub bandwidth: Size,
}

/// What makes a tag newer than another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NewestBy {
    /// A higher version.
    #[default]
    Version,
    /// A later date.
    Created,
}

/// How long a stored tag is served while its upstream does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stale {
    /// As long as it takes.
    #[default]
    Forever,
    /// So long since it was confirmed.
    For(Span),
}

/// Whether an upstream is asked for deltas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Deltas {
    /// Where that is likely to be sooner.
    #[default]
    Auto,
    /// Whenever there is one.
    Always,
    /// Not at all.
    Never,
}

/// `[fill]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Fill {
    /// How many blobs are fetched at the same time.
    pub concurrent: u64,
    /// The most bytes a second from all upstreams together; none is no cap.
    pub bandwidth: Size,
    /// Whether the blobs of an image are fetched as soon as its manifest is asked for.
    pub ahead: bool,
    /// How long a transfer may go without a new byte.
    pub patience: Span,
    /// How long to wait for a delta that is being made.
    pub delta_wait: Span,
    /// How long the way by a delta may take before the whole layer is fetched beside it.
    pub delta_deadline: Span,
}

/// `[delta]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Delta {
    /// Memory that making one delta may take.
    pub memory: Size,
    /// Disk space that applying one delta may take.
    pub scratch: Size,
    /// How many are made, and how many applied, at the same time.
    pub jobs: u64,
    /// The largest layer that deltas are made from or to.
    pub maximum_layer: Size,
    /// From how many past manifests of a tag that moves deltas are made ahead.
    pub history: u64,
}

impl Mirror {
    /// The host and the repositories that `source` names.
    pub(crate) fn place(&self) -> Option<(&str, Repositories)> {
        keys::source(&self.source)
    }

    /// The layout that `source` names.
    pub(crate) fn layout(&self) -> Option<PathBuf> {
        keys::layout(&self.source)?.ok()
    }

    /// Where it goes on to.
    pub(crate) fn destination(&self) -> Option<Destination> {
        let to = self.to.as_ref()?;
        match keys::layout(to) {
            Some(path) => path.ok().map(Destination::Layout),
            None => match keys::source(to)? {
                (host, Repositories::One(repository)) => {
                    Some(Destination::Registry { host: host.to_owned(), repository })
                }
                (_, Repositories::Matching(_)) => None,
            },
        }
    }
}

impl Serialize for Validate {
    /// As it is written in the file.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::All => serializer.serialize_str("all"),
            Self::Platforms(platforms) => as_texts(platforms, serializer),
        }
    }
}

impl Serialize for Stale {
    /// As it is written in the file.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Forever => serializer.serialize_str("forever"),
            Self::For(span) => span.serialize(serializer),
        }
    }
}

/// A list of things that are written as texts in the file.
fn as_texts<S: Serializer, T: ToString>(items: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(items.iter().map(ToString::to_string))
}

/// What is written as a text in the file, or is not there.
fn as_text<S: Serializer, T: ToString>(item: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    item.as_ref().map(ToString::to_string).serialize(serializer)
}
