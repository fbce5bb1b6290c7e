//! A client that knows nothing of deltas, as docker, podman and containerd do not.

use anyhow::{Context as _, bail};
use deltaport_client::{Options, Upstream};
use deltaport_oci::manifest::{Limits, View};
use deltaport_oci::{Digest, Hasher, Reference, RepositoryName, Tag};

/// How large a blob may be, in bytes.
const MAX_BLOB: u64 = 64 << 30;

/// Pulls an image: the manifest by its tag, then every blob that is not in `held`, all at once. Each is compared with its
/// digest. Returns the manifest's digest and what the client holds now.
pub(super) async fn pull(
    address: std::net::SocketAddr,
    repository: &RepositoryName,
    tag: &Tag,
    held: &[Digest],
) -> anyhow::Result<(Digest, Vec<Digest>)> {
    let mut options = Options::new(address.to_string(), format!("http://{address}"));
    options.timeouts.header = std::time::Duration::from_secs(600);
    options.timeouts.stall = options.timeouts.header;
    let registry = Upstream::new(&options)?;
    let manifest = registry.manifest(repository, &Reference::Tag(tag.clone())).await?;
    let view = View::parse(&manifest.media_type, &manifest.bytes, Limits::DEFAULT)?;
    let wanted: Vec<Digest> =
        view.blobs().map(|blob| blob.digest).filter(|digest| !held.contains(digest)).collect();
    let mut pulls = tokio::task::JoinSet::new();
    for digest in &wanted {
        let (registry, repository, digest) = (registry.clone(), repository.clone(), *digest);
        pulls.spawn(async move { blob(&registry, &repository, &digest).await });
    }
    while let Some(pulled) = pulls.join_next().await {
        pulled.context("a pull failed")??;
    }
    Ok((manifest.digest, held.iter().copied().chain(wanted).collect()))
}

async fn blob(registry: &Upstream, repository: &RepositoryName, digest: &Digest) -> anyhow::Result<()> {
    let mut body = registry.blob(repository, digest, 0, MAX_BLOB).await?;
    let mut hasher = Hasher::new(digest.algorithm());
    while let Some(chunk) = body.chunk().await? {
        hasher.update(&chunk);
    }
    let actual = hasher.finish();
    if actual != *digest {
        bail!("the site served {actual} for {digest}");
    }
    Ok(())
}
