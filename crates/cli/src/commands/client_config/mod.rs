//! `deltaport client-config`: the files that make clients pull through this registry.
//!
//! One upstream is one entry of a client's file. Clients that tell a mirror with `ns` whose image they mean (containerd
//! and what is built on it) are pointed at the registry itself, the others at the upstream's path in it.

mod containers;
mod hosts;
mod kubernetes;

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use deltaport_registry::upstream::{DOCKER, DOCKER_ALIASES, PUBLIC, prefix};
use serde_json::json;

use crate::args::{Client, ClientConfig, RegistryUrl};
use crate::output::Output;
use crate::settings::{Overrides, Settings};
use crate::wiring;

pub(crate) fn run(args: &ClientConfig, output: &mut Output) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(args.config.as_deref(), &Overrides::default())?;
    let mirror = Mirror::new(args, &settings)?;
    let mut files = match args.client {
        Client::Podman => containers::podman(&mirror),
        Client::Crio => containers::crio(&mirror),
        Client::Containerd => hosts::containerd(&mirror),
        Client::Docker => hosts::docker(&mirror),
        Client::K3s => kubernetes::k3s(&mirror),
        Client::Talos => kubernetes::talos(&mirror),
        Client::Openshift => kubernetes::openshift(&mirror),
    };
    if files.len() > 1 {
        let about = [
            "One of several files, each of which begins with its place. `--out /` puts all of them there,",
            "`--out DIRECTORY` below another directory.",
        ];
        explain_first(&mut files, about.map(str::to_owned).to_vec());
    }
    match &args.out {
        Some(directory) => write_below(directory, &files, output)?,
        None if args.json => {
            let file =
                |file: &File| json!({ "path": file.path, "about": file.about, "content": file.content() });
            output.json(&json!({ "files": files.iter().map(file).collect::<Vec<_>>() }))?;
        }
        None => {
            let texts: Vec<String> =
                files.iter().map(|file| format!("{}{}", file.comment(), file.body)).collect();
            output.text(&texts.join("\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// This registry, as clients are to know it.
struct Mirror {
    url: RegistryUrl,
    /// The certificate of the authority that issued its own, in PEM, if clients do not trust it anyway.
    ca: Option<String>,
    /// The registries whose images come through it, one for each of their names.
    sources: Vec<Source>,
    /// The URL under which plain names are those of Docker Hub, if there is one.
    docker_root: Option<String>,
}

/// A registry that is mirrored.
struct Source {
    /// What clients call it.
    name: String,
    /// The path of its repositories in this registry.
    path: String,
    /// Where it is for clients, should they ask it themselves.
    url: String,
}

impl Mirror {
    fn new(args: &ClientConfig, settings: &Settings) -> anyhow::Result<Self> {
        let url = match &args.registry {
            Some(url) => url.clone(),
            None => listening(settings)?,
        };
        let ca = match &args.ca {
            Some(path) if url.secure => Some(authority(path)?),
            Some(_) => bail!("--ca is for https, and {url} is not https"),
            None => None,
        };
        let sources = sources(settings);
        ensure!(
            !sources.is_empty(),
            "there is nothing to tell clients: with this configuration no other registry is mirrored. Add an [[upstream]], \
             or say public_upstreams = true"
        );
        let docker_root = docker_root(&url, settings);
        Ok(Self { url, ca, sources, docker_root })
    }

    /// The first lines of the comment of a client's first file: what it does, and for whom.
    fn about(&self, client: &str) -> Vec<String> {
        let mut about = vec![
            format!(
                "Made by `deltaport client-config --client {client}`: what is pulled from the registries"
            ),
            format!("below comes through {}.", self.url),
        ];
        if self.url.is_loopback() {
            about.push(format!(
                "{} is the machine itself: this is for clients beside deltaport.",
                self.url.host
            ));
            about.push("For those on other machines, say --registry.".to_owned());
        }
        about
    }
}

/// A file of a client.
struct File {
    /// Where it belongs: an absolute path, or only a name when it is handed to a command.
    path: String,
    /// What is to be known about it, in lines.
    about: Vec<String>,
    body: String,
    /// Whether lines that begin with `#` are comments in it.
    comments: bool,
}

impl File {
    /// A file that begins with its place, and then says what it is for.
    fn new(path: impl Into<String>, about: Vec<String>, body: String) -> Self {
        let path = path.into();
        let about = std::iter::once(path.clone()).chain(about).collect();
        Self { path, about, body, comments: true }
    }

    /// The certificate of the authority that issued the registry's own.
    fn authority(path: String, pem: &str) -> Self {
        let about = vec![path.clone(), "The authority that issued the certificate of the mirror.".to_owned()];
        Self { path, about, body: pem.to_owned(), comments: false }
    }

    fn comment(&self) -> String {
        self.about.iter().map(|line| format!("# {line}\n")).collect()
    }

    /// What belongs into it.
    fn content(&self) -> String {
        match self.comments {
            true => format!("{}{}", self.comment(), self.body),
            false => self.body.clone(),
        }
    }
}

/// Has the first file explain them all, below its place.
fn explain_first(files: &mut [File], about: Vec<String>) {
    if let Some(first) = files.first_mut() {
        first.about.splice(1..1, about);
    }
}

/// How clients on this machine reach the registry, if that can be told from where it listens.
fn listening(settings: &Settings) -> anyhow::Result<RegistryUrl> {
    ensure!(
        settings.tls.certificate.is_none(),
        "clients have to call this registry by a name that its certificate is for: say it with --registry https://NAME:{}",
        settings.listen.port()
    );
    let can_be_called = settings.listen.is_ipv4() && !settings.listen.ip().is_unspecified();
    ensure!(
        can_be_called && settings.listen.port() != 0,
        "{} is nothing that clients can call this registry: say with --registry http://NAME:PORT what they do",
        settings.listen
    );
    let host = settings.listen.ip().to_string();
    Ok(RegistryUrl { secure: false, host, port: Some(settings.listen.port()) })
}

/// Reads the certificate of an authority, which goes to every client.
fn authority(path: &Path) -> anyhow::Result<String> {
    let mut pem = wiring::read(path)?;
    let path = path.display();
    ensure!(
        !pem.contains("PRIVATE KEY-----"),
        "there is a private key in {path}: no client may ever have it"
    );
    ensure!(pem.contains("-----BEGIN CERTIFICATE-----"), "there is no certificate in {path}");
    if !pem.ends_with('\n') {
        pem.push('\n');
    }
    Ok(pem)
}

/// The registries that are mirrored, as the registry itself understands the settings: the first of a name counts.
fn sources(settings: &Settings) -> Vec<Source> {
    let own = settings.upstream.iter().map(|upstream| (upstream.host.as_str(), upstream.url.as_str()));
    let public = PUBLIC.into_iter().filter(|_| settings.mirrors_public());
    let mut known = BTreeSet::new();
    let mut sources = Vec::new();
    for (host, url) in own.chain(public) {
        let path = prefix(host);
        if !known.insert(path.clone()) {
            continue;
        }
        if path == DOCKER {
            sources.extend(std::iter::once(DOCKER).chain(DOCKER_ALIASES).map(|name| Source {
                name: name.to_owned(),
                path: DOCKER.to_owned(),
                url: "https://registry-1.docker.io".to_owned(),
            }));
            continue;
        }
        // Clients know it by its name. Where the registry goes instead, if that is another place, is not theirs to go.
        let is_there = url.strip_prefix("http://") == Some(host);
        let scheme = if is_there { "http" } else { "https" };
        sources.push(Source { name: host.to_owned(), path, url: format!("{scheme}://{host}") });
    }
    sources
}

/// The URL under which `library/debian` is that of Docker Hub: that of the registry when this is the default, else one
/// of the names that stand for it alone.
fn docker_root(url: &RegistryUrl, settings: &Settings) -> Option<String> {
    let docker = settings.upstream.iter().find(|upstream| prefix(&upstream.host) == DOCKER)?;
    if docker.default {
        return Some(url.to_string());
    }
    let host = docker.hosts.first()?;
    Some(format!("{}://{}", url.scheme(), url.authority_of(host)))
}

/// Writes files below a directory, all or, when one of them is there and different, none.
fn write_below(directory: &Path, files: &[File], output: &mut Output) -> anyhow::Result<()> {
    let place = |file: &File| directory.join(file.path.trim_start_matches('/'));
    let mut missing: Vec<(PathBuf, &File)> = Vec::new();
    for file in files {
        let path = place(file);
        match fs::read(&path) {
            Ok(there) if there == file.content().as_bytes() => {}
            Ok(_) => bail!(
                "{} is there already and is different: put both together by hand, or move it away. Nothing was written",
                path.display()
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => missing.push((path, file)),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
    for (path, file) in missing {
        write_new(&path, &file.content()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    for file in files {
        // What is to be done stands in the file, or has no other place than this.
        output.text(&file.comment())?;
    }
    Ok(())
}

fn write_new(path: &Path, content: &str) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::File::create_new(path)?.write_all(content.as_bytes())
}
