//! podman: an engine's pulls and pushes, its search, and a mirror set up for it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use deltaport_testkit::clients::{Relay, Run, Sandbox};
use deltaport_testkit::sample::{self, Image};

use crate::registry::{PASSWORD, Registry, USER, at};
use crate::skopeo;
use crate::through_site::{DEFAULT, Held, Machine, REPOSITORY};

/// podman with the storage `store`, which is empty at first. The driver copies files and so works on every file system.
pub(crate) fn podman<'a>(sandbox: &'a Sandbox, store: &str) -> Run<'a> {
    sandbox
        .run("/usr/bin/podman")
        .limit(Duration::from_secs(240))
        .arg("--root")
        .arg(sandbox.path(store))
        .arg("--runroot")
        .arg(sandbox.path(&format!("{store}.run")))
        .arg("--tmpdir")
        .arg(sandbox.path(&format!("{store}.tmp")))
        .line("--storage-driver vfs --runtime runc")
}

fn pull<'a>(sandbox: &'a Sandbox, store: &str, reference: &str) -> Run<'a> {
    podman(sandbox, store).line("pull --quiet --tls-verify=false").arg(reference)
}

/// Asserts that what podman holds as `reference` is `image`: the digest of its manifest and that of its configuration,
/// which is what podman calls the image's ID.
#[track_caller]
pub(crate) fn assert_holds(sandbox: &Sandbox, store: &str, reference: &str, image: &Image) {
    assert_eq!(held(sandbox, store, reference), Held::of(image));
}

fn held(sandbox: &Sandbox, store: &str, reference: &str) -> Held {
    let format = ["--format", "{{.Digest}} sha256:{{.Id}}"];
    let held = podman(sandbox, store).line("image inspect").args(format).arg(reference).ok();
    let (manifest, id) = held.split_once(' ').expect("the format has a blank");
    Held { manifest: manifest.to_owned(), id: id.to_owned() }
}

/// podman on a machine that knows the site as the mirror of a registry.
pub(crate) fn machine(sandbox: &Sandbox, site: SocketAddr) -> Box<dyn Machine + '_> {
    mirror(sandbox, DEFAULT, site);
    Box::new(Podman(sandbox))
}

struct Podman<'a>(&'a Sandbox);

impl Machine for Podman<'_> {
    fn name(&self) -> String {
        format!("{DEFAULT}/{REPOSITORY}")
    }

    fn pull(&self, reference: &str) -> Held {
        pull(self.0, "store", reference).ok();
        held(self.0, "store", reference)
    }
}

/// podman on a machine where these files say how registries are reached, and whom to trust for that.
pub(crate) fn configured(
    sandbox: &Sandbox,
    registries: PathBuf,
    authority: Option<PathBuf>,
) -> Box<dyn Machine + '_> {
    Box::new(Configured { sandbox, registries, authority })
}

struct Configured<'a> {
    sandbox: &'a Sandbox,
    registries: PathBuf,
    authority: Option<PathBuf>,
}

impl Machine for Configured<'_> {
    fn name(&self) -> String {
        format!("{DEFAULT}/{REPOSITORY}")
    }

    fn pull(&self, reference: &str) -> Held {
        let mut pull = podman(self.sandbox, "store").line("pull --quiet");
        if let Some(directory) = &self.authority {
            pull = pull.arg("--cert-dir").arg(directory);
        }
        pull.env("CONTAINERS_REGISTRIES_CONF", &self.registries).arg(reference).ok();
        held(self.sandbox, "store", reference)
    }
}

/// Builds an image for `architecture` with podman, named `localhost/<name>`.
fn build(sandbox: &Sandbox, store: &str, name: &str, architecture: &str) {
    let archive = sample::tar(&[sample::File::new("etc/motd", format!("built for {architecture}\n"))]);
    sandbox.write("context/root.tar", archive);
    sandbox.write("context/Dockerfile", "FROM scratch\nADD root.tar /\nCMD [\"/bin/sh\"]\n");
    podman(sandbox, store)
        // Without --no-cache it takes the image of the other architecture for this one.
        .line("build --quiet --no-cache --isolation chroot --platform")
        .arg(format!("linux/{architecture}"))
        .args(["--tag", &format!("localhost/{name}")])
        .arg(sandbox.path("context"))
        .ok();
}

#[test]
fn pulls_by_tag_and_by_digest() {
    let (registry, sandbox) = (Registry::open(), Sandbox::new());
    let image = Image::small(31);
    skopeo::push(&sandbox, registry.address(), "team/app:1", &image);
    let by_tag = at(registry.address(), "team/app:1");
    let by_digest = at(registry.address(), &format!("team/app@{}", image.manifest.digest));
    for (store, reference) in [("one", by_tag), ("two", by_digest)] {
        pull(&sandbox, store, &reference).ok();
        assert_holds(&sandbox, store, &reference, &image);
    }
    pull(&sandbox, "one", &at(registry.address(), "team/app:2")).refused();
}

#[test]
fn pushes_what_it_built() {
    let (registry, sandbox) = (Registry::open(), Sandbox::new());
    build(&sandbox, "builder", "app", "amd64");
    for format in ["oci", "v2s2"] {
        let reference = at(registry.address(), &format!("built/app:{format}"));
        podman(&sandbox, "builder")
            .line("push --quiet --tls-verify=false --digestfile")
            .arg(sandbox.path("digest"))
            .args(["--format", format, "localhost/app", &reference])
            .ok();
        let pushed = std::fs::read_to_string(sandbox.path("digest")).unwrap();
        let id =
            |store, name: &str| podman(&sandbox, store).line("image inspect --format {{.Id}}").arg(name).ok();
        pull(&sandbox, format, &reference).ok();
        let digest = podman(&sandbox, format).line("image inspect --format {{.Digest}}").arg(&reference).ok();
        assert_eq!(digest, pushed);
        if format == "oci" {
            assert_eq!(id(format, &reference), id("builder", "localhost/app"));
        }
        let container = podman(&sandbox, format).args(["create", &reference]).ok();
        let root = podman(&sandbox, format).args(["mount", &container]).ok();
        let motd = sandbox.run("/bin/cat").arg(format!("{root}/etc/motd")).ok();
        assert_eq!(motd, "built for amd64");
    }
}

