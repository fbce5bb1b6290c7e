//! What `deltaport client-config` prints for every client, compared to the byte with the files beside this one, and what
//! it refuses. That clients understand it is shown in `clients`.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// Every client, and the files that it has with a certificate of a private authority.
const CLIENTS: [(&str, &[&str]); 7] = [
    (
        "podman",
        &[
            "/etc/containers/registries.conf.d/deltaport.conf",
            "/etc/containers/certs.d/mirror.example/ca.crt",
        ],
    ),
    (
        "crio",
        &[
            "/etc/containers/registries.conf.d/deltaport.conf",
            "/etc/containers/certs.d/mirror.example/ca.crt",
        ],
    ),
    (
        "containerd",
        &[
            "/etc/containerd/certs.d/docker.io/hosts.toml",
            "/etc/containerd/certs.d/index.docker.io/hosts.toml",
            "/etc/containerd/certs.d/registry-1.docker.io/hosts.toml",
            "/etc/containerd/certs.d/quay.io/hosts.toml",
            "/etc/containerd/certs.d/mirror.example/ca.crt",
        ],
    ),
    (
        "docker",
        &[
            "/etc/docker/daemon.json",
            "/etc/docker/certs.d/docker.io/hosts.toml",
            "/etc/docker/certs.d/index.docker.io/hosts.toml",
            "/etc/docker/certs.d/registry-1.docker.io/hosts.toml",
            "/etc/docker/certs.d/quay.io/hosts.toml",
            "/etc/docker/certs.d/mirror.example/ca.crt",
            "/etc/docker/certs.d/docker.mirror.example/ca.crt",
        ],
    ),
    ("k3s", &["/etc/rancher/k3s/registries.yaml", "/etc/rancher/k3s/deltaport-ca.crt"]),
    ("talos", &["deltaport-talos.yaml"]),
    ("openshift", &["deltaport-openshift.yaml"]),
];

/// Plain HTTP, a plain name is Docker Hub's, and an upstream has a port.
const PLAIN: &str = r#"
[[upstream]]
host = "docker.io"
url = "https://registry-1.docker.io"
default = true

[[upstream]]
host = "hub.example:5000"
url = "http://hub.example:5000"
"#;

/// TLS, Docker Hub has a name of its own, and one upstream is another's mirror.
const SECURE: &str = r#"
listen = "0.0.0.0:443"

[tls]
certificate = "mirror.crt"
key = "mirror.key"

[[upstream]]
host = "docker.io"
url = "https://hub.example"
hosts = ["docker.mirror.example"]

[[upstream]]
host = "quay.io"
url = "https://quay.io"
"#;

const CA: &str = "-----BEGIN CERTIFICATE-----\nTm90IGEgY2VydGlmaWNhdGUsIGJ1dA==\n-----END CERTIFICATE-----\n";

/// A registry's configuration and the certificate of its authority, in a directory of their own.
struct Site(TempDir);

impl Site {
    fn new(toml: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("deltaport.toml"), toml).unwrap();
        fs::write(directory.path().join("ca.pem"), CA).unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, client: &str, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_deltaport"))
            .current_dir(self.0.path())
            .args(["client-config", "--config", "deltaport.toml", "--client", client])
            .args(more)
            .output()
            .unwrap()
    }

    #[track_caller]
    fn printed(&self, client: &str, more: &[&str]) -> String {
        let output = self.run(client, more);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says when it refuses.
    #[track_caller]
    fn refused(&self, more: &[&str]) -> String {
        let output = self.run("podman", more);
        assert!(!output.status.success() && output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    }
}

fn plain() -> (Site, &'static [&'static str]) {
    (Site::new(PLAIN), &["--registry", "http://mirror.example:5000"])
}

fn secure() -> (Site, &'static [&'static str]) {
    (Site::new(SECURE), &["--registry", "https://mirror.example", "--ca", "ca.pem"])
}

#[test]
fn it_prints_what_it_always_printed() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client_config");
    for ((site, arguments), kind) in [(plain(), "plain"), (secure(), "secure")] {
        for (client, _) in CLIENTS {
            let printed = site.printed(client, arguments);
            let expected = directory.join(kind).join(client);
            // To accept a change on purpose, and to look at it in the diff.
            if std::env::var_os("DELTAPORT_ACCEPT").is_some() {
                fs::write(&expected, &printed).unwrap();
            }
            let expected = fs::read_to_string(&expected).unwrap_or_default();
            assert_eq!(
                printed, expected,
                "{kind} {client}; if that is meant, run it with DELTAPORT_ACCEPT=1"
            );
            let mut lines = printed.lines();
            assert!(lines.by_ref().take(3).all(|line| line.starts_with("# ")), "{kind} {client}");
        }
    }
}

#[test]
fn files_are_the_same_in_json_and_below_a_directory() {
    let (site, arguments) = secure();
    for (client, paths) in CLIENTS {
        let json = site.printed(client, &[arguments, &["--json"]].concat());
        let json: Value = serde_json::from_str(&json).unwrap();
        let files = json["files"].as_array().unwrap();
        let named: Vec<_> = files.iter().map(|file| file["path"].as_str().unwrap()).collect();
        assert_eq!(named, paths, "{client}");

        for _again in 0..2 {
            let said = site.printed(client, &[arguments, &["--out", client]].concat());
            for file in files {
                let path = file["path"].as_str().unwrap();
                let written = site.path(client).join(path.trim_start_matches('/'));
                assert_eq!(
                    fs::read_to_string(written).unwrap(),
                    file["content"].as_str().unwrap(),
                    "{client} {path}"
                );
                assert!(said.contains(&format!("# {path}\n")), "{said}");
            }
        }
    }
}

