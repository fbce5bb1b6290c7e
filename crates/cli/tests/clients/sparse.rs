//! Clients behind a site that keeps one platform of an index: they pull theirs by the tag and by the digest of the index,
//! and go on when the upstream is gone.

use deltaport_testkit::clients::{Layout, Sandbox};
use serde_json::Value;

use crate::registry::{Registry, at};
use crate::through_site::{DEFAULT, NAMED, REPOSITORY, Start};
use crate::{containerd, docker, podman, skopeo};

fn one_platform(start: Start) {
    let mut upstream = Registry::open();
    let (index, images) = skopeo::two_architectures();
    let bench = Sandbox::new();
    let layout = Layout::new(bench.path("layout")).index("both", &index, &images);
    let target = skopeo::docker(upstream.address(), &format!("{REPOSITORY}:1"));
    skopeo::copy(&bench, &layout.reference("both"), &target).arg("--all").ok();
    let upstreams = [(NAMED, false), (DEFAULT, true)].map(|(host, default)| {
        let url = format!("http://{}", upstream.address());
        format!(
            "[[upstream]]\nhost = {host:?}\nurl = {url:?}\ndefault = {default}\nplatforms = [\"linux/amd64\"]\n"
        )
    });
    let site = Registry::with_settings(&upstreams.concat());
    let sandboxes = [Sandbox::new(), Sandbox::new()];
    for (number, sandbox) in sandboxes.iter().enumerate() {
        let machine = start(sandbox, site.address());
        for reference in [":1".to_owned(), format!("@{}", index.digest)] {
            let held = machine.pull(&format!("{}{reference}", machine.name()));
            assert_eq!(held.id, images[0].config.digest.to_string(), "{reference}");
        }
        // The second machine comes when there is only the site.
        if number == 0 {
            upstream.kill();
        }
    }
    // Which of its names the client meant it by is the client's affair.
    let shown = [format!("{NAMED}/{REPOSITORY}:1"), format!("{REPOSITORY}:1")].into_iter().find_map(|name| {
        let show = bench
            .run(env!("CARGO_BIN_EXE_deltaport"))
            .line("image show --json")
            .arg(at(site.address(), &name));
        let outcome = show.outcome();
        outcome.success.then(|| serde_json::from_str::<Value>(&outcome.stdout).expect("JSON"))
    });
    let root = shown.expect("the site has the index")["root"].take();
    assert_eq!(root["digest"], index.digest.to_string());
    let states: Vec<_> =
        root["children"].as_array().expect("children").iter().map(|child| &child["state"]).collect();
    assert_eq!(states, ["present", "by-policy"]);
}

#[test]
fn podman_pulls_its_platform() {
    one_platform(podman::machine);
}

#[test]
fn containerd_pulls_its_platform() {
    one_platform(containerd::machine);
}

#[test]
fn docker_pulls_its_platform() {
    one_platform(docker::machine);
}

#[test]
fn docker_with_a_mirror_pulls_its_platform() {
    one_platform(docker::mirrored);
}
