//! What a hub mirrors: a registry with tags that come and move, behind a relay that remembers what it was asked.

use std::collections::HashMap;

use deltaport_testkit::clients::Relay;
use deltaport_testkit::http::Request;
use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::sample::{self, File, Image};

use crate::hub::MANIFEST;
use crate::load::{World, pull};

/// The name of the registry.
const HOST: &str = "source.example";
/// How many of its repositories are mirrored, each by a rule, so that several replicas have one to run.
pub(crate) const RULES: u64 = 3;

/// The registry, which is never killed.
pub(crate) struct Source {
    server: Server,
    relay: Relay,
    files: Vec<File>,
    /// What was published: repository, tag and image.
    tags: Vec<(String, String, Image)>,
    /// For each kill of a replica: how many requests had come when it died, and when it was there again.
    kills: Vec<(usize, usize)>,
}

impl Source {
    pub(crate) async fn start(seed: u64) -> Self {
        let binary = env!("CARGO_BIN_EXE_deltaport");
        let server = Launch::new(binary).config("public_upstreams = false\n").start().await;
        let relay = Relay::to(server.address());
        Self { server, relay, files: sample::files(seed, 20, 12_000), tags: Vec::new(), kills: Vec::new() }
    }

    /// The rules that mirror it.
    pub(crate) fn rules(&self) -> String {
        let upstream =
            format!("[[upstream]]\nhost = \"{HOST}\"\nurl = \"http://{}\"\n", self.relay.address());
        let rule = |n| {
            format!(
                "[[mirror]]\nname = \"app-{n}\"\nsource = \"{HOST}/lib/app-{n}\"\ntags = [\"*\"]\nevery = \"1s\"\n"
            )
        };
        (0..RULES).fold(upstream, |text, n| text + &rule(n))
    }

    /// Publishes an image under a new tag, and under one that moves.
    pub(crate) async fn publish(&mut self, round: u64) {
        let repository = format!("lib/app-{}", round % RULES);
        self.files = sample::changed(&self.files, round, 6);
        self.files[0] = File::new("etc/version", format!("{round}"));
        let image = Image::of("amd64", vec![sample::layer_of(&self.files)]);
        let client = self.server.client();
        for blob in image.blobs() {
            let whole = Request::post(&format!("/v2/{repository}/blobs/uploads/"));
            let sent = client.send(whole.query("digest", blob.digest).body(blob.bytes.clone())).await;
            assert_eq!(sent.status, 201, "{}", sent.text());
        }
        self.tags.retain(|(other, tag, _)| *other != repository || tag != "latest");
        for tag in [format!("v{round}"), "latest".to_owned()] {
            let put = Request::put(&format!("/v2/{repository}/manifests/{tag}"));
            let put = put.header("content-type", MANIFEST).body(image.manifest.bytes.clone());
            assert_eq!(client.send(put).await.status, 201);
            self.tags.push((repository.clone(), tag, image.clone()));
        }
    }

    /// How many requests have come.
    pub(crate) fn asked(&self) -> usize {
        self.relay.requests().len()
    }

    /// A replica died when so many requests had come, and is there again.
    pub(crate) fn killed(&mut self, before: usize) {
        let after = self.asked();
        self.kills.push((before, after));
    }

    /// What is to be at the hub, in its words: repository, tag and digest, a line each.
    pub(crate) fn tags(&self) -> Vec<String> {
        let line = |(repository, tag, image): &(String, String, Image)| {
            format!("{HOST}/{repository}|{tag}|{}", image.manifest.digest)
        };
        self.tags.iter().map(line).collect()
    }

    /// Sees to it that no blob was fetched twice, unless a replica died in between that was fetching it. How many blobs were
    /// fetched, and how many of them again.
    pub(crate) fn was_asked_once(&self) -> (usize, usize) {
        let (mut last, mut again) = (HashMap::new(), 0);
        for (at, line) in self.relay.requests().into_iter().enumerate() {
            if !line.starts_with("GET ") || !line.contains("/blobs/") {
                continue;
            }
            if let Some(before) = last.insert(line.clone(), at) {
                let died = self.kills.iter().any(|(dead, alive)| before < *alive && *dead <= at);
                assert!(died, "nobody died, and this was asked twice: {line}");
                again += 1;
            }
        }
        (last.len(), again)
    }

    /// Pulls everything from each replica, which must not need the source for a single blob.
    pub(crate) async fn is_mirrored(&self, world: &World) {
        let before = self.asked();
        for client in world.of_each_replica() {
            for (repository, tag, image) in &self.tags {
                let repository = format!("{HOST}/{repository}");
                let path = format!("/v2/{repository}/manifests/{tag}");
                assert!(pull(&client, &path, &repository, image).await, "{path} is not there");
            }
        }
        let asked = self.relay.requests().split_off(before);
        let blobs: Vec<_> = asked.iter().filter(|line| line.contains("/blobs/")).collect();
        assert!(blobs.is_empty(), "what is mirrored was fetched again: {blobs:?}");
    }
}
