//! skopeo: copies between registries and directories, and looks at what is there.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use deltaport_testkit::clients::{Fault, Layout, Relay, Run, Sandbox, read_image};
use deltaport_testkit::sample::{self, Image};
use serde_json::{Value, json};

use crate::registry::{PASSWORD, Registry, USER, at};
use crate::through_site::{Held, Machine, NAMED, REPOSITORY};

/// skopeo, which trusts all signatures and speaks HTTP as well as HTTPS to all that it is told.
pub(crate) fn skopeo(sandbox: &Sandbox) -> Run<'_> {
    sandbox.run("/usr/bin/skopeo").arg("--insecure-policy").arg("--tmpdir").arg(sandbox.path("tmp"))
}

/// Copies from `source` to `target`, each anywhere, without TLS.
pub(crate) fn copy<'a>(sandbox: &'a Sandbox, source: &str, target: &str) -> Run<'a> {
    skopeo(sandbox).line("copy --src-tls-verify=false --dest-tls-verify=false").args([source, target])
}

/// What skopeo calls `name` in the registry at `address`.
pub(crate) fn docker(address: SocketAddr, name: &str) -> String {
    format!("docker://{}", at(address, name))
}

/// Pushes `image` as `name`, from a directory.
pub(crate) fn push(sandbox: &Sandbox, address: SocketAddr, name: &str, image: &Image) {
    let scratch = tempfile::tempdir_in(sandbox.path("tmp")).expect("a directory for temporary files");
    let layout = Layout::new(scratch.path().join("layout")).image("t", image);
    copy(sandbox, &layout.reference("t"), &docker(address, name)).ok();
}

/// Pulls `name` into the directory `target` and asserts that it is `image`, byte for byte.
pub(crate) fn assert_pulls(sandbox: &Sandbox, address: SocketAddr, name: &str, target: &str, image: &Image) {
    let path = sandbox.path(target);
    copy(sandbox, &docker(address, name), &format!("oci:{}:t", path.display())).ok();
    assert_same(&read_image(&path, "t"), image);
}

/// skopeo on a machine that names the upstream in the path.
pub(crate) fn machine(sandbox: &Sandbox, site: SocketAddr) -> Box<dyn Machine + '_> {
    Box::new(Skopeo { sandbox, site })
}

struct Skopeo<'a> {
    sandbox: &'a Sandbox,
    site: SocketAddr,
}

impl Machine for Skopeo<'_> {
    fn name(&self) -> String {
        at(self.site, &format!("{NAMED}/{REPOSITORY}"))
    }

    /// Into one directory, where what is there already is not fetched again.
    fn pull(&self, reference: &str) -> Held {
        let path = self.sandbox.path("store");
        let target = format!("oci:{}:t", path.display());
        copy(self.sandbox, &format!("docker://{reference}"), &target).ok();
        Held::of(&read_image(&path, "t"))
    }
}

fn assert_same(pulled: &Image, pushed: &Image) {
    assert_eq!(pulled.manifest, pushed.manifest);
    assert_eq!(pulled.config.digest, pushed.config.digest);
    let digests = |image: &Image| image.layers.iter().map(|layer| layer.digest).collect::<Vec<_>>();
    assert_eq!(digests(pulled), digests(pushed));
}

fn inspect<'a>(sandbox: &'a Sandbox, address: SocketAddr, name: &str) -> Run<'a> {
    skopeo(sandbox).line("inspect --tls-verify=false").arg(docker(address, name))
}

/// The tags of the repository `name`, sorted, which not every registry does.
fn tags(sandbox: &Sandbox, address: SocketAddr, name: &str) -> Vec<String> {
    let list = skopeo(sandbox).line("list-tags --tls-verify=false").arg(docker(address, name)).ok();
    let list: Value = serde_json::from_str(&list).expect("skopeo prints JSON");
    let mut tags: Vec<String> = serde_json::from_value(list["Tags"].clone()).expect("a list of tags");
    tags.sort();
    tags
}

