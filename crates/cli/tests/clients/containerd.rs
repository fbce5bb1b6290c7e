//! containerd, driven by `ctr`: with plain HTTP, as a mirror of another name (`ns`), and with TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use deltaport_testkit::clients::{Daemon, Layout, Relay, Run, Sandbox};
use deltaport_testkit::sample::{self, Image};
use serde_json::Value;

use crate::registry::{PASSWORD, Registry, USER, at};
use crate::skopeo;
use crate::through_site::{Held, Machine, NAMED, REPOSITORY};

/// What would look for kernel modules, other daemons or directories of the system, and is of no use here.
const DISABLED: [&str; 8] = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
];

/// The snapshotter that copies files and so works on every file system.
const SNAPSHOTTER: [&str; 2] = ["--snapshotter", "native"];

struct Containerd<'a> {
    sandbox: &'a Sandbox,
    _daemon: Daemon,
}

impl<'a> Containerd<'a> {
    fn start(sandbox: &'a Sandbox) -> Self {
        let path = |name: &str| sandbox.path(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = {DISABLED:?}\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n[debug]\nlevel = \"warn\"\n",
            path("ctd"),
            path("ctd.state"),
            path("ctd.sock"),
            path("ctd.ttrpc"),
        );
        let config = sandbox.write("ctd.toml", config);
        let mut daemon =
            sandbox.start(sandbox.run("/usr/bin/containerd").arg("--config").arg(config), "ctd.log");
        let probe = ctr(sandbox).arg("version");
        daemon.wait_until(|| probe.outcome().success).unwrap_or_else(|why| panic!("{why}"));
        Self { sandbox, _daemon: daemon }
    }

    fn images(&self, verb: &str) -> Run<'_> {
        ctr(self.sandbox).args(["images", verb])
    }

    /// The digest of what it holds as `reference`: of the index, if it is one.
    fn digest(&self, reference: &str) -> String {
        let list = self.images("ls").arg(format!("name=={reference}")).ok();
        let row = list.lines().nth(1).unwrap_or_else(|| panic!("{reference} is not there:\n{list}"));
        row.split_whitespace().nth(2).expect("REF TYPE DIGEST").to_owned()
    }

    /// A manifest that it holds.
    fn fields(&self, digest: &str) -> Value {
        let text = ctr(self.sandbox).args(["content", "get", digest]).ok();
        serde_json::from_str(&text).expect("a manifest is JSON")
    }

    /// Pulls `reference` with what the directory `hosts` says.
    fn pull_by(&self, hosts: &Path, options: &[&str], reference: &str) -> Held {
        let pull = self.images("pull").args(options).args(SNAPSHOTTER);
        pull.arg("--hosts-dir").arg(hosts).arg(reference).ok();
        let manifest = self.digest(reference);
        let fields = self.fields(&manifest);
        let child = fields["manifests"].as_array().map(|children| {
            let for_it = |child: &&Value| child["platform"]["architecture"] == "amd64";
            let child = children.iter().find(for_it).expect("there is something for this machine");
            self.fields(child["digest"].as_str().expect("it has one"))
        });
        let image = child.unwrap_or(fields);
        Held { manifest, id: image["config"]["digest"].as_str().expect("it names one").to_owned() }
    }

    /// The files in the image `reference` are those of `layer_seed`'s layer.
    fn assert_unpacks(&self, reference: &str, path: &str, content: &str) {
        let target = self.sandbox.path("mounted");
        std::fs::create_dir(&target).expect("mounted once");
        self.images("mount").args(SNAPSHOTTER).arg(reference).arg(&target).ok();
        assert_eq!(self.sandbox.run("/bin/cat").arg(target.join(path)).ok(), content);
        self.images("unmount").arg(&target).ok();
    }
}

fn ctr(sandbox: &Sandbox) -> Run<'_> {
    sandbox.run("/usr/bin/ctr").arg("--address").arg(sandbox.path("ctd.sock")).line("--namespace test")
}

/// containerd on a machine that knows the site as the place for what it calls [`NAMED`], and says so with every request.
pub(crate) fn machine(sandbox: &Sandbox, site: SocketAddr) -> Box<dyn Machine + '_> {
    mirror(sandbox, NAMED, site);
    Box::new(Containerd::start(sandbox))
}

impl Machine for Containerd<'_> {
    fn name(&self) -> String {
        format!("{NAMED}/{REPOSITORY}")
    }

    fn pull(&self, reference: &str) -> Held {
        self.pull_by(&self.sandbox.path("hosts"), &["--plain-http"], reference)
    }
}

/// containerd on a machine where the directory `hosts` says how every registry is reached, and nothing else does.
pub(crate) fn configured(sandbox: &Sandbox, hosts: PathBuf) -> Box<dyn Machine + '_> {
    Box::new(Configured { containerd: Containerd::start(sandbox), hosts })
}

struct Configured<'a> {
    containerd: Containerd<'a>,
    hosts: PathBuf,
}

impl Machine for Configured<'_> {
    fn name(&self) -> String {
        self.containerd.name()
    }

    fn pull(&self, reference: &str) -> Held {
        self.containerd.pull_by(&self.hosts, &[], reference)
    }
}

/// Makes the registry at `address` the mirror of `host`, which does not exist.
fn mirror(sandbox: &Sandbox, host: &str, address: SocketAddr) {
    let config = format!(
        "server = \"https://registry.invalid\"\n[host.\"http://{address}\"]\n\
         capabilities = [\"pull\", \"resolve\"]\n"
    );
    hosts(sandbox, host, &config);
}

