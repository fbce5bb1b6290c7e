//! The image that is updated.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use deltaport_oci::manifest::View;
use deltaport_oci::{Descriptor, Digest};

use crate::commands::layout;

/// How much of a file is handed on at once, in bytes.
const CHUNK: usize = 256 << 10;

/// An image for one platform.
#[derive(Debug)]
pub(super) struct Image {
    /// For people.
    pub(super) name: String,
    pub(super) media_type: String,
    pub(super) manifest: Bytes,
    /// The configuration and the layers.
    pub(super) blobs: Vec<Blob>,
}

/// A blob, in memory or in a file.
#[derive(Clone, Debug)]
pub(super) enum Blob {
    Bytes(Bytes),
    File { path: PathBuf, digest: Digest, size: u64 },
}

impl Blob {
    pub(super) fn digest(&self) -> Digest {
        match self {
            Self::Bytes(bytes) => Digest::sha256(bytes),
            Self::File { digest, .. } => *digest,
        }
    }

    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
        }
    }

    /// All of it, in pieces.
    pub(super) fn chunks(&self) -> anyhow::Result<Box<dyn Iterator<Item = anyhow::Result<Bytes>> + Send>> {
        match self {
            Self::Bytes(bytes) => Ok(Box::new(std::iter::once(Ok(bytes.clone())))),
            Self::File { path, .. } => {
                let path = path.clone();
                let cannot_read = move |path: &Path| format!("cannot read {}", path.display());
                let mut file = File::open(&path).with_context(|| cannot_read(&path))?;
                Ok(Box::new(std::iter::from_fn(move || {
                    let mut chunk = Vec::with_capacity(CHUNK);
                    match file.by_ref().take(CHUNK as u64).read_to_end(&mut chunk) {
                        Ok(0) => None,
                        Ok(_) => Some(Ok(chunk.into())),
                        Err(error) => Some(Err(error).with_context(|| cannot_read(&path))),
                    }
                })))
            }
        }
    }
}

/// The image in a layout; of one for several platforms, that for this machine's architecture, or else the first.
pub(super) fn from_layout(directory: &Path, tag: Option<&str>) -> anyhow::Result<Image> {
    let name = tag.map_or_else(|| directory.display().to_string(), str::to_owned);
    let entries = layout::entries(directory, tag)?;
    let mut descriptor = choose(&entries).with_context(|| format!("{name} has no image"))?.clone();
    for _ in 0..layout::MAX_DEPTH {
        let (bytes, view) = layout::manifest(directory, &descriptor)?;
        if !view.is_index() {
            let blobs = blobs(directory, &view);
            return Ok(Image { name, media_type: descriptor.media_type, manifest: bytes.into(), blobs });
        }
        descriptor = choose(&view.manifests).with_context(|| format!("{name} has no image"))?.clone();
    }
    bail!("{name} has indexes in indexes in indexes")
}

fn choose(entries: &[Descriptor]) -> Option<&Descriptor> {
    let ours = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let for_us = |entry: &&Descriptor| {
        entry
            .platform
            .as_ref()
            .is_some_and(|platform| platform.os == "linux" && platform.architecture == ours)
    };
    entries.iter().find(for_us).or_else(|| entries.first())
}

fn blobs(directory: &Path, view: &View) -> Vec<Blob> {
    let blob = |found: &Descriptor| Blob::File {
        path: layout::blob_path(directory, &found.digest),
        digest: found.digest,
        size: found.size,
    };
    view.blobs().map(blob).collect()
}
