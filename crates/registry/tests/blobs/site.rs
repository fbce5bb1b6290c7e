//! A site over a scripted upstream, and clients of it.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use deltaport_client as client;
use deltaport_oci::wire::ByteRange;
use deltaport_oci::{Digest, RepositoryName};
use deltaport_registry::pull::Body;
use deltaport_registry::upstream::TagPolicy;
use deltaport_registry::{Deltas, Error, Options, Registry, Upstream};
use deltaport_store::{Faults, Store};
use deltaport_testkit::sample::{Content, Image, bytes};
use deltaport_testkit::upstream::{Reply, Rule, Upstream as Script};
use deltaport_trust::{Access, Rules};
use futures_util::StreamExt as _;
use tempfile::TempDir;

/// The upstream's name for clients.
pub(crate) const HOST: &str = "registry.example";
/// How many bytes at the end of a blob are kept back until it is proven.
pub(crate) const HELD_BACK: usize = 64 << 10;
/// How long a test waits for something that must happen.
const LIMIT: Duration = Duration::from_secs(30);

/// How a site is set up.
pub(crate) struct Setup {
    pub(crate) stall: Duration,
    pub(crate) fill: deltaport_registry::Fill,
    pub(crate) faults: Faults,
    /// Whether the data are kept in memory where that can be had: syncing is most of the time of small fills.
    pub(crate) in_memory: bool,
    /// What the upstream is called; each name counts for itself.
    pub(crate) hosts: Vec<String>,
    pub(crate) deltas: Deltas,
    pub(crate) policy: TagPolicy,
}

impl Default for Setup {
    fn default() -> Self {
        let fill = deltaport_registry::Fill {
            patience: Duration::from_secs(5),
            delta_wait: Duration::from_secs(3),
            ..deltaport_registry::Fill::default()
        };
        let hosts = vec![HOST.to_owned()];
        Self {
            stall: Duration::from_millis(300),
            fill,
            faults: Faults::none(),
            in_memory: false,
            hosts,
            // On loopback no delta is ever sooner.
            deltas: Deltas::Always,
            policy: TagPolicy::DEFAULT,
        }
    }
}

pub(crate) struct Site {
    pub(crate) registry: Registry,
    /// Under its first name.
    pub(crate) upstream: client::Upstream,
    /// Under all of them.
    pub(crate) upstreams: Vec<client::Upstream>,
    store: Store,
    home: TempDir,
}

impl Site {
    pub(crate) async fn new(script: &Script) -> Self {
        Self::with(script, Setup::default()).await
    }

    pub(crate) async fn with(script: &Script, setup: Setup) -> Self {
        let home = if setup.in_memory { TempDir::new_in("/dev/shm").ok() } else { None };
        Self::on(home.unwrap_or_else(|| tempfile::tempdir().unwrap()), script, setup).await
    }

    async fn on(home: TempDir, script: &Script, setup: Setup) -> Self {
        let store = Store::open(deltaport_store::Options {
            root: home.path().to_owned(),
            bytes: deltaport_store::ByteStore::Directory,
            keep_free: 0,
            manifest_cache: 1 << 20,
            grace: Duration::from_secs(600),
            upload_expiry: Duration::from_secs(600),
            partial_expiry: Duration::from_secs(30 * 86_400),
            names: deltaport_store::NamesOptions::Directory,
            faults: setup.faults,
        })
        .await
        .unwrap();
        let upstream = |host: &String| {
            let mut options = client::Options::new(host, script.url());
            options.timeouts = client::Timeouts {
                connect: Duration::from_secs(5),
                header: Duration::from_secs(5),
                stall: setup.stall,
            };
            client::Upstream::new(&options).unwrap()
        };
        let upstreams: Vec<_> = setup.hosts.iter().map(upstream).collect();
        let configured = |client: &client::Upstream| Upstream {
            deltas: setup.deltas,
            policy: setup.policy.clone(),
            ..Upstream::new(client.clone())
        };
        let options = Options {
            fill: setup.fill,
            upstreams: upstreams.iter().map(configured).collect(),
            ..Options::default()
        };
        let registry = Registry::new(options, store.clone(), Rules::new(Access::default()).unwrap());
        Self { registry, upstream: upstreams[0].clone(), upstreams, store, home }
    }

