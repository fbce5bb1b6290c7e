//! A hub that has images, a site with a rule, and a registry that the rule goes on to.

use std::path::Path;
use std::process::Command;

use deltaport_oci::{Digest, media_type};
use deltaport_testkit::clients::Relay;
use deltaport_testkit::http::Request;
use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::sample::{self, Content, Image, bytes};
use serde_json::{Value, json};

/// What the site calls the hub.
pub(crate) const HUB: &str = "hub.example";
/// What the site calls the registry that it fills.
pub(crate) const LAN: &str = "lan.example";
/// The artifact type of a list of what is in an image.
pub(crate) const BILL: &str = "application/spdx+json";

/// A deltaport with a relay in front of it, through which others know it.
pub(crate) struct Party {
    pub(crate) server: Server,
    pub(crate) relay: Relay,
}

impl Party {
    pub(crate) async fn start(settings: &str) -> Self {
        let server = launch(settings).start().await;
        let relay = Relay::to(server.address());
        Self { server, relay }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.relay.address())
    }

    pub(crate) async fn image(&self, repository: &str, tag: &str, image: &Image) {
        self.blobs(repository, image.blobs()).await;
        self.manifest(repository, tag, &image.manifest).await;
    }

    pub(crate) async fn blobs<'a>(&self, repository: &str, blobs: impl Iterator<Item = &'a Content>) {
        for blob in blobs {
            let upload =
                Request::post(&format!("/v2/{repository}/blobs/uploads/")).query("digest", blob.digest);
            let answer = self.server.client().send(upload.body(blob.bytes.clone())).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
    }

    pub(crate) async fn manifest(&self, repository: &str, reference: &str, manifest: &Content) {
        let put = Request::put(&format!("/v2/{repository}/manifests/{reference}"))
            .header("Content-Type", &manifest.media_type)
            .body(manifest.bytes.clone());
        let answer = self.server.client().send(put).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }

    /// An image with its index, cosign's signature of the index and a list of what is in each image.
    pub(crate) async fn release(&self, repository: &str, tag: &str, release: &Release) {
        for image in &release.images {
            self.image(repository, &image.manifest.digest.to_string(), image).await;
        }
        self.blobs(repository, release.blobs.iter()).await;
        for bill in &release.bills {
            self.manifest(repository, &bill.digest.to_string(), bill).await;
        }
        self.manifest(repository, &release.signature_tag(), &release.signature).await;
        self.manifest(repository, tag, &release.index).await;
    }

    /// A manifest, if it is there.
    pub(crate) async fn get(&self, repository: &str, reference: &str) -> Option<Vec<u8>> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let answer = self.server.client().send(Request::get(&path)).await;
        (answer.status == 200).then(|| answer.body.to_vec())
    }

    pub(crate) async fn has_blob(&self, repository: &str, digest: &Digest) -> bool {
        let path = format!("/v2/{repository}/blobs/{digest}");
        self.server.client().send(Request::head(&path)).await.status == 200
    }

    pub(crate) async fn referrers(&self, repository: &str, subject: &Digest) -> Vec<Value> {
        let path = format!("/v2/{repository}/referrers/{subject}");
        let list = self.server.client().send(Request::get(&path)).await.json();
        list["manifests"].as_array().unwrap().clone()
    }

    pub(crate) async fn tags(&self, repository: &str) -> Vec<String> {
        let list = self.server.client().send(Request::get(&format!("/v2/{repository}/tags/list"))).await;
        match list.status {
            200 => serde_json::from_value(list.json()["tags"].clone()).unwrap(),
            _ => Vec::new(),
        }
    }

    /// How many requests of a method, to paths with `part` in them, have come through the relay.
    pub(crate) fn asked(&self, method: &str, part: &str) -> usize {
        let lines = self.relay.requests();
        lines.iter().filter(|line| line.starts_with(method) && line.contains(part)).count()
    }
}

/// An index of images for linux/amd64, linux/arm64 and linux/riscv64 with what is said about them.
pub(crate) struct Release {
    pub(crate) images: Vec<Image>,
    pub(crate) index: Content,
    pub(crate) signature: Content,
    /// For each image one.
    pub(crate) bills: Vec<Content>,
    /// What the signature and the bills are made of.
    pub(crate) blobs: Vec<Content>,
}

impl Release {
    pub(crate) fn new(seed: u64, layer: usize) -> Self {
        let image = |(at, architecture): (u64, &str)| {
            Image::of(architecture, vec![Content::new(sample::LAYER_TAR, bytes(10 * seed + at, layer))])
        };
        Self::of((0..).zip(["amd64", "arm64", "riscv64"]).map(image).collect(), seed)
    }

