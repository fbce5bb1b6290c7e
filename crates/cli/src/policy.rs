//! Reads the policy for images, and the keys and certificates that it names, from files; again when they change.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use deltaport_oci::Digest;
use deltaport_registry::{Registry, Trust};
use deltaport_trust::signatures::{MAX_PEM_LEN, MAX_POLICY_LEN, Policy};
use tokio_util::sync::CancellationToken;

use crate::settings;

/// How often the files are looked at. They are few and small, and reading them misses no change.
const LOOK: Duration = Duration::from_secs(2);

/// Reads a policy. Paths in it are taken as they are, as podman does.
pub(crate) fn load(path: &Path) -> anyhow::Result<Policy> {
    Ok(load_with_id(path)?.0)
}

/// The same, with the digest of all that it was made of.
fn load_with_id(path: &Path) -> anyhow::Result<(Policy, Digest)> {
    let text = read(path, MAX_POLICY_LEN).with_context(|| format!("cannot read {}", path.display()))?;
    let mut made_of = Digest::sha256(&text).to_string();
    let policy = Policy::read(&text, |named| {
        let bytes = read(Path::new(named), MAX_PEM_LEN).map_err(|error| error.to_string())?;
        made_of.push_str(&Digest::sha256(&bytes).to_string());
        Ok(bytes)
    });
    let policy = policy.with_context(|| format!("{} cannot be used", path.display()))?;
    Ok((policy, Digest::sha256(made_of.as_bytes())))
}

/// What the registry is told of the settings; nothing when they name no policy.
pub(crate) fn trust(settings: &settings::Trust) -> anyhow::Result<Option<Trust>> {
    let Some(path) = &settings.policy else { return Ok(None) };
    let (policy, id) = load_with_id(path)?;
    let judge_pushes = settings.pushes == settings::Pushes::Judge;
    // Whatever changes verdicts makes another policy of it.
    let all = format!("{id} {} {} {judge_pushes}", settings.accept_nameless, settings.name);
    Ok(Some(Trust {
        policy: policy.accepting_nameless(settings.accept_nameless),
        id: Digest::sha256(all.as_bytes()),
        name: settings.name.clone(),
        judge_pushes,
    }))
}

/// Reads the policy again and again, and tells the registry when it is another, until `stop`.
pub(crate) async fn watch(settings: settings::Trust, registry: Registry, stop: CancellationToken) {
    // It was read when the registry was made.
    let mut last = trust(&settings).map(|trust| trust.map(|trust| trust.id)).map_err(|_| String::new());
    if settings.policy.is_none() {
        return;
    }
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let read = tokio::task::spawn_blocking({
            let settings = settings.clone();
            move || trust(&settings)
        });
        let Ok(read) = read.await else { continue };
        let now = match &read {
            Ok(trust) => Ok(trust.as_ref().map(|trust| trust.id)),
            Err(error) => Err(format!("{error:#}")),
        };
        if now == last {
            continue;
        }
        match read {
            Ok(trust) => {
                tell(trust.as_ref());
                registry.set_trust(trust);
            }
            Err(error) => tracing::error!(error = format!("{error:#}"), "the policy stays as it was"),
        }
        last = now;
    }
}

/// Logs which policy counts from now on, and what an operator should know about it.
pub(crate) fn tell(trust: Option<&Trust>) {
    let Some(trust) = trust else { return };
    tracing::info!(id = %trust.id, "images are judged by the policy");
    for note in trust.policy.notes() {
        tracing::warn!(note, "the policy can be used, but");
    }
}

/// Reads a file, but not more than one byte above the limit that its reader has.
fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
