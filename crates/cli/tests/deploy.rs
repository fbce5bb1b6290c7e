//! What stands in deploy/ fits together: files parse, names and ports meet, images are pinned, nginx and deltaport take
//! their configurations. Whether it works is for the tests of `scale`, which run the same nginx.conf.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use deltaport_server::Network;
use deltaport_testkit::clients::require;
use serde_yaml_ng::Value;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn text(name: &str) -> String {
    fs::read_to_string(deploy().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn yaml(name: &str) -> Value {
    serde_yaml_ng::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The text at a path of keys and indices, such as `spec.containers.0.image`.
fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, part| {
        let found = match part.parse::<usize>() {
            Ok(index) => value.get(index),
            Err(_) => value.get(part),
        };
        found.unwrap_or_else(|| panic!("there is no {path} (at {part})"))
    })
}

fn string(value: &Value, path: &str) -> String {
    let found = at(value, path);
    found.as_str().map_or_else(|| serde_yaml_ng::to_string(found).unwrap().trim().to_owned(), str::to_owned)
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_mapping().unwrap().keys().map(|key| key.as_str().unwrap().to_owned()).collect()
}

/// Panics unless an image has a tag that says a version to the last part.
fn assert_pinned(image: &str) {
    let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
    let version = tag.trim_start_matches('v').split('-').next().unwrap();
    let parts = version.split('.').filter(|part| part.parse::<u32>().is_ok()).count();
    assert!(parts >= 2 && version.split('.').count() == parts, "{image} is not pinned to a version");
}

fn toml(text: &str) -> toml::Table {
    text.parse().unwrap()
}

/// Panics with what it says, unless `deltaport config check --offline` takes the configuration.
fn assert_good(configuration: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.toml");
    fs::write(&path, configuration).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_deltaport"));
    let output = check.args(["config", "check", "--offline", "--config"]).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn configurations_are_good_and_hold_no_secrets() {
    let of_kubernetes = yaml("kubernetes/configmap.yaml")["data"]["hub.toml"].as_str().unwrap().to_owned();
    for configuration in [text("hub.toml"), of_kubernetes] {
        assert_good(&configuration);
        let values = toml(&configuration).to_string();
        assert!(!values.contains("password") && !values.contains("secret"), "{values}");
    }
}

#[test]
fn the_parts_of_the_compose_file_find_each_other() {
    let compose = yaml("compose.yaml");
    let services = at(&compose, "services");
    let names = keys(services);
    for name in &names {
        let service = at(services, name);
        assert_pinned(&string(service, "image"));
        at(service, "healthcheck.test.0");
        at(service, "restart");
        for needed in service.get("depends_on").map(keys).unwrap_or_default() {
            assert!(names.contains(&needed), "{name} depends on {needed}, which is not there");
            at(services, &format!("{needed}.healthcheck"));
        }
        for volume in service.get("volumes").and_then(Value::as_sequence).into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            match source.strip_prefix("./") {
                Some(file) => {
                    assert!(deploy().join(file).is_file(), "{name} mounts {file}, which is not there")
                }
                None => {
                    assert!(source.starts_with('/') || compose["volumes"].get(source).is_some(), "{source}")
                }
            }
        }
    }

    let hubs: Vec<_> = names.iter().filter(|name| name.starts_with("hub-")).collect();
    assert_eq!(hubs.len(), 3);
    for hub in &hubs {
        assert_eq!(services[hub.as_str()], services["hub-1"], "{hub} is not as the others");
    }
    let nginx = text("nginx.conf");
    let balanced: Vec<_> = nginx
        .lines()
        .filter_map(|line| line.trim().strip_prefix("server ")?.split([':', ' ']).next())
        .collect();
    assert_eq!(balanced, ["hub-1", "hub-2", "hub-3", "{"]);

    let hub = toml(&text("hub.toml"));
    let balancer = string(services, "balancer.networks.default.ipv4_address");
    assert_eq!(hub["trusted_proxies"].as_array().unwrap(), &[toml::Value::from(balancer.as_str())]);
    let network: Network = string(&compose, "networks.default.ipam.config.0.subnet").parse().unwrap();
    assert!(network.contains(balancer.parse().unwrap()), "{network} {balancer}");
    let storage = &hub["storage"];
    let listen = hub["listen"].as_str().unwrap();
    assert!(nginx.contains(&format!("hub-1:{}", listen.rsplit_once(':').unwrap().1)), "{listen}");
    let database = &services["database"]["environment"];
    let (user, name) = (string(database, "POSTGRES_USER"), string(database, "POSTGRES_DB"));
    assert_eq!(storage["metadata"].as_str().unwrap(), format!("postgres://{user}@database/{name}"));
    let bucket = string(services, "objects.environment.GARAGE_DEFAULT_BUCKET");
    assert!(storage["blobs"].as_str().unwrap().starts_with(&format!("s3://{bucket}/")));
    let garage = toml(&text("garage.toml"));
    assert_eq!(storage["s3"]["region"], garage["s3_api"]["s3_region"]);
    let port = garage["s3_api"]["api_bind_addr"].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
    assert_eq!(storage["s3"]["endpoint"].as_str().unwrap(), format!("http://objects:{port}"));

    let example = text("example.env");
    let known: BTreeSet<_> =
        example.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    let compose = text("compose.yaml");
    let used: BTreeSet<_> = compose.split("${").skip(1).map(|rest| rest.split(':').next().unwrap()).collect();
    assert_eq!(used, known, "compose.yaml and example.env");
}

#[test]
fn the_manifests_for_kubernetes_find_each_other() {
    let listed = yaml("kubernetes/kustomization.yaml");
    let listed: BTreeSet<_> = at(&listed, "resources")
        .as_sequence()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    let there = fs::read_dir(deploy().join("kubernetes")).unwrap();
    let there: BTreeSet<_> = there.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let apart: BTreeSet<_> = there.difference(&listed).map(String::as_str).collect();
    assert_eq!(apart, BTreeSet::from(["kustomization.yaml", "secret.example.yaml"]));
    let document = |name: &str| yaml(&format!("kubernetes/{name}.yaml"));
    for name in listed.iter().map(|name| name.trim_end_matches(".yaml")).filter(|name| *name != "namespace") {
        assert_eq!(string(&document(name), "metadata.namespace"), "deltaport", "{name}");
    }

    let deployment = document("deployment");
    let pod = at(&deployment, "spec.template.spec");
    let hub = at(pod, "containers.0");
    assert_pinned(&string(hub, "image"));
    let labels = at(&deployment, "spec.template.metadata.labels");
    let selectors = [
        (&deployment, "spec.selector.matchLabels"),
        (&document("service"), "spec.selector"),
        (&document("poddisruptionbudget"), "spec.selector.matchLabels"),
    ];
    for (document, path) in selectors {
        assert_eq!(at(document, path), labels, "{path}");
    }
    let policy = document("networkpolicy");
    for (label, value) in at(&policy, "spec.podSelector.matchLabels").as_mapping().unwrap() {
        assert_eq!(labels.get(label), Some(value), "networkpolicy");
    }
    assert!(at(&deployment, "spec.replicas").as_u64().unwrap() >= 3);

    // One name of a port from the container to the ingress.
    let port = string(hub, "ports.0.name");
    for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
        assert_eq!(string(hub, &format!("{probe}.httpGet.port")), port);
    }
    assert_eq!(string(hub, "readinessProbe.httpGet.path"), "/readyz");
    assert_eq!(string(hub, "livenessProbe.httpGet.path"), "/healthz");
    let service = document("service");
    assert_eq!(string(&service, "spec.ports.0.targetPort"), port);
    assert!(service["spec"].get("sessionAffinity").is_none());
    let backend = document("ingress");
    let backend = at(&backend, "spec.rules.0.http.paths.0.backend.service");
    assert_eq!(string(backend, "name"), string(&service, "metadata.name"));
    assert_eq!(string(backend, "port.name"), string(&service, "spec.ports.0.name"));
    assert_eq!(string(&policy, "spec.ingress.0.ports.0.port"), port);

    // The configuration, and what it needs.
    let configuration = document("configmap");
    let text = configuration["data"]["hub.toml"].as_str().unwrap();
    let settings = toml(text);
    let listen = settings["listen"].as_str().unwrap();
    assert!(listen.ends_with(&format!(":{}", string(hub, "ports.0.containerPort"))), "{listen}");
    assert_eq!(string(pod, "volumes.0.configMap.name"), string(&configuration, "metadata.name"));
    assert_eq!(string(hub, "args.2"), format!("{}/hub.toml", string(hub, "volumeMounts.0.mountPath")));
    assert_eq!(string(hub, "volumeMounts.1.mountPath"), settings["data"].as_str().unwrap());
    let secret = document("secret.example");
    assert_eq!(string(hub, "envFrom.0.secretRef.name"), string(&secret, "metadata.name"));
    let expected = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD"];
    assert_eq!(keys(at(&secret, "stringData")), expected.map(str::to_owned).into());

    // Who stops has the time that it needs, and who writes has somewhere to.
    let seconds = |text: &str| text.trim_end_matches('s').parse::<u64>().unwrap();
    let grace = at(pod, "terminationGracePeriodSeconds").as_u64().unwrap();
    let waits = seconds(&string(hub, "lifecycle.preStop.exec.command.1"));
    assert!(grace > waits + seconds(settings["shutdown_grace"].as_str().unwrap()), "{grace}");
    assert!(at(hub, "securityContext.readOnlyRootFilesystem").as_bool().unwrap());
    assert!(at(pod, "securityContext.runAsNonRoot").as_bool().unwrap());
    let gib = |text: &str| text.trim_end_matches("Gi").trim_end_matches("GiB").parse::<u64>().unwrap();
    let scratch = gib(settings["storage"]["scratch"].as_str().unwrap());
    let room = gib(&string(pod, "volumes.1.emptyDir.sizeLimit"));
    assert!(scratch < room && room < gib(&string(hub, "resources.limits.ephemeral-storage")));
    let named: BTreeSet<_> =
        at(pod, "volumes").as_sequence().unwrap().iter().map(|volume| string(volume, "name")).collect();
    let mounted: BTreeSet<_> =
        at(hub, "volumeMounts").as_sequence().unwrap().iter().map(|mount| string(mount, "name")).collect();
    assert_eq!(named, mounted);
}

