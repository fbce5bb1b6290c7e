//! Four clients behind a site, from their first pull to the day on which the upstream is gone. Whatever happens on the
//! way, each of them holds what it holds after a pull from the upstream itself.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use deltaport_client::{Options, Upstream};
use deltaport_oci::{Reference, RepositoryName, delta_artifact, media_type};
use deltaport_testkit::clients::{Fault, Relay, Sandbox};
use deltaport_testkit::sample::{self, Content, File, Image};
use futures_util::stream;
use serde_json::json;

use crate::registry::{Registry, at, wait};
use crate::{containerd, docker, podman, skopeo};

/// The upstream under the name that a client says with every request, in the path or as `ns`.
pub(crate) const NAMED: &str = "docker.io";
/// The same upstream as what a site means where a client says nothing.
pub(crate) const DEFAULT: &str = "hub.example";
/// Where the image lives at the upstream.
pub(crate) const REPOSITORY: &str = "library/base";
/// The tag that moves from version to version; each has a tag of its own too.
const MOVING: &str = "stable";
/// The part of a layer's bytes that its update may cost on the link between upstream and site, in percent.
const BUDGET: u64 = 20;

/// A machine with one client, whose store is empty at first.
pub(crate) trait Machine {
    /// What this client's user calls the repository in order to have it from the site.
    fn name(&self) -> String;

    /// Pulls `reference`, and asks the client what it holds as that.
    fn pull(&self, reference: &str) -> Held;
}

/// Sets up a client in a sandbox, with a site at that address.
pub(crate) type Start = for<'a> fn(&'a Sandbox, SocketAddr) -> Box<dyn Machine + 'a>;

/// An image as a client knows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The digest of its manifest.
    pub(crate) manifest: String,
    /// What clients call the image's ID: the digest of its configuration.
    pub(crate) id: String,
}

impl Held {
    /// How `image` has to be known.
    pub(crate) fn of(image: &Image) -> Self {
        Self { manifest: image.manifest.digest.to_string(), id: image.config.digest.to_string() }
    }
}

/// Three versions of an image, with a layer that stays and one of 2 MB in which two files change from each to the next.
struct Versions([Image; 3]);

impl Versions {
    fn new() -> Self {
        let kept = sample::layer(90, 100_000);
        let mut files = sample::files(91, 10, 20_000);
        // Most of what layers are made of hardly compresses, and so makes little work.
        files.extend((0..100).map(|n| File::new(&format!("usr/lib/{n}"), sample::bytes(100 + n, 20_000))));
        let mut version = |number: usize| {
            let seed = 200 * number as u64;
            files[number].content = sample::bytes(seed, 20_000).to_vec();
            files[50 + number].content = sample::bytes(seed + 1, 20_000).to_vec();
            Image::of("amd64", vec![kept.clone(), sample::layer_of(&files)])
        };
        Self([1, 2, 3].map(&mut version))
    }

    /// The tag of a version, counted from one, and the image.
    fn get(&self, number: usize) -> (String, &Image) {
        (format!("v{number}"), &self.0[number - 1])
    }
}

/// The layer that changes.
fn changing(image: &Image) -> &Content {
    &image.layers[1]
}

/// An upstream, a site behind a link that counts, and a machine beside both for everything else.
struct Setting {
    versions: Versions,
    upstream: Registry,
    link: Relay,
    site: Registry,
    bench: Sandbox,
}

impl Setting {
    fn of(upstream: Registry) -> Self {
        let link = Relay::to(upstream.address());
        let upstreams = [(NAMED, false), (DEFAULT, true)].map(|(host, default)| {
            format!(
                "[[upstream]]\nhost = {host:?}\nurl = \"http://{}\"\ndefault = {default}\ndeltas = \"always\"\n",
                link.address()
            )
        });
        let site = Registry::with_settings(&upstreams.concat());
        let setting = Self { versions: Versions::new(), upstream, link, site, bench: Sandbox::new() };
        setting.push(1);
        setting
    }

    /// Pushes a version to the upstream, where the moving tag moves to it.
    fn push(&self, number: usize) {
        let (tag, image) = self.versions.get(number);
        for tag in [&tag, MOVING] {
            skopeo::push(&self.bench, self.upstream.address(), &format!("{REPOSITORY}:{tag}"), image);
        }
    }