#[test]
fn files_can_be_read_by_what_reads_such_files() {
    for (site, arguments) in [plain(), secure()] {
        for (client, _) in CLIENTS {
            let json = site.printed(client, &[arguments, &["--json"]].concat());
            let json: Value = serde_json::from_str(&json).unwrap();
            for file in json["files"].as_array().unwrap() {
                let (path, content) = (file["path"].as_str().unwrap(), file["content"].as_str().unwrap());
                match path.rsplit('.').next() {
                    Some("toml" | "conf") => drop(content.parse::<toml::Table>().unwrap()),
                    Some("json") => drop(serde_json::from_str::<Value>(content).unwrap()),
                    Some("crt") => assert_eq!(content, CA),
                    Some("yaml") => assert!(!content.contains('\t'), "{client} {path}"),
                    _ => panic!("{client} has {path}"),
                }
            }
        }
    }
}

#[test]
fn without_a_configuration_the_public_registries_are_meant_and_this_machine() {
    let output = Command::new(env!("CARGO_BIN_EXE_deltaport"))
        .args(["client-config", "--client", "podman"])
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let conf: toml::Table = printed.parse().unwrap();
    let registries = conf["registry"].as_array().unwrap();
    let mirror = |name: &str| {
        let registry =
            registries.iter().find(|registry| registry["location"].as_str() == Some(name)).unwrap();
        registry["mirror"][0]["location"].as_str().unwrap().to_owned()
    };
    for name in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
        assert_eq!(mirror(name), "127.0.0.1:5000/docker.io", "{name}");
    }
    assert_eq!(mirror("registry.k8s.io"), "127.0.0.1:5000/registry.k8s.io");
    assert!(printed.contains("For those on other machines, say --registry."), "{printed}");
}

#[test]
fn docker_is_told_of_a_mirror_only_where_there_is_one() {
    let site = Site::new("[[upstream]]\nhost = \"docker.io\"\nurl = \"https://registry-1.docker.io\"\n");
    let printed = site.printed("docker", &["--registry", "https://mirror.example"]);
    assert!(!printed.contains("registry-mirrors") && !printed.contains("daemon.json"), "{printed}");
    assert!(printed.contains("needs an [[upstream]] docker.io with `default = true`"), "{printed}");
    assert!(printed.contains("#   docker pull mirror.example/docker.io/NAME\n"), "{printed}");
}

#[test]
fn an_upstream_counts_once_and_in_place_of_a_public_one() {
    let hub = "url = \"https://hub.example\"\n";
    let site = Site::new(&format!(
        "public_upstreams = true\n[[upstream]]\nhost = \"registry-1.docker.io\"\n{hub}\
         [[upstream]]\nhost = \"index.docker.io\"\n{hub}[[upstream]]\nhost = \"quay.io\"\n{hub}"
    ));
    let printed = site.printed("podman", &[]);
    let times = |line: &str| printed.lines().filter(|other| *other == line).count();
    for name in ["docker.io", "index.docker.io", "registry-1.docker.io", "quay.io", "ghcr.io"] {
        assert_eq!(times(&format!("location = \"{name}\"")), 1, "{printed}");
    }
}

#[test]
fn what_clients_could_not_use_is_refused() {
    let secure = |more: &str| Site::new(&format!("{more}{SECURE}"));
    for (site, arguments, says) in [
        (secure(""), &[][..], "say it with --registry https://NAME:443"),
        (
            Site::new("listen = \"0.0.0.0:5000\"\ninsecure_http = true"),
            &[],
            "say with --registry http://NAME:PORT",
        ),
        (Site::new("listen = \"127.0.0.1:0\""), &[], "say with --registry http://NAME:PORT"),
        (Site::new("public_upstreams = false"), &[], "Add an [[upstream]]"),
        (Site::new(""), &["--ca", "ca.pem"], "--ca is for https"),
        (Site::new(""), &["--registry", "https://mirror"], "such as mirror:443"),
        (Site::new(""), &["--registry", "mirror.example"], "it must begin with https://"),
        (secure(""), &["--registry", "https://mirror.example", "--ca", "deltaport.toml"], "no certificate"),
        (secure("no = 1\n"), &["--registry", "https://mirror.example"], "unknown key `no`"),
    ] {
        let said = site.refused(arguments);
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn no_private_key_goes_to_clients() {
    let (site, arguments) = secure();
    fs::write(site.path("ca.pem"), format!("{CA}-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n")).unwrap();
    let said = site.refused(arguments);
    assert!(said.contains("there is a private key in ca.pem") && !said.contains("c2VjcmV0"), "{said}");
}

#[test]
fn what_is_there_already_is_not_replaced() {
    let (site, arguments) = secure();
    let conf = "out/etc/containers/registries.conf.d/deltaport.conf";
    let authority = "out/etc/containers/certs.d/mirror.example/ca.crt";
    fs::create_dir_all(site.path(authority).parent().unwrap()).unwrap();
    fs::write(site.path(authority), "somebody's").unwrap();
    let said = site.refused(&[arguments, &["--out", "out"]].concat());
    assert!(said.contains(authority) && said.contains("Nothing was written"), "{said}");
    assert_eq!(fs::read_to_string(site.path(authority)).unwrap(), "somebody's");
    assert!(!site.path(conf).exists(), "all or nothing");
}
