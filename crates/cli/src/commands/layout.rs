//! Images in OCI image layouts on disk (image-spec, image-layout.md).

use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use deltaport_oci::manifest::{Limits, View};
use deltaport_oci::{Descriptor, Digest, media_type};

/// How large an index, a manifest or a configuration may be, in bytes: what registries accept.
const MAX_MANIFEST: u64 = 4 << 20;
/// How deep indexes may be in indexes.
pub(super) const MAX_DEPTH: usize = 4;
/// The annotation that names an image in a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Where a layout keeps a blob.
pub(super) fn blob_path(layout: &Path, digest: &Digest) -> PathBuf {
    layout.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
}

/// Fails when there is no layout.
pub(super) fn must_be_layout(layout: &Path) -> anyhow::Result<()> {
    if !layout.join("blobs").is_dir() {
        bail!("{} is no OCI image layout: it has no directory blobs", layout.display());
    }
    Ok(())
}

/// The entries of a layout's index that a tag stands for; without a tag, those of the only image that it has.
pub(super) fn entries(layout: &Path, tag: Option<&str>) -> anyhow::Result<Vec<Descriptor>> {
    choose(all_entries(layout)?, tag).with_context(|| format!("in {}", layout.display()))
}

/// All entries of a layout's index.
pub(super) fn all_entries(layout: &Path) -> anyhow::Result<Vec<Descriptor>> {
    must_be_layout(layout)?;
    let path = layout.join("index.json");
    let index = View::parse(media_type::OCI_INDEX, &read(&path)?, Limits::DEFAULT)
        .with_context(|| format!("{} cannot be used", path.display()))?;
    Ok(index.manifests)
}

/// Those of some entries that a tag stands for; without a tag, all of them if they have one name.
pub(super) fn choose(entries: Vec<Descriptor>, tag: Option<&str>) -> anyhow::Result<Vec<Descriptor>> {
    let mut seen = HashSet::new();
    let names: Vec<String> =
        entries.iter().filter_map(name).filter(|name| seen.insert(*name)).map(str::to_owned).collect();
    let Some(tag) = tag else {
        if names.len() > 1 {
            bail!("there are several images; add one of these tags behind a colon: {}", names.join(", "));
        }
        return Ok(entries);
    };
    let chosen: Vec<Descriptor> = entries.into_iter().filter(|entry| name(entry) == Some(tag)).collect();
    if chosen.is_empty() {
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        bail!("there is no tag {tag}; the tags are: {names}");
    }
    Ok(chosen)
}

/// What an entry is called in its layout.
pub(super) fn name(entry: &Descriptor) -> Option<&str> {
    entry.annotations.get(REF_NAME).map(String::as_str)
}

/// The manifest or index that a descriptor names: its bytes, which are what their digest says, and what they mean.
pub(super) fn manifest(layout: &Path, descriptor: &Descriptor) -> anyhow::Result<(Vec<u8>, View)> {
    let path = blob_path(layout, &descriptor.digest);
    let bytes = read(&path)?;
    if Digest::of(descriptor.digest.algorithm(), &bytes) != descriptor.digest {
        bail!("{} is damaged: it is not what its name says; copy the image again", path.display());
    }
    let view = View::parse(&descriptor.media_type, &bytes, Limits::DEFAULT)
        .with_context(|| format!("{} cannot be used", path.display()))?;
    Ok((bytes, view))
}

/// Reads a file that is as small as manifests are.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_MANIFEST + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > MAX_MANIFEST {
        bail!("{} is larger than a manifest may be, {MAX_MANIFEST} bytes", path.display());
    }
    Ok(bytes)
}