/// Tells ctr, with `--hosts-dir`, how to reach the registry called `host`.
fn hosts(sandbox: &Sandbox, host: &str, config: &str) {
    sandbox.write(&format!("hosts/{host}/hosts.toml"), config);
}

#[test]
fn pulls_and_pushes() {
    let (registry, sandbox) = (Registry::open(), Sandbox::new());
    let address = registry.address();
    let image = Image::of("amd64", vec![sample::layer_of(&[sample::File::new("etc/motd", "hello")])]);
    skopeo::push(&sandbox, address, "team/app:1", &image);
    let containerd = Containerd::start(&sandbox);
    let by_tag = at(address, "team/app:1");
    let by_digest = at(address, &format!("team/app@{}", image.manifest.digest));
    for reference in [&by_tag, &by_digest] {
        containerd.images("pull").arg("--plain-http").args(SNAPSHOTTER).arg(reference).ok();
        assert_eq!(containerd.digest(reference), image.manifest.digest.to_string());
    }
    containerd.assert_unpacks(&by_tag, "etc/motd", "hello");

    containerd.images("push").arg("--plain-http").args([&at(address, "pushed/app:2"), &by_tag]).ok();
    skopeo::assert_pulls(&sandbox, address, "pushed/app:2", "pushed", &image);
    containerd.images("pull").arg("--plain-http").arg(at(address, "team/app:none")).refused();
}

#[test]
fn keeps_the_digest_of_an_index() {
    let (registry, sandbox) = (Registry::open(), Sandbox::new());
    let address = registry.address();
    let (index, images) = skopeo::two_architectures();
    let layout = Layout::new(sandbox.path("layout")).index("both", &index, &images);
    let (source, target) = (layout.reference("both"), skopeo::docker(address, "multi:1"));
    skopeo::copy(&sandbox, &source, &target).arg("--all").ok();

    let containerd = Containerd::start(&sandbox);
    let reference = at(address, "multi:1");
    ctr(&sandbox).line("content fetch --plain-http --all-platforms").arg(&reference).ok();
    assert_eq!(containerd.digest(&reference), index.digest.to_string());
    containerd.images("push").arg("--plain-http").args([&at(address, "pushed:1"), &reference]).ok();
    let name = skopeo::docker(address, "pushed:1");
    let raw = skopeo::skopeo(&sandbox).line("inspect --raw --tls-verify=false").arg(name).ok();
    assert_eq!(raw.as_bytes(), &index.bytes[..]);
}

#[test]
fn uses_it_as_a_mirror_of_another_name() {
    let (registry, sandbox) = (Registry::without_upstreams(), Sandbox::new());
    let relay = Relay::to(registry.address());
    let image = Image::small(61);
    skopeo::push(&sandbox, registry.address(), "library/tiny:1", &image);
    mirror(&sandbox, "docker.io", relay.address());
    let containerd = Containerd::start(&sandbox);
    let reference = "docker.io/library/tiny:1";
    containerd
        .images("pull")
        .arg("--hosts-dir")
        .arg(sandbox.path("hosts"))
        .args(SNAPSHOTTER)
        .arg(reference)
        .ok();
    assert_eq!(containerd.digest(reference), image.manifest.digest.to_string());
    let asked = relay.requests();
    assert!(
        asked.iter().any(|line| line.contains("/v2/library/tiny/") && line.contains("ns=docker.io")),
        "{asked:#?}"
    );
}

#[test]
fn logs_in_over_tls() {
    logs_in(&Registry::locked());
}

#[test]
fn logs_in_with_access_tokens() {
    let registry = Registry::locked_with_tokens();
    logs_in(&registry);
    let posted = "method=\"POST\" path=\"/token\" route=\"token\" status=200";
    assert!(registry.log().contains(posted), "no token was taken as OAuth2 has it");
}

fn logs_in(registry: &Registry) {
    let sandbox = Sandbox::new();
    let address = registry.address().to_string();
    let image = Image::small(62);
    let layout = Layout::new(sandbox.path("layout")).image("t", &image);
    skopeo::skopeo(&sandbox)
        .arg("copy")
        .arg(format!("--dest-cert-dir={}", registry.authority().display()))
        .args(["--dest-creds", &format!("{USER}:{PASSWORD}")])
        .args([layout.reference("t"), skopeo::docker(registry.address(), "app:1")])
        .ok();
    let authority = registry.authority().join("ca.crt");
    let config = format!(
        "server = \"https://{address}\"\n[host.\"https://{address}\"]\n\
         capabilities = [\"pull\", \"resolve\", \"push\"]\nca = {:?}\n",
        authority.display().to_string()
    );
    hosts(&sandbox, &address, &config);
    let containerd = Containerd::start(&sandbox);
    let reference = at(registry.address(), "app:1");
    let with = |verb: &str| containerd.images(verb).arg("--hosts-dir").arg(sandbox.path("hosts"));
    let user = |password: &str| ["-u".to_owned(), format!("{USER}:{password}")];
    with("pull").args(SNAPSHOTTER).arg(&reference).refused();
    with("pull").args(SNAPSHOTTER).args(user("wrong")).arg(&reference).refused();
    with("pull").args(SNAPSHOTTER).args(user(PASSWORD)).arg(&reference).ok();
    assert_eq!(containerd.digest(&reference), image.manifest.digest.to_string());
    with("push").args(user("wrong")).args([&at(registry.address(), "app:2"), &reference]).refused();
    with("push").args(user(PASSWORD)).args([&at(registry.address(), "app:2"), &reference]).ok();
}
