//! `deltaport serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use deltaport_registry::Registry;
use deltaport_server::{AuditLog, Commands, Server};
use deltaport_store::CommandSocket;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args::Serve;
use crate::output::Output;
use crate::settings::{Overrides, Problems, Settings};
use crate::{logging, policy, wiring};

/// How many files and connections the process asks the system for, at most.
const OPEN_FILES: u64 = 65_536;

pub(crate) fn run(args: &Serve, output: &mut Output) -> anyhow::Result<ExitCode> {
    let settings = read_settings(args)?;
    logging::start(&settings.log);
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("deltaport")
        .build()
        .context("cannot start threads")?;
    let outcome = runtime.block_on(serve(args, &settings, output));
    // What is still running on a blocking thread is a delta that nobody waits for: the store has been closed.
    runtime.shutdown_background();
    outcome
}

fn read_settings(args: &Serve) -> Result<Settings, Problems> {
    let overrides =
        Overrides { listen: args.listen, data: args.data.clone(), insecure_http: args.insecure_http };
    Settings::load(args.config.as_deref(), &overrides)
}

async fn serve(args: &Serve, settings: &Settings, output: &mut Output) -> anyhow::Result<ExitCode> {
    // Signals first: one that comes while the store opens must not kill what is half done.
    let stop = stop_on_signals()?;
    let data = wiring::data_directory(settings)?;
    let store = wiring::store(settings, &data).await?;
    let registry = wiring::registry(settings, store.clone())?;
    let acme = wiring::acme(settings, &data)?;
    let audit = wiring::audit(settings)?;
    let server = wiring::server(settings, &data, store.secrets(), registry.clone(), audit.clone()).await?;

    let address = server.local_addr();
    tracing::info!(%address, tls = server.is_tls(), data = %data.display(), version = env!("CARGO_PKG_VERSION"), "listening");
    // Who closed our output still wants to be served.
    let _unread = output.text(&greeting(settings, &server, &data));

    let collector = tokio::spawn({
        let (registry, stop) = (registry.clone(), stop.clone());
        async move { registry.collect(stop).await }
    });
    let mirrors = tokio::spawn({
        let (registry, stop) = (registry.clone(), stop.clone());
        async move { registry.mirror_by_schedule(stop).await }
    });
    let review = tokio::spawn({
        let (registry, stop) = (registry.clone(), stop.clone());
        async move { registry.review(stop).await }
    });
    let policy = tokio::spawn(policy::watch(settings.trust.clone(), registry.clone(), stop.clone()));
    if let Some(acme) = acme {
        let (proofs, stop) = (Proofs(server.challenges()), stop.clone());
        tokio::spawn(async move { deltaport_acme::keep(acme, &proofs, stop).await });
    }
    let commands = tokio::spawn(take_commands(data.clone(), registry.clone(), stop.clone()));
    let deltas = tokio::spawn({
        let (registry, stop) = (registry.clone(), stop.clone());
        async move { registry.make_deltas(stop).await }
    });
    reload_on_hangup(args.clone(), settings, registry, audit)?;
    let drained = server.run(stop).await;
    collector.await.context("the collector failed")?;
    mirrors.await.context("the schedule of the mirrors failed")?;
    review.await.context("judging what is here failed")?;
    policy.await.context("reading the policy again failed")?;
    commands.await.context("taking commands failed")?;
    deltas.await.context("looking for deltas that are to be made failed")?;
    store.close().await.context("cannot close the store")?;
    tracing::info!(drained, "stopped");
    Ok(ExitCode::SUCCESS)
}

/// Takes commands of this machine, until `stop`. Without them everything else goes on.
async fn take_commands(data: PathBuf, registry: Registry, stop: CancellationToken) {
    let socket = CommandSocket::new(&data);
    match socket.clear().and_then(|()| Commands::bind(socket.path())) {
        Ok(commands) => commands.run(registry, stop).await,
        Err(error) => {
            let path = socket.path().display();
            tracing::warn!(%error, %path, "`deltaport gc` cannot reach this server");
        }
    }
}

/// What certificate authorities look at is shown by our server.
struct Proofs(deltaport_server::Challenges);

impl deltaport_acme::Proofs for Proofs {
    fn show_certificate(&self, name: &str, certificate: Vec<u8>, key: Vec<u8>) -> Result<(), String> {
        self.0.show_certificate(name, certificate, key)
    }

    fn show_token(&self, token: &str, authorization: &str) {
        self.0.show_token(token, authorization);
    }

    fn clear(&self) {
        self.0.clear();
    }
}

/// What cancels on the first SIGTERM or SIGINT; a second one ends the process at once.
fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to signals")?;
    tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut next = async || {
                tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                }
            };
            let name = next().await;
            tracing::info!(
                signal = name,
                "stopping: requests that are running may end; once more ends them now"
            );
            stop.cancel();
            let name = next().await;
            tracing::warn!(signal = name, "ended at once");
            std::process::exit(1);
        }
    });
    Ok(stop)
}

