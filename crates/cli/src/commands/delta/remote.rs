//! Images in a registry, asked for as a client does. Whatever may pass is tried again.

use std::fs::File;
use std::future::Future;
use std::io::{Seek as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use deltaport_client::{Credentials, Error, ErrorKind, MAX_MANIFEST, Upstream};
use deltaport_oci::delta_artifact::LayerDelta;
use deltaport_oci::manifest::{Limits, View};
use deltaport_oci::{Descriptor, Digest, Hasher, Platform, Reference, RepositoryName};
use futures_util::stream;
use tokio::runtime::Runtime;

use super::layers::{Image, Layer, MAX_IMAGES};
use crate::args::{Access, ImageName};
use crate::commands::{layout, passwd};
use crate::wiring;

/// How often the same thing is asked for that fails in a way that may pass. Bytes that come in between begin the count
/// anew.
const ATTEMPTS: u32 = 5;
/// How long to wait after the first failure; twice as long after each further one.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest wait that a registry may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// A registry, with what is needed to wait for it.
pub(crate) struct Remote {
    runtime: Runtime,
    client: Upstream,
}

/// An image for one platform, as a registry has it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Its manifest.
    pub(super) manifest: Descriptor,
    pub(super) view: View,
    pub(super) image: Image,
}

impl Found {
    /// The platform, for people.
    pub(super) fn platform(&self) -> Option<String> {
        self.image.platform.as_ref().map(ToString::to_string)
    }
}

impl Remote {
    /// The registry of an image. Nothing is asked yet, but the standard input, if the password is there.
    pub(crate) fn of(image: &ImageName, access: &Access) -> anyhow::Result<Self> {
        Self::at(&image.host, image.url(access.plain_http), access)
    }

    /// The registry `host` at `url`, likewise.
    pub(crate) fn at(host: &str, url: String, access: &Access) -> anyhow::Result<Self> {
        let given = match &access.username {
            Some(username) => {
                Some(Credentials { username: username.clone(), password: passwd::read_line()? })
            }
            None => None,
        };
        if given.as_ref().is_some_and(|given| given.password.is_empty()) {
            bail!("there is no password in the first line of the standard input");
        }
        let client = wiring::client_for(host, url, access, given)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start threads")?;
        Ok(Self { runtime, client })
    }

    /// The images that a name stands for, one for each platform.
    pub(super) fn images(&self, name: &ImageName) -> anyhow::Result<Vec<Found>> {
        let ImageName { host, repository, reference } = name;
        let mut images = Vec::new();
        self.collect(repository, reference, None, 1, &mut images)
            .with_context(|| format!("cannot read {host}/{repository}, {reference}"))?;
        if images.is_empty() {
            bail!("{host}/{repository} has no image at {reference}");
        }
        Ok(images)
    }

    /// Adds the image of a manifest, or those of an index, of whose entry the platform is known.
    fn collect(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        platform: Option<&Platform>,
        depth: usize,
        images: &mut Vec<Found>,
    ) -> anyhow::Result<()> {
        if images.len() >= MAX_IMAGES || depth > layout::MAX_DEPTH {
            bail!("it has more images than {MAX_IMAGES}, or indexes in indexes");
        }
        let (manifest, view) = self.manifest(repository, reference)?;
        if view.is_index() {
            // What says something about an image, such as how it was built, is listed as an image for no platform.
            let described =
                |child: &&Descriptor| child.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
            return view.manifests.iter().filter(described).try_for_each(|child| {
                let reference = Reference::Digest(child.digest);
                self.collect(repository, &reference, child.platform.as_ref(), depth + 1, images)
            });
        }
        let platform = match platform {
            Some(platform) => Some(platform.clone()),
            None => self.configured_platform(repository, &view)?,
        };
        // All blobs but the configuration.
        let layers = view.blobs().skip(usize::from(view.config.is_some())).map(|layer| Layer {
            digest: layer.digest,
            size: layer.size,
            path: PathBuf::new(),
        });
        let image = Image { platform, layers: layers.collect() };
        images.push(Found { manifest, view, image });
        Ok(())
    }

    /// A manifest and what it means.
    pub(super) fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> anyhow::Result<(Descriptor, View)> {
        let found = self.patiently(|client| client.manifest(repository, reference))?;
        let view = View::parse(&found.media_type, &found.bytes, Limits::DEFAULT)
            .with_context(|| format!("{reference} cannot be used"))?;
        Ok((found.descriptor(), view))
    }

    /// The platform that the configuration of an image names, if it does.
    fn configured_platform(
        &self,
        repository: &RepositoryName,
        view: &View,
    ) -> anyhow::Result<Option<Platform>> {
        let Some(config) = view.config.as_ref().filter(|config| config.size <= MAX_MANIFEST) else {
            return Ok(None);
        };
        let mut text = Vec::new();
        let mut file = self.blob(repository, &config.digest, config.size, &|_| ())?;
        std::io::Read::read_to_end(&mut file, &mut text)?;
        let platform: Option<Platform> = serde_json::from_slice(&text).ok();
        Ok(platform.filter(|platform| !platform.os.is_empty()))
    }

