//! buildah: builds, pushes, and pulls into another storage.

use std::time::Duration;

use deltaport_testkit::clients::{Run, Sandbox};
use deltaport_testkit::sample;

use crate::registry::{PASSWORD, Registry, USER, at};

fn buildah<'a>(sandbox: &'a Sandbox, store: &str) -> Run<'a> {
    sandbox
        .run("/usr/bin/buildah")
        .limit(Duration::from_secs(240))
        .arg("--root")
        .arg(sandbox.path(store))
        .arg("--runroot")
        .arg(sandbox.path(&format!("{store}.run")))
        .line("--storage-driver vfs")
}

/// Starts an image for `architecture` from nothing, and returns the working container.
fn container(sandbox: &Sandbox, store: &str, architecture: &str) -> String {
    let archive = sandbox.write("root.tar", sample::tar(&sample::files(41, 20, 5000)));
    let container = buildah(sandbox, store).line("from scratch").ok();
    buildah(sandbox, store).line("add --quiet").arg(&container).arg(archive).arg("/").ok();
    buildah(sandbox, store).line("config --os linux --arch").args([architecture, &container]).ok();
    container
}

#[test]
fn pushes_and_pulls_what_it_built() {
    let (registry, sandbox) = (Registry::open(), Sandbox::new());
    let container = container(&sandbox, "builder", "amd64");
    for format in ["oci", "docker"] {
        let reference = at(registry.address(), &format!("built:{format}"));
        let built =
            buildah(&sandbox, "builder").line("commit --quiet --format").args([format, &container]).ok();
        buildah(&sandbox, "builder")
            .line("push --quiet --tls-verify=false --digestfile")
            .arg(sandbox.path("digest"))
            .args([&built, &format!("docker://{reference}")])
            .ok();
        let digest = std::fs::read_to_string(sandbox.path("digest")).unwrap();
        let by_digest = at(registry.address(), &format!("built@{digest}"));
        for (store, reference) in [("by-tag", &reference), ("by-digest", &by_digest)] {
            let id = buildah(&sandbox, store).line("pull --quiet --tls-verify=false").arg(reference).ok();
            assert_eq!(id, built, "{format} {store}");
        }
    }
}

#[test]
fn pushes_an_index() {
    let (registry, sandbox) = (Registry::open(), Sandbox::new());
    buildah(&sandbox, "builder").line("manifest create both").ok();
    let built = ["amd64", "arm64"].map(|architecture| {
        let container = container(&sandbox, "builder", architecture);
        buildah(&sandbox, "builder").line("commit --quiet --manifest both").arg(container).ok()
    });
    let reference = at(registry.address(), "multi:1");
    buildah(&sandbox, "builder")
        .line("manifest push --quiet --all --tls-verify=false both")
        .arg(format!("docker://{reference}"))
        .ok();
    for (architecture, built) in ["amd64", "arm64"].iter().zip(&built) {
        let pull = buildah(&sandbox, architecture).line("pull --quiet --tls-verify=false --arch");
        assert_eq!(&pull.args([architecture, reference.as_str()]).ok(), built);
    }
}

#[test]
fn logs_in_over_tls() {
    let (registry, sandbox) = (Registry::locked(), Sandbox::new());
    let address = registry.address().to_string();
    let reference = at(registry.address(), "app:1");
    let buildah = |verb: &str| {
        buildah(&sandbox, "store").arg(verb).arg(format!("--cert-dir={}", registry.authority().display()))
    };
    let container = container(&sandbox, "store", "amd64");
    let built = self::buildah(&sandbox, "store").line("commit --quiet").arg(container).ok();
    let push =
        |options: &[String]| buildah("push").args(options).args([&built, &format!("docker://{reference}")]);
    let user = |password: &str| ["--creds".to_owned(), format!("{USER}:{password}")];

    assert!(push(&[]).refused().contains("unauthorized"));
    push(&user("wrong")).refused();
    push(&user(PASSWORD)).ok();
    buildah("login").args(["-u", USER, "-p", "wrong", &address]).refused();
    buildah("login").args(["-u", USER, "-p", PASSWORD, &address]).ok();
    assert_eq!(buildah("pull").args(["--quiet", &reference]).ok(), built);
    self::buildah(&sandbox, "store").args(["logout", &address]).ok();
    assert!(buildah("pull").args(["--policy", "always", &reference]).refused().contains("unauthorized"));
}