#[test]
fn nginx_takes_its_configuration() {
    require("/usr/sbin/nginx");
    let mut configuration = text("nginx.conf");
    for hub in ["hub-1", "hub-2", "hub-3"] {
        configuration = configuration.replace(hub, "127.0.0.1");
    }
    let directory = tempfile::tempdir().unwrap();
    let pid = format!("pid {};", directory.path().join("pid").display());
    let path = directory.path().join("nginx.conf");
    fs::write(&path, configuration.replace("pid /tmp/nginx.pid;", &pid)).unwrap();
    let mut nginx = Command::new("/usr/sbin/nginx");
    nginx.args(["-t", "-q", "-e", "stderr", "-p"]).arg(directory.path()).arg("-c").arg(&path);
    let output = nginx.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn images_that_are_built_begin_with_pinned_ones() {
    let containerfile = text("Containerfile");
    let bases: Vec<_> =
        containerfile.lines().filter_map(|line| line.strip_prefix("FROM ")?.split(' ').next()).collect();
    assert_eq!(bases.len(), 2);
    bases.into_iter().for_each(assert_pinned);
    let user = containerfile.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    let pod = yaml("kubernetes/deployment.yaml");
    let pod = at(&pod, "spec.template.spec.securityContext");
    assert_eq!(user, format!("{}:{}", string(pod, "runAsUser"), string(pod, "runAsGroup")));
}