/// An index of two small images, with them.
pub(crate) fn two_architectures() -> (sample::Content, [Image; 2]) {
    let images = [("amd64", 21), ("arm64", 22)]
        .map(|(architecture, seed)| Image::of(architecture, vec![sample::layer(seed, 3000)]));
    (sample::index(&[&images[0].manifest, &images[1].manifest], json!({})), images)
}

#[test]
fn pushes_pulls_lists_and_deletes() {
    let (registry, sandbox) = (Registry::open(), Sandbox::new());
    let address = registry.address();
    let (first, second) = (Image::small(1), Image::small(2));
    for (tag, image) in [("b", &first), ("a", &second), ("B", &first)] {
        push(&sandbox, address, &format!("team/app:{tag}"), image);
    }
    assert_eq!(tags(&sandbox, address, "team/app"), ["B", "a", "b"]);

    assert_pulls(&sandbox, address, "team/app:b", "by-tag", &first);
    assert_pulls(&sandbox, address, &format!("team/app@{}", second.manifest.digest), "by-digest", &second);
    let raw = inspect(&sandbox, address, "team/app:a").arg("--raw").ok();
    assert_eq!(raw.as_bytes(), &second.manifest.bytes[..]);

    // skopeo deletes the digest behind the tag, and so both tags of the first image.
    skopeo(&sandbox).line("delete --tls-verify=false").arg(docker(address, "team/app:b")).ok();
    assert_eq!(tags(&sandbox, address, "team/app"), ["a"]);
    for gone in ["team/app:B".to_owned(), format!("team/app@{}", first.manifest.digest)] {
        let message = inspect(&sandbox, address, &gone).refused();
        assert!(message.contains("manifest unknown"), "{message}");
    }
    assert_pulls(&sandbox, address, "team/app:a", "kept", &second);
}

#[test]
fn keeps_the_digest_of_an_index() {
    let (registry, sandbox) = (Registry::open(), Sandbox::new());
    let address = registry.address();
    let (index, images) = two_architectures();
    let layout = Layout::new(sandbox.path("layout")).index("both", &index, &images);
    let all = |source: &str, target: &str| copy(&sandbox, source, target).arg("--all").ok();
    all(&layout.reference("both"), &docker(address, "multi:1"));
    all(&docker(address, "multi:1"), &docker(address, "other/multi:2"));
    for name in ["multi:1", "other/multi:2", &format!("multi@{}", index.digest)] {
        assert_eq!(inspect(&sandbox, address, name).arg("--raw").ok().as_bytes(), &index.bytes[..]);
    }
    for (image, architecture) in images.iter().zip(["amd64", "arm64"]) {
        let target = format!("oci:{}:t", sandbox.path(architecture).display());
        skopeo(&sandbox)
            .args(["--override-arch", architecture, "copy", "--src-tls-verify=false"])
            .args([docker(address, "other/multi:2"), target])
            .ok();
        assert_same(&read_image(&sandbox.path(architecture), "t"), image);
    }
}

#[test]
fn layers_of_zstd_stay_what_they_are() {
    let (registry, sandbox) = (Registry::open(), Sandbox::new());
    let layout = Layout::new(sandbox.path("layout")).image("t", &Image::small(3));
    let zstd = sandbox.path("zstd");
    skopeo(&sandbox)
        .line("copy --dest-compress --dest-compress-format zstd")
        .args([layout.reference("t"), format!("oci:{}:t", zstd.display())])
        .ok();
    let image = read_image(&zstd, "t");
    for layer in &image.layers {
        assert!(layer.media_type.ends_with("tar+zstd"), "{}", layer.media_type);
    }
    copy(&sandbox, &format!("oci:{}:t", zstd.display()), &docker(registry.address(), "z:1")).ok();
    assert_pulls(&sandbox, registry.address(), "z:1", "back", &image);
}

#[test]
fn mounts_what_another_repository_holds() {
    let (registry, sandbox) = (Registry::open(), Sandbox::new());
    let relay = Relay::to(registry.address());
    let image =
        Image::of("amd64", vec![sample::layer_of(&[sample::File::new("big", sample::bytes(4, 2_000_000))])]);
    push(&sandbox, relay.address(), "one/app:1", &image);
    let before = relay.traffic();
    assert!(before.sent > 2_000_000, "{before:?}");
    push(&sandbox, relay.address(), "two/app:1", &image);
    let mounts = relay.requests().iter().filter(|line| line.contains("mount=")).count();
    assert!(mounts >= 1, "{:#?}", relay.requests());
    let sent = (relay.traffic() - before).sent;
    assert!(sent < 100_000, "{sent} bytes were sent again");
    assert_pulls(&sandbox, registry.address(), "two/app:1", "mounted", &image);
}

