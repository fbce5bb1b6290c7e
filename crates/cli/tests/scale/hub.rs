//! A hub of replicas, and what is asked of it.

use std::net::SocketAddr;

use bytes::Bytes;
use deltaport_testkit::http::{Client, Request, Response};
use deltaport_testkit::postgres::Database;
use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::sample::{self, Content};

use crate::balancer::Balancer;
use crate::history::History;
use crate::objects::Objects;

/// Replicas over a database and a bucket that only they have.
pub(crate) struct Hub {
    // In this order: replicas end before what they need.
    pub(crate) replicas: Vec<Server>,
    pub(crate) objects: Objects,
    _database: Option<Database>,
}

impl Hub {
    /// Starts so many replicas.
    pub(crate) async fn start(replicas: usize, objects: Objects) -> Self {
        let database = Database::new();
        let url = database.url();
        Self { _database: Some(database), ..Self::over_with(replicas, objects, &url, "").await }
    }

    /// The same with more in their configuration. Everything that is done under a lease is written down from the beginning.
    pub(crate) async fn watched(replicas: usize, objects: Objects, more: &str) -> (History, Self) {
        let database = Database::new();
        let url = database.url();
        // Somebody has to make the tables first.
        drop(launch(&objects, &url, "").start().await);
        let history = History::of(database);
        (history, Self::over_with(replicas, objects, &url, more).await)
    }

    /// Starts so many replicas over a database of the test's.
    pub(crate) async fn over(replicas: usize, objects: Objects, database: &str) -> Self {
        Self::over_with(replicas, objects, database, "").await
    }

    async fn over_with(replicas: usize, objects: Objects, database: &str, more: &str) -> Self {
        let starting = (0..replicas).map(|_| launch(&objects, database, more).start());
        // All at once: they race for the tables.
        let replicas = futures_util::future::join_all(starting).await;
        Self { replicas, objects, _database: None }
    }

    /// Puts nginx before the three replicas.
    pub(crate) fn balancer(&self) -> Balancer {
        let addresses: Vec<SocketAddr> = self.replicas.iter().map(Server::address).collect();
        Balancer::before(addresses.try_into().expect("three replicas"))
    }

    /// Has everything checked, objects byte by byte, beside the replicas that go on.
    pub(crate) fn check(&self) {
        self.command(&["fsck", "--rehash"]);
    }

    /// Runs a command beside the replicas, as their configuration has it.
    pub(crate) fn command(&self, command: &[&str]) {
        let launch = self.replicas[0].launch();
        let config = launch.home().join("config.toml");
        let config = config.to_str().expect("temporary directories have plain names");
        let (status, text) = launch.run(&[command, &["--config", config]].concat());
        assert!(status.success(), "{text}");
    }

    pub(crate) fn client(&self, replica: usize) -> Client {
        self.replicas[replica].client()
    }
}

/// One replica, about to be started.
pub(crate) fn launch(objects: &Objects, database: &str, more: &str) -> Launch {
    let configuration = format!(
        "public_upstreams = false\n{}metadata = \"{database}\"\n[[access.rule]]\nrepositories = [\"**\"]\n\
         allow = [\"pull\", \"push\", \"delete\"]\nanonymous = true\n\
         [limits]\nuploads_per_caller = 10000\n[delta]\nhistory = 1\n{more}",
        objects.settings()
    );
    let launch = Launch::new(env!("CARGO_BIN_EXE_deltaport")).config(&configuration);
    objects.variables().into_iter().fold(launch, |launch, (name, value)| launch.variable(name, value))
}

/// An image of one layer that was pushed.
pub(crate) struct Pushed {
    pub(crate) manifest: Bytes,
    pub(crate) digest: String,
    pub(crate) layer: Bytes,
    pub(crate) layer_digest: String,
}

/// Pushes an image of `seed` under a tag, its layer in three chunks, each request through the next of `clients`.
pub(crate) async fn push(clients: &[Client], repository: &str, tag: &str, seed: u64, size: usize) -> Pushed {
    push_in(3, clients, repository, tag, seed, size).await
}

/// The same in so many chunks; most clients make one.
pub(crate) async fn push_in(
    chunks: usize,
    clients: &[Client],
    repository: &str,
    tag: &str,
    seed: u64,
    size: usize,
) -> Pushed {
    let mut turn = 0;
    let mut next = || {
        turn += 1;
        &clients[turn % clients.len()]
    };
    let layer = Content::new("application/vnd.oci.image.layer.v1.tar", sample::bytes(seed, size));
    let config = Content::new("application/vnd.oci.image.config.v1+json", format!("{{\"seed\":{seed}}}"));
    for blob in [&layer, &config] {
        let begun = next().send(Request::post(&format!("/v2/{repository}/blobs/uploads/"))).await;
        assert_eq!(begun.status, 202, "{}", begun.text());
        let mut place = begun.header("location").unwrap().to_owned();
        for chunk in blob.bytes.chunks(size.div_ceil(chunks)) {
            let chunk = blob.bytes.slice_ref(chunk);
            let sent = next().send(Request::patch(&place).body(chunk)).await;
            assert_eq!(sent.status, 202, "{}", sent.text());
            place = sent.header("location").unwrap().to_owned();
        }
        let done = next().send(Request::put(&place).query("digest", blob.digest)).await;
        assert_eq!(done.status, 201, "{}", done.text());
    }
    let manifest = sample::manifest(&config, std::slice::from_ref(&layer), serde_json::json!({}));
    let put = Request::put(&format!("/v2/{repository}/manifests/{tag}"));
    let done = next().send(put.header("content-type", MANIFEST).body(manifest.bytes.clone())).await;
    assert_eq!(done.status, 201, "{}", done.text());
    Pushed {
        digest: manifest.digest.to_string(),
        manifest: manifest.bytes,
        layer_digest: layer.digest.to_string(),
        layer: layer.bytes,
    }
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What a client gets under a tag.
pub(crate) async fn tagged(client: &Client, repository: &str, tag: &str) -> Response {
    client.send(Request::get(&format!("/v2/{repository}/manifests/{tag}")).header("accept", MANIFEST)).await
}

/// What a client gets for a blob.
pub(crate) async fn blob(client: &Client, repository: &str, digest: &str) -> Response {
    client.send(Request::get(&format!("/v2/{repository}/blobs/{digest}"))).await
}