    pub(crate) fn of(images: Vec<Image>, seed: u64) -> Self {
        let platforms = ["amd64", "arm64", "riscv64"];
        let children: Vec<Value> = images
            .iter()
            .zip(platforms)
            .map(|(image, architecture)| {
                let mut child = image.manifest.descriptor();
                child["platform"] = json!({ "os": "linux", "architecture": architecture });
                child
            })
            .collect();
        let index = sample::index(&[], json!({ "manifests": children }));
        let payload = sample::layer(1000 * seed, 500);
        let signature = sample::manifest(&sample::empty_config(), std::slice::from_ref(&payload), json!({}));
        let mut blobs = vec![payload, sample::empty_config()];
        let mut bills = Vec::new();
        for (at, image) in (1..).zip(&images) {
            let bill = sample::layer(1000 * seed + at, 700);
            bills.push(sample::artifact(BILL, Some(&image.manifest), &bill));
            blobs.push(bill);
        }
        Self { images, index, signature, bills, blobs }
    }

    pub(crate) fn signature_tag(&self) -> String {
        format!("sha256-{}.sig", self.index.digest.hex())
    }
}

pub(crate) fn launch(settings: &str) -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_deltaport")).config(&format!("public_upstreams = false\n{settings}"))
}

/// The settings for an upstream.
pub(crate) fn upstream(host: &str, url: &str) -> String {
    format!("[[upstream]]\nhost = {host:?}\nurl = {url:?}\nnegative_age = \"0s\"\n")
}

/// A site that mirrors `app` of the hub to `team/app` of `lan`.
pub(crate) async fn site(hub: &Party, lan: &Party, rule: &str) -> Server {
    site_to(hub, lan, "team/app", rule).await
}

/// A site that mirrors `app` of the hub to this repository of `lan`.
pub(crate) async fn site_to(hub: &Party, lan: &Party, repository: &str, rule: &str) -> Server {
    let settings = format!(
        "{}{}[[mirror]]\nname = \"all\"\nsource = \"{HUB}/app\"\nto = \"{LAN}/{repository}\"\n{rule}\n",
        upstream(HUB, &hub.url()),
        upstream(LAN, &lan.url())
    );
    launch(&settings).start().await
}

/// `deltaport mirror VERB` at this site: the status, and what is said.
pub(crate) fn mirror(site: &Server, verb: &str, more: &[&str]) -> (Option<i32>, String) {
    let address = site.address().to_string();
    let (status, text) = site.launch().run(&[&["mirror", verb, &address], more].concat());
    (status.code(), text)
}

/// The same with `--json`: the status, and the report of one rule.
pub(crate) fn report(site: &Server, verb: &str, rule: &str) -> (Option<i32>, Value) {
    let (status, text) = mirror(site, verb, &[rule, "--json"]);
    let all: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{}", site.log()));
    (status, all["mirrors"][0].clone())
}

pub(crate) fn steps(report: &Value) -> Vec<Value> {
    report["tags"][0]["steps"].as_array().cloned().unwrap_or_default()
}

/// A private key in `directory`, its public key beside it, and cosign's signature of a manifest with it, as cosign's tags
/// hold it: the manifest and its payload.
pub(crate) fn sign(directory: &Path, name: &str, digest: &Digest) -> (Content, Content) {
    let path = |name: &str| directory.join(name).display().to_string();
    let openssl = |arguments: &[&str]| {
        let done = Command::new("openssl").args(arguments).output().expect("openssl is installed");
        assert!(done.status.success(), "{done:?}");
        done.stdout
    };
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &path("key.pem")]);
    openssl(&["ec", "-in", &path("key.pem"), "-pubout", "-out", &path("key.pub")]);
    let payload = json!({
        "critical": {
            "identity": { "docker-reference": name },
            "image": { "docker-manifest-digest": digest.to_string() },
            "type": "cosign container image signature",
        },
        "optional": null,
    });
    let payload = Content::new("application/vnd.dev.cosign.simplesigning.v1+json", payload.to_string());
    std::fs::write(path("payload"), &payload.bytes).unwrap();
    let signature = openssl(&["dgst", "-sha256", "-sign", &path("key.pem"), &path("payload")]);
    std::fs::write(path("signature"), signature).unwrap();
    let text = openssl(&["base64", "-A", "-in", &path("signature")]);
    let mut layer = payload.descriptor();
    layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": String::from_utf8(text).unwrap() });
    let config = sample::empty_config();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": config.descriptor(),
        "layers": [layer],
    });
    (Content::new(media_type::OCI_MANIFEST, manifest.to_string()), payload)
}