/// Reads the rules again on SIGHUP, and begins the audit log anew if its file was renamed. What else is in the configuration
/// takes a restart; certificates, passwords and tokens take not even a signal.
fn reload_on_hangup(
    args: Serve,
    started_with: &Settings,
    registry: Registry,
    audit: Option<AuditLog>,
) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen to signals")?;
    let htpasswd = started_with.access.htpasswd.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            if let Some(audit) = &audit {
                audit.reopen();
            }
            match read_settings(&args) {
                Ok(settings) if settings.access.htpasswd != htpasswd => {
                    tracing::warn!(
                        "another password file takes a restart; the access rules stay as they were"
                    );
                }
                Ok(settings) => match wiring::rules(&settings) {
                    Ok(rules) => {
                        registry.set_rules(rules);
                        tracing::info!("the access rules were read again");
                    }
                    Err(error) => tracing::warn!(%error, "the access rules stay as they were"),
                },
                Err(problems) => tracing::warn!(%problems, "the access rules stay as they were"),
            }
        }
    });
    Ok(())
}

/// Raises the soft limit of open files towards the hard one: connections and blobs need one each, and the usual soft
/// limit of 1024 is for programs that use select(2).
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES, |hard| hard.min(OPEN_FILES));
    if limit.current.is_some_and(|soft| soft < wanted) {
        limit.current = Some(wanted);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "the limit of open files stays as it is");
        }
    }
}

/// What the person who started it wants to know.
fn greeting(settings: &Settings, server: &Server, data: &Path) -> String {
    let address = server.local_addr();
    let scheme = if server.is_tls() { "https" } else { "http" };
    let mut text = format!(
        "deltaport {version} is listening on {scheme}://{address}\nThe data are in {data}",
        version = env!("CARGO_PKG_VERSION"),
        data = data.display()
    );
    if let Some(blobs) = &settings.storage.blobs {
        text.push_str(&format!(", blobs in {blobs}"));
    }
    if let Some(names) = &settings.storage.metadata {
        text.push_str(&format!(", names in {names}"));
    }
    text.push_str("\n\n");
    if settings.mirrors_public() {
        text.push_str(&first_pull(address, server.is_tls()));
    }
    text.push_str(&first_push(address, server.is_tls()));
    text.push_str("\nCtrl-C stops it.\n");
    text
}

/// How to pull a first image through it on this machine.
fn first_pull(address: SocketAddr, tls: bool) -> String {
    let host = host(address);
    let podman = if tls { "" } else { "--tls-verify=false " };
    format!(
        "Pull a first image through it with one of\n  \
         docker pull {host}/docker.io/library/alpine\n  \
         podman pull {podman}{host}/docker.io/library/alpine\n"
    )
}

/// How to push a first image from this machine.
fn first_push(address: SocketAddr, tls: bool) -> String {
    let host = host(address);
    let (podman, skopeo) = if tls { ("", "") } else { ("--tls-verify=false ", "--dest-tls-verify=false ") };
    format!(
        "Push a first image with one of\n  \
         docker pull debian:stable-slim && docker tag debian:stable-slim {host}/debian && docker push {host}/debian\n  \
         podman pull debian:stable-slim && podman push {podman}debian:stable-slim {host}/debian\n  \
         skopeo copy {skopeo}docker://docker.io/library/debian:stable-slim docker://{host}/debian\n"
    )
}

/// What clients on this machine can call it: image names cannot contain the brackets of an IPv6 address.
fn host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) if !address.ip().is_unspecified() => address.to_string(),
        _ => format!("localhost:{}", address.port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_commands_name_a_host_that_clients_accept() {
        for (address, host) in [
            ("127.0.0.1:5000", "127.0.0.1:5000/debian"),
            ("10.1.2.3:443", "10.1.2.3:443/debian"),
            ("0.0.0.0:5000", "localhost:5000/debian"),
            ("[::1]:5000", "localhost:5000/debian"),
            ("[::]:5000", "localhost:5000/debian"),
        ] {
            for tls in [true, false] {
                let text = first_push(address.parse().unwrap(), tls);
                assert!(text.lines().skip(1).all(|line| line.ends_with(host)), "{address}\n{text}");
                assert_eq!(text.contains("tls-verify=false"), !tls, "{text}");
                let text = first_pull(address.parse().unwrap(), tls);
                let image = host.replace("/debian", "/docker.io/library/alpine");
                assert!(text.lines().skip(1).all(|line| line.ends_with(&image)), "{address}\n{text}");
                assert_eq!(text.contains("tls-verify=false"), !tls, "{text}");
            }
        }
    }
}
