//! What a plan says is what a run does, for upstreams, rules and destinations that are made at random.
//!
//! `DELTAPORT_PLAN_CASES` says how many (default [`CASES`]), `DELTAPORT_PLAN_SEED` repeats them; a failure prints both.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use deltaport_oci::Digest;
use deltaport_testkit::process::Server;
use deltaport_testkit::sample::{self, Content, Image, Random};
use serde_json::{Value, json};

use crate::harness::*;

/// How many cases there are when nothing else is said: each is planned and run twice.
const CASES: u64 = 4;
const PLATFORMS: [&str; 3] = ["amd64", "arm64", "riscv64"];
const TAGS: u64 = 3;

/// A rule, and where its content comes from.
struct Case {
    name: String,
    random: Random,
    /// Layers that several images of the case have.
    layers: Vec<Content>,
    goes_on: bool,
    rule: String,
}

impl Case {
    fn new(number: u64, mut random: Random) -> Self {
        let name = format!("case{number}");
        let layers =
            (0..5).map(|_| Content::new(sample::LAYER_TAR, random.bytes(200 + number as usize))).collect();
        let goes_on = random.below(2) == 0;
        let mut rule = format!("[[mirror]]\nname = \"{name}\"\nsource = \"{HUB}/{name}\"\ntags = [\"v*\"]\n");
        if goes_on {
            rule.push_str(&format!("to = \"{LAN}/{name}\"\n"));
        }
        let wanted: Vec<String> = PLATFORMS
            .iter()
            .filter(|_| random.below(3) == 0)
            .map(|architecture| format!("linux/{architecture}"))
            .collect();
        if !wanted.is_empty() {
            rule.push_str(&format!("platforms = {wanted:?}\n"));
        }
        Self { name, random, layers, goes_on, rule }
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.random.below(times) == 0
    }

    fn image(&mut self, architecture: &str) -> Image {
        let mut layers: Vec<Content> =
            self.layers.clone().into_iter().filter(|_| self.random.below(2) == 0).collect();
        layers.push(Content::new(sample::LAYER_TAR, self.random.bytes(300)));
        Image::of(architecture, layers)
    }

    /// Puts something under a tag of the hub, with what is said about it.
    async fn publish(&mut self, hub: &Party, tag: &str) {
        let count = self.random.below(4) as usize;
        let images: Vec<Image> =
            PLATFORMS[..count.max(1)].iter().map(|architecture| self.image(architecture)).collect();
        let top = match count {
            0 => {
                hub.image(&self.name, tag, &images[0]).await;
                images[0].manifest.clone()
            }
            _ => {
                let mut children = Vec::new();
                for (image, architecture) in images.iter().zip(PLATFORMS) {
                    let mut child = image.manifest.descriptor();
                    child["platform"] = json!({ "os": "linux", "architecture": architecture });
                    children.push(child);
                    // The hub may be sparse itself.
                    if !self.once_in(6) {
                        hub.image(&self.name, &image.manifest.digest.to_string(), image).await;
                    }
                }
                let index = sample::index(&[], json!({ "manifests": children }));
                hub.manifest(&self.name, tag, &index).await;
                index
            }
        };
        for subject in images.iter().map(|image| &image.manifest).chain([&top]) {
            if self.once_in(3) {
                let payload = Content::new("application/octet-stream", self.random.bytes(150));
                let bill = sample::artifact(BILL, Some(subject), &payload);
                hub.blobs(&self.name, [&payload, &sample::empty_config()].into_iter()).await;
                hub.manifest(&self.name, &bill.digest.to_string(), &bill).await;
            }
        }
        if self.once_in(2) {
            let payload = Content::new("application/octet-stream", self.random.bytes(150));
            let signature =
                sample::manifest(&sample::empty_config(), std::slice::from_ref(&payload), json!({}));
            hub.blobs(&self.name, [&payload, &sample::empty_config()].into_iter()).await;
            hub.manifest(&self.name, &format!("sha256-{}.sig", top.digest.hex()), &signature).await;
        }
    }

