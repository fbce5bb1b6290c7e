//! containerd and Docker: a hosts.toml for each registry (containerd's docs/hosts.md), and Docker's daemon.json.
//!
//! containerd asks the hosts of a registry one after the other, for each object anew, and tells those that are not the
//! registry itself with `ns` which one it means. Docker does the same with the containerd image store. With its older
//! one it knows mirrors of Docker Hub only, and asks them for plain names.

use deltaport_registry::upstream::DOCKER;
use serde_json::json;

use super::{File, Mirror, Source, explain_first};

pub(super) fn containerd(mirror: &Mirror) -> Vec<File> {
    const ROOT: &str = "/etc/containerd/certs.d";
    let mut files = hosts(mirror, ROOT);
    if !mirror.url.secure {
        let path = format!("{ROOT}/{}/hosts.toml", mirror.url.authority());
        let about = vec!["What is the mirror's own.".to_owned()];
        files.push(File::new(path, about, format!("server = \"{}\"\n", mirror.url)));
    }
    let mut about = mirror.about("containerd");
    about.extend([
        "Nothing has to be restarted, if config_path is set in /etc/containerd/config.toml. If it was not:"
            .to_owned(),
        "  containerd 2: [plugins.\"io.containerd.cri.v1.images\".registry]".to_owned(),
        "  containerd 1: [plugins.\"io.containerd.grpc.v1.cri\".registry]".to_owned(),
        format!("                  config_path = \"{ROOT}\""),
        "and then: systemctl restart containerd. ctr wants to be told: ctr images pull --hosts-dir"
            .to_owned(),
        format!("{ROOT} ..."),
    ]);
    explain_first(&mut files, about);
    files
}

pub(super) fn docker(mirror: &Mirror) -> Vec<File> {
    const ROOT: &str = "/etc/docker/certs.d";
    let mut files: Vec<File> = daemon(mirror).into_iter().chain(hosts(mirror, ROOT)).collect();
    // With the older store, certificates are looked for under the name of whatever is asked.
    let root = mirror.docker_root.as_deref().and_then(|url| url.split_once("://"));
    if let (Some(pem), Some((_, root))) = (&mirror.ca, root)
        && root != mirror.url.authority()
    {
        files.push(File::authority(format!("{ROOT}/{root}/ca.crt"), pem));
    }
    let mut about = mirror.about("docker");
    about.extend(docker_stores(mirror));
    explain_first(&mut files, about);
    files
}

/// What each of Docker's two image stores makes of the files.
fn docker_stores(mirror: &Mirror) -> Vec<String> {
    let mut about = vec![
        "The hosts.toml are for the containerd image store (docker 28 and later; `docker info` then says"
            .to_owned(),
        "io.containerd.snapshotter.v1), and are read at each pull.".to_owned(),
        "With the older image store docker can have a mirror of docker.io alone.".to_owned(),
    ];
    if mirror.docker_root.is_none() {
        about.extend([
            "This registry is not one: plain names are not those of docker.io here. For that, its configuration".to_owned(),
            "needs an [[upstream]] docker.io with `default = true`, or with a name of its own in `hosts`.".to_owned(),
        ]);
    }
    let mut paths: Vec<&str> = mirror.sources.iter().map(|source| source.path.as_str()).collect();
    paths.dedup();
    paths.retain(|path| mirror.docker_root.is_none() || *path != DOCKER);
    if !paths.is_empty() {
        about.push("What it cannot mirror is reached by its path:".to_owned());
    }
    about.extend(paths.iter().map(|path| format!("  docker pull {}/{path}/NAME", mirror.url.authority())));
    about
}

/// daemon.json, if anything has to stand there.
fn daemon(mirror: &Mirror) -> Option<File> {
    let mut daemon = serde_json::Map::new();
    if let Some(root) = &mirror.docker_root {
        daemon.insert("registry-mirrors".to_owned(), json!([root]));
    }
    if !mirror.url.secure {
        daemon.insert("insecure-registries".to_owned(), json!([mirror.url.authority()]));
    }
    if daemon.is_empty() {
        return None;
    }
    let about = vec![
        "JSON knows no comments: leave these lines out. If there is such a file, add the keys to it."
            .to_owned(),
        "Then: systemctl reload docker".to_owned(),
    ];
    let body = format!("{:#}\n", serde_json::Value::Object(daemon));
    Some(File { comments: false, ..File::new("/etc/docker/daemon.json", about, body) })
}

/// A hosts.toml for each registry that is mirrored, and the authority that they are to trust.
fn hosts(mirror: &Mirror, root: &str) -> Vec<File> {
    let mut files: Vec<File> = mirror.sources.iter().map(|source| host(mirror, root, source)).collect();
    if let Some(pem) = &mirror.ca {
        files.push(File::authority(format!("{root}/{}/ca.crt", mirror.url.authority()), pem));
    }
    files
}

fn host(mirror: &Mirror, root: &str, source: &Source) -> File {
    let mut body = format!(
        "server = \"{}\"\n\n[host.\"{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        source.url, mirror.url
    );
    if mirror.ca.is_some() {
        // Seen from this file, so that all of them can be moved together.
        body += &format!("ca = \"../{}/ca.crt\"\n", mirror.url.authority());
    }
    File::new(format!("{root}/{}/hosts.toml", source.name), Vec::new(), body)
}