    /// Fetches a blob of `size` bytes into a file without a name, and proves it. `show` is told how many bytes there are.
    pub(super) fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        size: u64,
        show: &dyn Fn(u64),
    ) -> anyhow::Result<File> {
        let file =
            tempfile::tempfile().context("cannot make a temporary file; TMPDIR says where it should be")?;
        let mut partial = Partial { file, hasher: Hasher::new(digest.algorithm()), at: 0 };
        let mut failures = 0;
        loop {
            let before = partial.at;
            let more = partial.fetch(&self.client, repository, digest, size, show);
            match self.runtime.block_on(more)? {
                Ok(()) => break,
                Err(error) => {
                    failures = if partial.at > before { 1 } else { failures + 1 };
                    self.wait(error, failures)?;
                }
            }
        }
        let Partial { mut file, hasher, .. } = partial;
        let actual = hasher.finish();
        if actual != *digest {
            bail!("{repository} has {actual} where {digest} should be; push the image again");
        }
        file.rewind()?;
        Ok(file)
    }

    /// Gives a blob to a repository that may have it already.
    pub(super) fn push_blob(&self, repository: &RepositoryName, bytes: &Bytes) -> anyhow::Result<()> {
        let (digest, size) = (Digest::sha256(bytes), bytes.len() as u64);
        let content = || stream::iter([Ok(bytes.clone())]);
        self.patiently(|client| client.push_blob(repository, &digest, size, content))?;
        Ok(())
    }

    /// Publishes an artifact about `subject`, so that it is listed among its referrers; the artifact's digest.
    pub(super) fn publish(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> anyhow::Result<Digest> {
        let (bytes, view) = (Bytes::from(bytes.clone()), View::parse(media_type, &bytes, Limits::DEFAULT)?);
        let digest = Digest::sha256(&bytes);
        let reference = Reference::Digest(digest);
        let pushed =
            self.patiently(|client| client.push_manifest(repository, &reference, media_type, bytes.clone()))?;
        if pushed != Some(*subject) {
            let referrer = view.referrer(digest, bytes.len() as u64);
            self.patiently(|client| client.list_referrer(repository, subject, &referrer))?;
        }
        Ok(digest)
    }

    /// The artifacts of a type about `subject`.
    pub(super) fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: &str,
    ) -> anyhow::Result<Vec<Descriptor>> {
        self.patiently(|client| client.referrers(repository, subject, Some(artifact_type)))
    }

    /// The deltas to a layer that a hub has made.
    pub(super) fn made(
        &self,
        repository: &RepositoryName,
        layer: &Digest,
    ) -> anyhow::Result<Vec<LayerDelta>> {
        self.patiently(|client| client.layer_deltas(repository, layer))
    }

    /// Asks, again if need be.
    pub(crate) fn patiently<'a, T, F>(&'a self, ask: impl Fn(&'a Upstream) -> F) -> anyhow::Result<T>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut failures = 0;
        loop {
            match self.runtime.block_on(ask(&self.client)) {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    failures += 1;
                    self.wait(error, failures)?;
                }
            }
        }
    }

    /// Waits until it makes sense to ask again; fails when it does not.
    fn wait(&self, error: Error, failures: u32) -> anyhow::Result<()> {
        let pause = match error.kind() {
            ErrorKind::Unavailable { retry_after, .. } if failures < ATTEMPTS => {
                retry_after.unwrap_or(PAUSE.saturating_mul(1 << failures.min(6))).min(MAX_PAUSE)
            }
            _ => return Err(error.into()),
        };
        self.runtime.block_on(async { tokio::time::sleep(pause).await });
        Ok(())
    }
}

/// The beginning of a blob.
struct Partial {
    file: File,
    hasher: Hasher,
    at: u64,
}

impl Partial {
    /// Goes on behind what is there, or from the beginning where the registry cannot.
    async fn fetch(
        &mut self,
        client: &Upstream,
        repository: &RepositoryName,
        digest: &Digest,
        size: u64,
        show: &dyn Fn(u64),
    ) -> anyhow::Result<Result<(), Error>> {
        let mut body = match client.blob(repository, digest, self.at, size).await {
            Ok(body) => body,
            Err(error) => return Ok(Err(error)),
        };
        if body.start() != self.at {
            self.file.set_len(0)?;
            self.file.rewind()?;
            (self.hasher, self.at) = (Hasher::new(digest.algorithm()), 0);
        }
        loop {
            match body.chunk().await {
                Ok(Some(bytes)) => {
                    self.file
                        .write_all(&bytes)
                        .context("cannot write what was fetched; TMPDIR says where")?;
                    self.hasher.update(&bytes);
                    self.at += bytes.len() as u64;
                    show(self.at);
                }
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }
}