    /// The value of a metric of a registry, as the sum over the lines that `label` is in.
    fn metric(&self, registry: &Registry, name: &str, label: &str) -> u64 {
        let url = format!("http://{}/metrics", registry.address());
        let text = self.bench.run("/usr/bin/curl").line("--silent --show-error --fail").arg(url).ok();
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let counts = series.split('{').next() == Some(name) && series.contains(label);
            counts.then(|| value.parse::<u64>().expect("a counter"))
        });
        values.sum()
    }

    /// Waits until a counter of a registry has come to `expected`. What is counted may end a moment later than a client
    /// sees its effect.
    #[track_caller]
    fn expect(&self, registry: &Registry, name: &str, label: &str, expected: u64) {
        let deadline = Instant::now() + Duration::from_secs(240);
        loop {
            let value = self.metric(registry, name, label);
            if value == expected {
                return;
            }
            let line = format!("{name} {label} is {value} and not {expected}");
            assert!(value < expected && Instant::now() < deadline, "{line}: {:#?}", self.link.requests());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Pulls a version by its tag through the site. Returns what the link carried.
    fn pull(&self, machine: &dyn Machine, number: usize) -> u64 {
        let (tag, image) = self.versions.get(number);
        let before = self.link.traffic();
        assert_eq!(machine.pull(&format!("{}:{tag}", machine.name())), Held::of(image), "{tag}");
        (self.link.traffic() - before).total()
    }

    /// How many layers came as deltas, and how many whole although a delta was tried, for this reason.
    #[track_caller]
    fn expect_deltas(&self, applied: u64, reason: &str, failed: u64) {
        self.expect(&self.site, "deltaport_upstream_deltas_applied_total", "", applied);
        let label = format!("reason=\"{reason}\"");
        self.expect(&self.site, "deltaport_upstream_delta_fallbacks_total", &label, failed);
    }
}

/// How deltas come to an upstream, and how one comes to be bad.
trait Upstreams {
    /// Something that can be asked for images.
    fn start(&self) -> Registry;
    /// Waits for the delta to the version `number` from the one before, or makes it.
    fn delta(&self, setting: &Setting, number: usize);
    /// The same, and the delta will be bad. Returns what the site will call that.
    fn bad_delta(&self, setting: &Setting, number: usize) -> &'static str;
}

/// A hub makes deltas when a tag moves. A bit of one flips on the link.
struct Hub;

impl Upstreams for Hub {
    fn start(&self) -> Registry {
        Registry::with_settings("[delta]\nhistory = 1\n")
    }

    fn delta(&self, setting: &Setting, number: usize) {
        setting.expect(&setting.upstream, "deltaport_deltas_made_total", "", number as u64 - 1);
    }

    fn bad_delta(&self, setting: &Setting, number: usize) -> &'static str {
        self.delta(setting, number);
        // It comes with the answer to the question, or as a blob that is none of the image.
        let (_, image) = setting.versions.get(number);
        let known: Vec<_> = image.blobs().map(|blob| blob.digest.to_string()).collect();
        setting.link.breaks(Fault::Corrupt, move |line| {
            let is_known = || known.iter().any(|digest| line.contains(digest.as_str()));
            line.contains("/_deltaport/delta/layer") || line.contains("/blobs/") && !is_known()
        });
        "damaged"
    }
}

/// To Debian's registry they are pushed. One was damaged before it got its digest.
struct Foreign;

impl Foreign {
    /// What `deltaport delta` makes of the changing layer of a version, from that of the version before.
    fn made(setting: &Setting, number: usize) -> Vec<u8> {
        let layer = |number: usize| {
            let (tag, image) = setting.versions.get(number);
            setting.bench.write(&format!("{tag}.tar.gz"), &changing(image).bytes)
        };
        let delta = setting.bench.path("delta");
        let run = setting.bench.run(env!("CARGO_BIN_EXE_deltaport")).line("delta create --base");
        run.arg(layer(number - 1)).arg("--target").arg(layer(number)).arg("--out").arg(&delta).ok();
        std::fs::read(delta).expect("it was just made")
    }
}

impl Upstreams for Foreign {
    fn start(&self) -> Registry {
        Registry::foreign()
    }

    fn delta(&self, setting: &Setting, number: usize) {
        let name = |number: usize| {
            let (tag, _) = setting.versions.get(number);
            at(setting.upstream.address(), &format!("{REPOSITORY}:{tag}"))
        };
        let push = setting.bench.run(env!("CARGO_BIN_EXE_deltaport")).line("delta push --from");
        push.args([&name(number - 1), "--to", &name(number)]).ok();
    }

    fn bad_delta(&self, setting: &Setting, number: usize) -> &'static str {
        let mut bytes = Self::made(setting, number);
        let place = bytes.len() / 2;
        bytes[place] ^= 0x40;
        let delta = Content::new(media_type::LAYER_DELTA, bytes);
        let ((_, old), (_, new)) = (setting.versions.get(number - 1), setting.versions.get(number));
        let mut layer = delta.descriptor();
        layer["annotations"] = json!({
            (delta_artifact::BASE): changing(old).digest,
            (delta_artifact::TARGET): changing(new).digest,
        });
        let more = json!({
            "artifactType": media_type::DELTA_ARTIFACT,
            "subject": new.manifest.descriptor(),
            "layers": [layer],
        });
        let artifact = sample::manifest(&sample::empty_config(), &[], more);
        wait(publish(setting.upstream.address(), &new.manifest, &artifact, &delta));
        "apply"
    }
}

