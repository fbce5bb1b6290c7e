//! The main job: an image is updated at a hub, a site fetches the update over a bad link as a delta, and a client at
//! the site sees nothing but the image.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use deltaport_oci::Digest;
use deltaport_testkit::clients::{Fault, Relay, Sandbox, read_image};
use deltaport_testkit::sample::{self, Image};

use crate::registry::Registry;
use crate::{podman, skopeo};

/// What clients call the hub. The name exists only in the site's settings and in those of the client.
const HUB: &str = "hub.example";
/// Where the image lives at the hub.
const REPOSITORY: &str = "debian/base";
/// The part of a layer's bytes that its update may cost on the link between hub and site, in percent.
const BUDGET: u64 = 40;

/// A hub, a site behind a link that counts, and a client at the site.
struct Setting {
    hub: Registry,
    /// The link from the site to the hub.
    link: Relay,
    site: Registry,
    client: Sandbox,
}

impl Setting {
    /// The hub has `image` as `tag`; the site and the client have nothing.
    fn with(hub: Registry, tag: &str, image: &Image) -> Self {
        let client = Sandbox::new();
        let link = Relay::to(hub.address());
        let upstream = format!(
            "[[upstream]]\nhost = \"{HUB}\"\nurl = \"http://{}\"\ndefault = true\ndeltas = \"always\"\n",
            link.address()
        );
        let site = Registry::with_settings(&upstream);
        podman::mirror(&client, HUB, site.address());
        let setting = Self { hub, link, site, client };
        setting.push(tag, image);
        setting
    }

    /// As [`Setting::with`], but the site and the client already have `old`, and the hub has `new` as well.
    fn before_update(hub: Registry, old: &Image, new: &Image) -> Self {
        let setting = Self::with(hub, "old", old);
        setting.pull("old", old);
        setting.push("new", new);
        setting
    }

    /// Pushes to the hub.
    fn push(&self, tag: &str, image: &Image) {
        skopeo::push(&self.client, self.hub.address(), &format!("{REPOSITORY}:{tag}"), image);
    }

    /// Pulls `tag` as a machine at the site would, and asserts that it is `image`. Returns what the link carried.
    fn pull(&self, tag: &str, image: &Image) -> u64 {
        let before = self.link.traffic();
        let reference = format!("{HUB}/{REPOSITORY}:{tag}");
        podman::podman(&self.client, "machine").line("pull --quiet").arg(&reference).ok();
        podman::assert_holds(&self.client, "machine", &reference, image);
        (self.link.traffic() - before).total()
    }

    /// Asserts that the site serves the very bytes of every layer of `image`. It holds them, and asks nobody.
    fn assert_site_serves(&self, image: &Image) {
        let before = self.link.requests().len();
        for layer in &image.layers {
            let url = format!("http://{}/v2/{REPOSITORY}/blobs/{}", self.site.address(), layer.digest);
            let file = self.client.path("layer");
            self.client.run("/usr/bin/curl").line("--silent --show-error --fail -o").arg(&file).arg(url).ok();
            assert_eq!(digest(&file), layer.digest);
        }
        assert_eq!(self.link.requests()[before..], [] as [String; 0]);
    }

    /// Waits until the hub has made a delta, as it does when a tag moves.
    fn wait_for_delta(&self) {
        let deadline = Instant::now() + Duration::from_secs(240);
        let url = format!("http://{}/metrics", self.hub.address());
        loop {
            let metrics =
                self.client.run("/usr/bin/curl").line("--silent --show-error --fail").arg(&url).ok();
            if metrics.lines().any(|line| line == "deltaport_deltas_made_total 1") {
                return;
            }
            assert!(Instant::now() < deadline, "no delta was made\n{metrics}");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// How many requests for deltas went over the link.
    fn delta_requests(&self) -> usize {
        self.link.requests().iter().filter(|line| is_for_delta(line)).count()
    }
}

fn is_for_delta(request: &str) -> bool {
    request.contains("/_deltaport/delta/layer")
}

fn digest(file: &Path) -> Digest {
    Digest::sha256(&std::fs::read(file).expect("curl wrote it"))
}

/// Bytes of all layers, as they are stored.
fn size(image: &Image) -> u64 {
    image.layers.iter().map(|layer| layer.bytes.len() as u64).sum()
}

/// A release of Debian, and the same with its updates: built on this machine, from the sources of its own apt.
fn debian_pair() -> [Image; 2] {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/debian-pair.sh");
    let script = script.canonicalize().expect("the script is part of the repository");
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    // Two root file systems are made of some hundred packages that come over the network.
    let sandbox = Sandbox::new();
    let build = sandbox.run(script.to_str().expect("UTF-8")).arg(target.join("debian-pair"));
    let layout = PathBuf::from(build.limit(Duration::from_secs(600)).ok());
    ["old", "new"].map(|tag| read_image(&layout, tag))
}

/// A small image and its update, in which one file of 20 has changed.
fn sample_pair() -> [Image; 2] {
    let old = sample::files(81, 200, 20_000);
    let new = sample::changed(&old, 82, 20);
    [old, new].map(|files| Image::of("amd64", vec![sample::layer_of(&files)]))
}

#[test]
fn update_through_site_carries_a_delta() {
    let [old, new] = debian_pair();
    let setting = Setting::with(Registry::with_settings(""), "stable", &old);
    let first = setting.pull("stable", &old);
    assert!(first >= size(&old), "nothing was there, so all of it had to come: {first} bytes");

    setting.push("stable", &new);
    setting.wait_for_delta();
    let second = setting.pull("stable", &new);
    let percent = second as f64 * 100.0 / size(&new) as f64;
    println!("the update took {second} bytes of {}: {percent:.1} %", size(&new));
    setting.assert_site_serves(&new);
    assert!(
        second * 100 < size(&new) * BUDGET,
        "the update took {second} bytes on the link, the layer has {}; {:#?}",
        size(&new),
        setting.link.requests()
    );
    // The machine and the site are up to date: another pull costs the link no more than a question.
    assert!(setting.pull("stable", &new) < 10_000);
}

#[test]
fn a_delta_is_made_while_the_site_waits() {
    let [old, new] = sample_pair();
    let setting = Setting::before_update(Registry::with_settings(""), &old, &new);
    let second = setting.pull("new", &new);
    setting.assert_site_serves(&new);
    assert!(second * 100 < size(&new) * BUDGET, "{second} bytes of {}", size(&new));
    assert!(setting.delta_requests() > 0);
}

#[test]
fn a_refused_delta_ends_in_the_whole_layer() {
    let [old, new] = sample_pair();
    let setting = Setting::before_update(Registry::with_settings(""), &old, &new);
    setting.link.breaks(Fault::Refuse, is_for_delta);
    let second = setting.pull("new", &new);
    assert!(setting.delta_requests() > 0, "{:#?}", setting.link.requests());
    assert!(second >= size(&new));
    setting.assert_site_serves(&new);
}

#[test]
fn a_link_that_breaks_over_the_delta_ends_in_the_whole_layer() {
    let [old, new] = sample_pair();
    let setting = Setting::before_update(Registry::with_settings(""), &old, &new);
    setting.link.breaks(Fault::Cut(0), is_for_delta);
    let second = setting.pull("new", &new);
    assert!(second >= size(&new));
    setting.assert_site_serves(&new);
}

#[test]
fn a_hub_that_knows_no_deltas_is_an_upstream_as_well() {
    let [old, new] = sample_pair();
    let setting = Setting::before_update(Registry::foreign(), &old, &new);
    let second = setting.pull("new", &new);
    assert!(second >= size(&new));
    setting.assert_site_serves(&new);
}