    /// Plans and runs, and holds the one against the other and against what was asked of both registries.
    async fn check(&self, site: &Server, hub: &Party, lan: &Party) {
        let Self { name, .. } = self;
        let before = (hub.relay.requests().len(), lan.relay.requests().len());
        let (_, plan) = report(site, "plan", name);
        let asked = (new(hub, before.0, name), new(lan, before.1, name));
        assert!(
            !asked.0.iter().any(|line| line.starts_with("GET") && line.contains("/blobs/")),
            "{asked:#?}"
        );
        assert!(asked.1.iter().all(|line| line.starts_with("HEAD") || line.starts_with("GET")), "{asked:#?}");

        let before = (hub.relay.requests().len(), lan.relay.requests().len());
        let (status, run) = report(site, "run", name);
        assert_eq!(tags(&plan, false), tags(&run, true), "{name}\n{}", site.log());
        let failed = run["tags"].as_array().unwrap().iter().any(|tag| tag["outcome"] == "failed");
        assert_eq!(status, Some(i32::from(failed)), "{run:#}");
        let asked = (new(hub, before.0, name), new(lan, before.1, name));
        let planned = |kind: &str, key: &str| -> BTreeSet<String> {
            let steps = plan["tags"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|tag| tag["steps"].as_array().into_iter().flatten());
            steps
                .filter(|step| step["step"] == kind)
                .map(|step| step[key].as_str().unwrap().to_owned())
                .collect()
        };
        let (mut fetched, mut to_fetch) = (last_parts(&asked.0, "GET", "/blobs/"), planned("blob", "digest"));
        // The empty configuration is that of every case: the others find it here, and ask whether they may take it.
        for blobs in [&mut fetched, &mut to_fetch] {
            blobs.remove(&sample::empty_config().digest.to_string());
        }
        assert_eq!(fetched, to_fetch, "{name}: {plan:#}");
        let sent: BTreeSet<String> =
            planned("send-manifest", "digest").union(&planned("send-tag", "tag")).cloned().collect();
        assert_eq!(last_parts(&asked.1, "PUT", "/manifests/"), sent, "{name}: {plan:#}");
        let begun = asked.1.iter().filter(|line| line.starts_with("POST")).count();
        assert_eq!(begun, planned("send-blob", "digest").len(), "{name}: {plan:#}\n{:#?}", asked.1);
        if !self.goes_on {
            assert!(asked.1.is_empty(), "{asked:#?}");
        }
        let (_, again) = report(site, "plan", name);
        let left: Vec<&Value> =
            again["tags"].as_array().unwrap().iter().filter(|tag| !tag["steps"].is_null()).collect();
        assert!(left.is_empty(), "{name}: nothing is left to be done: {left:#?}");
    }
}

/// What the relay in front of a party has been asked about a repository since.
fn new(party: &Party, since: usize, repository: &str) -> Vec<String> {
    let about = format!(" /v2/{repository}/");
    party.relay.requests()[since..].iter().filter(|line| line.contains(&about)).cloned().collect()
}

/// What stands behind `part` in the requests of a method.
fn last_parts(lines: &[String], method: &str, part: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in lines.iter().filter(|line| line.starts_with(method)) {
        let Some((_, rest)) = line.split_once(part) else { continue };
        let last = rest.split([' ', '?']).next().unwrap_or_default();
        if method == "GET" {
            assert!(
                last.parse::<Digest>().is_ok() && found.insert(last.to_owned()),
                "{last} was asked for twice"
            );
        } else if !last.starts_with("uploads/") {
            found.insert(last.to_owned());
        }
    }
    found
}

/// What a report says of each tag, as far as a plan and the run after it have to say the same.
fn tags(report: &Value, done: bool) -> Vec<Value> {
    let tags = report["tags"].as_array().unwrap_or_else(|| panic!("{report:#}"));
    let said = tags.iter().map(|tag| {
        let outcome = match tag["outcome"].as_str().unwrap() {
            "planned" => "mirrored",
            "mirrored" if done => "mirrored",
            other => other,
        };
        json!({
            "tag": tag["tag"], "outcome": outcome, "digest": tag["digest"], "steps": tag["steps"],
            "bytes": tag["bytes"], "to_send": tag["to_send"], "missing": tag["missing"], "why": tag["why"],
        })
    });
    said.collect()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_is_what_a_run_does() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let (cases, seed) =
        (number("DELTAPORT_PLAN_CASES").unwrap_or(CASES), number("DELTAPORT_PLAN_SEED").unwrap_or(now));
    println!("DELTAPORT_PLAN_CASES={cases} DELTAPORT_PLAN_SEED={seed}");
    let sparse = "validate = \"none\"";
    let (hub, lan) = (Party::start(sparse).await, Party::start(sparse).await);
    let mut random = Random::new(seed);
    let mut cases: Vec<Case> =
        (0..cases).map(|number| Case::new(number, Random::new(random.next_u64()))).collect();
    // A delta is another way to the same step, and another request.
    let settings = format!("{}deltas = \"never\"\n{}", upstream(HUB, &hub.url()), upstream(LAN, &lan.url()));
    let rules: String = cases.iter().map(|case| case.rule.as_str()).collect();
    let site = launch(&format!("{settings}{rules}")).start().await;
    for case in &mut cases {
        println!("{}", case.rule);
        for tag in 0..1 + case.random.below(TAGS) {
            case.publish(&hub, &format!("v{tag}")).await;
        }
        case.check(&site, &hub, &lan).await;
        // Some tags move, and others come.
        for tag in 0..=TAGS {
            if case.once_in(2) {
                case.publish(&hub, &format!("v{tag}")).await;
            }
        }
        case.check(&site, &hub, &lan).await;
    }
}
