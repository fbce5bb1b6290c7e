//! Clients that were told by `deltaport client-config`, and by nothing else, to pull through a site: by tag and by digest,
//! under the usual names of the images. Of the registries that those names mean, one does not exist and the other does
//! not have the image.

use deltaport_testkit::clients::{Run, Sandbox};
use deltaport_testkit::sample::Image;

use crate::registry::{Registry, at};
use crate::through_site::{Held, Machine, REPOSITORY};
use crate::{containerd, docker, podman, skopeo};

/// An upstream with an image, and a site that takes it for two registries.
struct Setting {
    image: Image,
    upstream: Registry,
    bench: Sandbox,
}

impl Setting {
    fn new() -> Self {
        let setting = Self { image: Image::small(95), upstream: Registry::open(), bench: Sandbox::new() };
        skopeo::push(&setting.bench, setting.upstream.address(), &format!("{REPOSITORY}:1"), &setting.image);
        setting
    }

    /// What the site is told, and `client-config` too.
    fn settings(&self) -> String {
        let upstreams = [("docker.io", true), ("hub.example:5000", false)].map(|(host, default)| {
            let url = format!("http://{}", self.upstream.address());
            format!("[[upstream]]\nhost = {host:?}\nurl = {url:?}\ndefault = {default}\n")
        });
        upstreams.concat()
    }

    /// The command line that prints the files of a client of the site at `url`.
    fn print<'a>(&self, sandbox: &'a Sandbox, client: &str, url: String) -> Run<'a> {
        let config = sandbox.write("site.toml", self.settings());
        let print = sandbox.run(env!("CARGO_BIN_EXE_deltaport")).line("client-config --client").arg(client);
        print.arg("--config").arg(config).args(["--registry".to_owned(), url])
    }

    /// Pulls by tag and by digest, each time on a machine that has nothing yet.
    fn pull(&self, names: &[&str], start: impl for<'a> Fn(&'a Sandbox) -> Box<dyn Machine + 'a>) {
        for reference in [":1".to_owned(), format!("@{}", self.image.manifest.digest)] {
            let sandbox = Sandbox::new();
            let machine = start(&sandbox);
            for name in names {
                let held = machine.pull(&format!("{name}/{REPOSITORY}{reference}"));
                assert_eq!(held, Held::of(&self.image), "{name} {reference}");
            }
        }
    }
}

/// The names that podman and containerd are told of.
const NAMES: [&str; 3] = ["docker.io", "registry-1.docker.io", "hub.example:5000"];

#[test]
fn podman_as_printed() {
    let setting = Setting::new();
    let site = Registry::with_settings(&setting.settings());
    setting.pull(&NAMES, |sandbox| {
        let printed = setting.print(sandbox, "podman", format!("http://{}", site.address())).ok();
        podman::configured(sandbox, sandbox.write("printed.conf", printed), None)
    });
}

#[test]
fn podman_as_written_for_tls() {
    let setting = Setting::new();
    let site = Registry::with_settings_and_tls(&setting.settings());
    setting.pull(&NAMES, |sandbox| {
        let print = setting.print(sandbox, "podman", format!("https://{}", site.address()));
        print.arg("--ca").arg(site.authority().join("ca.crt")).arg("--out").arg(sandbox.path("root")).ok();
        let written = sandbox.path("root/etc/containers");
        let authority = written.join("certs.d").join(site.address().to_string());
        podman::configured(sandbox, written.join("registries.conf.d/deltaport.conf"), Some(authority))
    });
}

#[test]
fn containerd_as_written() {
    let setting = Setting::new();
    let site = Registry::with_settings(&setting.settings());
    let mut names = NAMES.to_vec();
    names.push("index.docker.io");
    setting.pull(&names, |sandbox| {
        let print = setting.print(sandbox, "containerd", format!("http://{}", site.address()));
        print.arg("--out").arg(sandbox.path("root")).ok();
        containerd::configured(sandbox, sandbox.path("root/etc/containerd/certs.d"))
    });
}

#[test]
fn containerd_as_written_for_tls() {
    let setting = Setting::new();
    let site = Registry::with_settings_and_tls(&setting.settings());
    setting.pull(&NAMES, |sandbox| {
        let print = setting.print(sandbox, "containerd", format!("https://{}", site.address()));
        print.arg("--ca").arg(site.authority().join("ca.crt")).arg("--out").arg(sandbox.path("root")).ok();
        containerd::configured(sandbox, sandbox.path("root/etc/containerd/certs.d"))
    });
}

#[test]
fn docker_as_written() {
    let setting = Setting::new();
    let site = Registry::with_settings(&setting.settings());
    // It has no other mirrors than those of docker.io; the rest it finds by the path that the comment shows.
    let path = at(site.address(), "hub.example_5000");
    setting.pull(&["docker.io", &path], |sandbox| {
        let print = setting.print(sandbox, "docker", format!("http://{}", site.address()));
        let said = print.arg("--out").arg(sandbox.path("root")).ok();
        assert!(said.contains(&format!("docker pull {path}/NAME")), "{said}");
        let written = std::fs::read_to_string(sandbox.path("root/etc/docker/daemon.json")).unwrap();
        docker::configured(sandbox, &serde_json::from_str(&written).unwrap())
    });
}