#[test]
fn pushes_and_pulls_an_index() {
    let (registry, sandbox) = (Registry::open(), Sandbox::new());
    podman(&sandbox, "builder").line("manifest create localhost/both").ok();
    for architecture in ["amd64", "arm64"] {
        build(&sandbox, "builder", architecture, architecture);
        let image = format!("containers-storage:localhost/{architecture}");
        podman(&sandbox, "builder").line("manifest add localhost/both").arg(image).ok();
    }
    for format in ["oci", "v2s2"] {
        let reference = at(registry.address(), &format!("multi:{format}"));
        podman(&sandbox, "builder")
            .line("manifest push --quiet --all --tls-verify=false --format")
            .args([format, "localhost/both", &format!("docker://{reference}")])
            .ok();
        for architecture in ["amd64", "arm64"] {
            let store = format!("{format}-{architecture}");
            pull(&sandbox, &store, &reference).args(["--arch", architecture]).ok();
            let name = podman(&sandbox, &store)
                .line("image inspect --format {{.Architecture}}")
                .arg(&reference)
                .ok();
            assert_eq!(name, architecture);
        }
    }
}

#[test]
fn searches_the_catalog() {
    let (registry, sandbox) = (Registry::open(), Sandbox::new());
    let address = registry.address();
    for name in ["one", "team/two"] {
        for tag in ["1", "2"] {
            skopeo::push(&sandbox, address, &format!("{name}:{tag}"), &Image::small(32));
        }
    }
    let search =
        |term: &str| podman(&sandbox, "store").line("search --tls-verify=false").arg(at(address, term));
    let found = search("").line("--format {{.Name}}").ok();
    assert_eq!(found.lines().collect::<Vec<_>>(), [at(address, "one"), at(address, "team/two")]);
    let tags = search("team/two").arg("--list-tags").ok();
    let mut tags: Vec<_> = tags.lines().skip(1).filter_map(|line| line.split_whitespace().last()).collect();
    tags.sort_unstable();
    assert_eq!(tags, ["1", "2"]);
}

#[test]
fn uses_it_as_a_mirror() {
    let (registry, sandbox) = (Registry::open(), Sandbox::new());
    let relay = Relay::to(registry.address());
    let image = Image::small(33);
    skopeo::push(&sandbox, registry.address(), "library/tiny:1", &image);
    mirror(&sandbox, "docker.io", relay.address());
    for reference in
        ["docker.io/library/tiny:1", &format!("docker.io/library/tiny@{}", image.manifest.digest)]
    {
        podman(&sandbox, "store").line("pull --quiet").arg(reference).ok();
        assert_holds(&sandbox, "store", reference, &image);
    }
    assert!(relay.requests().iter().any(|line| line.starts_with("GET /v2/library/tiny/manifests/1 ")));
}

/// Makes the registry at `address` the mirror of `prefix`, whose own host does not exist.
pub(crate) fn mirror(sandbox: &Sandbox, prefix: &str, address: SocketAddr) {
    let config = format!(
        "unqualified-search-registries = []\nshort-name-mode = \"disabled\"\n\
         [[registry]]\nprefix = \"{prefix}\"\nlocation = \"registry.invalid\"\n\
         [[registry.mirror]]\nlocation = \"{address}\"\ninsecure = true\n"
    );
    sandbox.write("registries.conf", config);
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

#[test]
fn logs_in_with_a_token_for_programs() {
    let (registry, sandbox) = (Registry::locked_with_tokens(), Sandbox::new());
    let secret = registry.token("ci", "repository:team/app:pull,push");
    let address = registry.address().to_string();
    let trusting = format!("--cert-dir={}", registry.authority().display());
    let podman = |verb: &str| podman(&sandbox, "store").arg(verb).arg(&trusting);
    build(&sandbox, "store", "app", "amd64");
    podman("login").args(["-u", "ci", "-p", &secret, &address]).ok();
    podman("push").args(["localhost/app", &at(registry.address(), "team/app:1")]).ok();
    podman("pull").arg(at(registry.address(), "team/app:1")).ok();
    podman("push").args(["localhost/app", &at(registry.address(), "other/app:1")]).refused();
    registry.revoke("ci");
    std::thread::sleep(std::time::Duration::from_millis(300));
    podman("pull").arg(at(registry.address(), "team/app:1")).refused();
}

fn logs_in(registry: &Registry) {
    let sandbox = Sandbox::new();
    let address = registry.address().to_string();
    let trusting = format!("--cert-dir={}", registry.authority().display());
    let podman = |verb: &str| podman(&sandbox, "store").arg(verb).arg(&trusting);
    let reference = at(registry.address(), "app:1");
    build(&sandbox, "store", "app", "amd64");

    assert!(podman("push").args(["localhost/app", &reference]).refused().contains("unauthorized"));
    podman("login").args(["-u", USER, "-p", "wrong", &address]).refused();
    podman("login").args(["-u", USER, "-p", PASSWORD, &address]).ok();
    podman("push").args(["localhost/app", &reference]).ok();
    podman("pull").arg(&reference).ok();
    self::podman(&sandbox, "store").args(["logout", &address]).ok();
    assert!(podman("pull").arg(&reference).refused().contains("unauthorized"));
}
