//! docker: Debian's daemon and command line.

use std::net::SocketAddr;
use std::time::Duration;

use deltaport_testkit::clients::{Daemon, Layout, Relay, Run, Sandbox};
use deltaport_testkit::sample::{self, Image};
use serde_json::json;

use crate::registry::{PASSWORD, Registry, USER, at};
use crate::skopeo;
use crate::through_site::{Held, Machine, NAMED, REPOSITORY};

struct Docker<'a> {
    sandbox: &'a Sandbox,
    _daemon: Daemon,
}

impl<'a> Docker<'a> {
    /// Starts a daemon of its own with the settings in `config`.
    fn start(sandbox: &'a Sandbox, config: &serde_json::Value) -> Self {
        let path = |name: &str| sandbox.path(name).display().to_string();
        let mut config = config.clone();
        config["deprecated-key-path"] = path("docker.key").into();
        let config = sandbox.write("docker.json", config.to_string());
        let run = sandbox
            .run("/usr/sbin/dockerd")
            .arg("--config-file")
            .arg(config)
            .args(["--data-root", &path("docker"), "--exec-root", &path("docker.exec")])
            .args(["--pidfile", &path("docker.pid"), "-H", &format!("unix://{}", path("docker.sock"))])
            .line("--iptables=false --ip6tables=false --ip-masq=false --bridge=none --storage-driver=vfs");
        let mut daemon = sandbox.start(run, "docker.log");
        let probe = docker(sandbox).arg("version");
        daemon.wait_until(|| probe.outcome().success).unwrap_or_else(|why| {
            panic!(
                "{why}\nWhere dockerd is not allowed to run, as in many containers, \
                 `cargo test --test clients -- --skip docker` leaves out what needs it."
            )
        });
        Self { sandbox, _daemon: daemon }
    }

    fn run(&self, line: &str) -> Run<'_> {
        docker(self.sandbox).line(line)
    }

    /// Asserts that what it holds as `reference` is `image`: its configuration is what docker calls the ID, and the
    /// manifest is known as the digest in the repository.
    #[track_caller]
    fn assert_holds(&self, reference: &str, image: &Image) {
        assert_eq!(self.held(reference), Held::of(image));
    }

    fn held(&self, reference: &str) -> Held {
        let format = ["--format", "{{.Id}} {{json .RepoDigests}}"];
        let held = self.run("image inspect").args(format).arg(reference).ok();
        let (id, names) = held.split_once(' ').expect("the format has a blank");
        let names: Vec<String> = serde_json::from_str(names).expect("a list of names");
        let mut manifests: Vec<_> = names.iter().filter_map(|name| name.split('@').nth(1)).collect();
        manifests.dedup();
        let [manifest] = manifests[..] else { panic!("{reference} has not one digest: {names:?}") };
        Held { manifest: manifest.to_owned(), id: id.to_owned() }
    }
}

/// docker on a machine that has nothing set up, and names site and upstream.
pub(crate) fn machine(sandbox: &Sandbox, site: SocketAddr) -> Box<dyn Machine + '_> {
    let docker = Docker::start(sandbox, &json!({}));
    Box::new(Named { docker, name: at(site, &format!("{NAMED}/{REPOSITORY}")) })
}

/// docker on a machine that knows the site as a mirror of Docker Hub. What it calls by a plain name it asks the site for
/// by that, without a word of whose it is.
pub(crate) fn mirrored(sandbox: &Sandbox, site: SocketAddr) -> Box<dyn Machine + '_> {
    let mirrors = json!({ "registry-mirrors": [format!("http://{site}")] });
    configured(sandbox, &mirrors)
}

/// docker on a machine with these settings.
pub(crate) fn configured<'a>(sandbox: &'a Sandbox, settings: &serde_json::Value) -> Box<dyn Machine + 'a> {
    Box::new(Named { docker: Docker::start(sandbox, settings), name: REPOSITORY.to_owned() })
}

struct Named<'a> {
    docker: Docker<'a>,
    name: String,
}