#[test]
fn a_push_that_breaks_off_leaves_nothing_and_can_be_repeated() {
    let (registry, sandbox) = (Registry::open(), Sandbox::new());
    let relay = Relay::to(registry.address());
    let image =
        Image::of("amd64", vec![sample::layer_of(&[sample::File::new("big", sample::bytes(5, 3_000_000))])]);
    let layout = Layout::new(sandbox.path("layout")).image("t", &image);
    let push = copy(&sandbox, &layout.reference("t"), &docker(relay.address(), "cut:1"));
    relay.breaks(Fault::Cut(1_000_000), |line| line.starts_with("PATCH") || line.starts_with("PUT"));
    push.refused();
    inspect(&sandbox, registry.address(), "cut:1").refused();
    relay.mends();
    push.ok();
    assert_pulls(&sandbox, registry.address(), "cut:1", "repeated", &image);
}

#[test]
fn mirrors_a_repository_with_sync() {
    let (registry, sandbox) = (Registry::open(), Sandbox::new());
    let address = registry.address();
    let images = [Image::small(6), Image::small(7)];
    for (tag, image) in ["1", "2"].iter().zip(&images) {
        push(&sandbox, address, &format!("from/app:{tag}"), image);
    }
    skopeo(&sandbox)
        .line("sync --src docker --dest docker --src-tls-verify=false --dest-tls-verify=false")
        .args([at(address, "from/app"), at(address, "to")])
        .ok();
    assert_eq!(tags(&sandbox, address, "to/app"), ["1", "2"]);
    for (tag, image) in ["1", "2"].iter().zip(&images) {
        assert_pulls(&sandbox, address, &format!("to/app:{tag}"), tag, image);
    }
}

#[test]
fn logs_in_over_tls() {
    logs_in(&Registry::locked());
}

#[test]
fn logs_in_with_access_tokens() {
    let registry = Registry::locked_with_tokens();
    logs_in(&registry);
    assert!(registry.log().contains("route=\"token\" status=200"), "no token was taken");
}

fn logs_in(registry: &Registry) {
    let sandbox = Sandbox::new();
    let address = registry.address();
    let image = Image::small(8);
    let layout = Layout::new(sandbox.path("layout")).image("t", &image);
    let trusting = |option: &str| format!("--{option}cert-dir={}", registry.authority().display());
    let push = || skopeo(&sandbox).arg("copy").args([layout.reference("t"), docker(address, "app:1")]);
    let login = |password: &str| {
        let user = ["-u", USER, "-p", password];
        skopeo(&sandbox).arg("login").arg(trusting("")).args(user).arg(address.to_string())
    };

    assert!(push().refused().contains("certificate signed by unknown authority"));
    assert!(push().arg(trusting("dest-")).refused().contains("unauthorized"));
    assert!(login("wrong").refused().contains("invalid username/password"));
    login(PASSWORD).ok();
    push().arg(trusting("dest-")).ok();

    let target = format!("oci:{}:t", sandbox.path("pulled").display());
    let pull =
        || skopeo(&sandbox).arg("copy").arg(trusting("src-")).args([&docker(address, "app:1"), &target]);
    pull().ok();
    assert_same(&read_image(&sandbox.path("pulled"), "t"), &image);
    skopeo(&sandbox).arg("logout").arg(address.to_string()).ok();
    assert!(pull().refused().contains("unauthorized"));
    assert!(!holds(&sandbox.path("auth.json"), &address.to_string()));
    pull().args(["--src-creds", &format!("{USER}:{PASSWORD}")]).ok();
}

fn holds(file: &Path, text: &str) -> bool {
    fs::read_to_string(file).expect("the sandbox has it").contains(text)
}