/// Pushes an artifact about `subject` with its only blob to a registry that keeps no lists of referrers.
async fn publish(address: SocketAddr, subject: &Content, artifact: &Content, blob: &Content) {
    let upstream = Upstream::new(&Options::new(DEFAULT, format!("http://{address}"))).expect("an address");
    let name: RepositoryName = REPOSITORY.parse().expect("a name");
    for blob in [blob, &sample::empty_config()] {
        let bytes = || stream::iter([Ok(blob.bytes.clone())]);
        let size = blob.bytes.len() as u64;
        upstream.push_blob(&name, &blob.digest, size, bytes).await.expect("the registry takes blobs");
    }
    let reference = Reference::Digest(artifact.digest);
    let bytes = artifact.bytes.clone();
    let pushed = upstream.push_manifest(&name, &reference, &artifact.media_type, bytes).await;
    assert_eq!(pushed.expect("the registry takes manifests"), None, "it keeps lists");
    let mut listed = artifact.descriptor();
    listed["artifactType"] = media_type::DELTA_ARTIFACT.into();
    let listed = serde_json::from_value(listed).expect("a descriptor");
    upstream.list_referrer(&name, &subject.digest, &listed).await.expect("a list under a tag");
}

fn through_a_site(of: &impl Upstreams, start: Start) {
    let mut setting = Setting::of(of.start());
    let sandboxes = [Sandbox::new(), Sandbox::new(), Sandbox::new()];
    let [first, second, direct] = &sandboxes;
    let machine = start(first, setting.site.address());

    let bytes = setting.pull(&*machine, 1);
    let size = |number| changing(setting.versions.get(number).1).bytes.len() as u64;
    assert!(bytes >= size(1), "nothing was there, so all of it had to come: {bytes} bytes");

    let received = || setting.metric(&setting.site, "deltaport_upstream_received_bytes_total", "");
    let before = received();
    setting.push(2);
    of.delta(&setting, 2);
    let bytes = setting.pull(&*machine, 2);
    setting.expect_deltas(1, "damaged", 0);
    for bytes in [bytes, received() - before] {
        assert!(bytes * 100 < size(2) * BUDGET, "{bytes} of {}: {:#?}", size(2), setting.link.requests());
    }

    setting.push(3);
    let reason = of.bad_delta(&setting, 3);
    let bytes = setting.pull(&*machine, 3);
    setting.expect_deltas(1, reason, 1);
    assert!(bytes >= size(3), "the layer had to come whole: {bytes} bytes");

    // What a pull from the upstream itself gives.
    let machine = start(direct, setting.site.address());
    let numbers = [1, 2, 3];
    let held = numbers.map(|number| {
        let (tag, _) = setting.versions.get(number);
        machine.pull(&at(setting.upstream.address(), &format!("{REPOSITORY}:{tag}")))
    });
    assert_eq!(held, setting.versions.0.each_ref().map(Held::of));

    // Another machine comes when there is only the site.
    setting.upstream.kill();
    let machine = start(second, setting.site.address());
    for (number, held) in numbers.iter().zip(&held) {
        let (tag, _) = setting.versions.get(*number);
        assert_eq!(machine.pull(&format!("{}:{tag}", machine.name())), *held, "{tag}");
        let by_digest = format!("{}@{}", machine.name(), held.manifest);
        assert_eq!(machine.pull(&by_digest), *held, "{tag} by digest");
    }
}

#[test]
fn podman_and_a_hub() {
    through_a_site(&Hub, podman::machine);
}

#[test]
fn podman_and_debians_registry() {
    through_a_site(&Foreign, podman::machine);
}

#[test]
fn skopeo_and_a_hub() {
    through_a_site(&Hub, skopeo::machine);
}

#[test]
fn skopeo_and_debians_registry() {
    through_a_site(&Foreign, skopeo::machine);
}

#[test]
fn containerd_and_a_hub() {
    through_a_site(&Hub, containerd::machine);
}

#[test]
fn containerd_and_debians_registry() {
    through_a_site(&Foreign, containerd::machine);
}

#[test]
fn docker_and_a_hub() {
    through_a_site(&Hub, docker::machine);
}

#[test]
fn docker_and_debians_registry() {
    through_a_site(&Foreign, docker::machine);
}

#[test]
fn docker_with_a_mirror_and_a_hub() {
    through_a_site(&Hub, docker::mirrored);
}

#[test]
fn docker_with_a_mirror_and_debians_registry() {
    through_a_site(&Foreign, docker::mirrored);
}