impl Machine for Named<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn pull(&self, reference: &str) -> Held {
        self.docker.run("pull --quiet").arg(reference).ok();
        self.docker.held(reference)
    }
}

/// The command line of the package: others may come first on the search path.
fn docker(sandbox: &Sandbox) -> Run<'_> {
    sandbox
        .run("/usr/bin/docker")
        .env("DOCKER_HOST", format!("unix://{}", sandbox.path("docker.sock").display()))
        .env("DOCKER_CONFIG", sandbox.path("docker.client"))
        .limit(Duration::from_secs(60))
}

#[test]
fn pulls_and_pushes() {
    let (registry, sandbox) = (Registry::open(), Sandbox::new());
    let address = registry.address();
    let image = Image::small(71);
    skopeo::push(&sandbox, address, "team/app:1", &image);
    let docker = Docker::start(&sandbox, &json!({}));
    let by_tag = at(address, "team/app:1");
    let by_digest = at(address, &format!("team/app@{}", image.manifest.digest));
    for reference in [&by_digest, &by_tag] {
        docker.run("pull --quiet").arg(reference).ok();
        docker.assert_holds(reference, &image);
        docker.run("rmi --force").arg(image.config.digest.to_string()).ok();
    }
    docker.run("pull").arg(at(address, "team/app:none")).refused();

    let archive = sandbox.write("root.tar", sample::tar(&sample::files(72, 10, 1000)));
    let pushed = at(address, "pushed/app:1");
    let id = docker.run("import").arg(archive).arg(&pushed).ok();
    docker.run("push --quiet").arg(&pushed).ok();
    docker.run("rmi --force").arg(&id).ok();
    docker.run("pull --quiet").arg(&pushed).ok();
    assert_eq!(docker.run("image inspect --format {{.Id}}").arg(&pushed).ok(), id);
}

#[test]
fn pulls_one_architecture_of_an_index_through_a_mirror() {
    let (registry, sandbox) = (Registry::open(), Sandbox::new());
    let relay = Relay::to(registry.address());
    let (index, images) = skopeo::two_architectures();
    let layout = Layout::new(sandbox.path("layout")).index("both", &index, &images);
    let target = skopeo::docker(registry.address(), "library/multi:1");
    skopeo::copy(&sandbox, &layout.reference("both"), &target).arg("--all").ok();

    let mirrors = json!({ "registry-mirrors": [format!("http://{}", relay.address())] });
    let docker = Docker::start(&sandbox, &mirrors);
    for (image, architecture) in images.iter().zip(["amd64", "arm64"]) {
        docker.run("pull --quiet --platform").arg(format!("linux/{architecture}")).arg("multi:1").ok();
        let id = docker.run("image inspect multi:1 --format {{.Id}}").ok();
        assert_eq!(id, image.config.digest.to_string());
    }
    assert!(relay.requests().iter().any(|line| line.starts_with("GET /v2/library/multi/manifests/")));
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
    let address = registry.address().to_string();
    // docker does not verify certificates of loopback addresses; the other clients do.
    let docker = Docker::start(&sandbox, &json!({}));
    let archive = sandbox.write("root.tar", sample::tar(&sample::files(73, 10, 1000)));
    let reference = at(registry.address(), "app:1");
    let id = docker.run("import").arg(archive).arg(&reference).ok();

    docker.run("push").arg(&reference).refused();
    // On loopback it tries plain HTTP when HTTPS has refused, so what it says at last is not about the password.
    docker.run("login").args(["-u", USER, "-p", "wrong", &address]).refused();
    docker.run("push").arg(&reference).refused();
    docker.run("login").args(["-u", USER, "-p", PASSWORD, &address]).ok();
    docker.run("push --quiet").arg(&reference).ok();
    docker.run("rmi --force").arg(&id).ok();
    docker.run("pull --quiet").arg(&reference).ok();
    assert_eq!(docker.run("image inspect --format {{.Id}}").arg(&reference).ok(), id);
    docker.run("logout").arg(&address).ok();
    docker.run("pull").arg(&reference).refused();
}