    /// The same data, after an orderly end in the middle of whatever is going on.
    pub(crate) async fn restarted(self, script: &Script) -> Self {
        self.store.close().await.unwrap();
        let Self { registry, store, home, .. } = self;
        drop((registry, store));
        // The fill that was cut off holds the store for a moment.
        Self::on(home, script, Setup::default()).await
    }

    pub(crate) fn root(&self) -> &Path {
        self.home.path()
    }

    /// How many files partials have.
    pub(crate) fn kept(&self) -> usize {
        std::fs::read_dir(self.root().join("partial")).unwrap().count()
    }

    pub(crate) async fn open(&self, name: &str, digest: &Digest) -> Result<Body, Error> {
        self.registry.blob(&repository(name), digest).await
    }

    /// What a client gets that reads the blob from its start.
    pub(crate) async fn get(&self, content: &Content) -> Result<(Vec<u8>, bool), Error> {
        Ok(read(&self.open("app", &content.digest).await?, 0).await)
    }

    /// Asserts that a client gets the whole blob.
    pub(crate) async fn gets(&self, content: &Content) {
        let (received, whole) = self.get(content).await.unwrap();
        assert!(whole && received == content.bytes, "{} bytes", received.len());
    }

    pub(crate) async fn pull_manifest(&self, tag: &str) {
        self.registry.manifest(&repository("app"), &tag.parse().unwrap()).await.unwrap();
    }

    /// Runs the collector as of a moment that is so far away.
    pub(crate) async fn collect_in(&self, time: Duration) {
        self.store.collect(SystemTime::now() + time).await.unwrap();
    }

    pub(crate) async fn is_filled(&self, content: &Content) -> bool {
        self.open("app", &content.digest).await.is_ok_and(|body| matches!(body, Body::Stored(_)))
    }

    /// The value of a counter, summed over its labels.
    pub(crate) fn counted(&self, name: &str) -> u64 {
        let mut shown = prometheus_client::registry::Registry::default();
        self.registry.metrics().register(&mut shown);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &shown).unwrap();
        let values = text.lines().filter(|line| line.starts_with(&format!("{name}_total")));
        values.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

/// Everything from `start` on, and whether it came to its end.
pub(crate) async fn read(body: &Body, start: u64) -> (Vec<u8>, bool) {
    let mut stream = body.read(ByteRange { start, end: body.size() });
    let mut received = Vec::new();
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => received.extend_from_slice(&chunk),
            Err(_) => return (received, false),
        }
    }
    (received, true)
}

pub(crate) fn repository(name: &str) -> RepositoryName {
    format!("{HOST}/{name}").parse().unwrap()
}

pub(crate) fn blob_path(content: &Content) -> String {
    format!("/v2/app/blobs/{}", content.digest)
}

pub(crate) fn blob_rule(content: &Content) -> Rule {
    Rule::on("GET", &blob_path(content))
}

pub(crate) fn manifest_rules(image: &Image, tag: &str) -> Vec<Rule> {
    let by_tag = format!("/v2/app/manifests/{tag}");
    ["HEAD", "GET"]
        .map(|method| Rule::on(method, &by_tag).reply(Reply::content(&image.manifest)))
        .into_iter()
        .chain([Rule::on("GET", &format!("/v2/app/manifests/{}", image.manifest.digest))
            .reply(Reply::content(&image.manifest))])
        .collect()
}

pub(crate) fn some(size: usize) -> Content {
    Content::new("application/octet-stream", bytes(7, size))
}

/// The `Range` of every request for a blob so far.
pub(crate) fn ranges(script: &Script, content: &Content) -> Vec<Option<String>> {
    let path = blob_path(content);
    let asked = script.asked().into_iter().filter(|asked| asked.method == "GET" && asked.target == path);
    asked.map(|asked| asked.headers.first("range").map(str::to_owned)).collect()
}

pub(crate) fn from(start: usize) -> Option<String> {
    Some(format!("bytes={start}-"))
}

/// Waits for something that must happen; fails only when it does not.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + LIMIT;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
