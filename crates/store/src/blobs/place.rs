//! How proven bytes get their place under `blobs/`, and the row that says so.
//!
//! The order is what durability rests on: sync of the file, rename, sync of the directory, commit, sync of the journal.
//! Before the rename a marker is made, which goes when the row is there; so the next start knows which file a crash may
//! have left without a row and hands it to the collector.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use deltaport_oci::{Digest, Hasher, RepositoryName};

use super::object;
use crate::core::Core;
use crate::disk;
use crate::error::{Error, Result};
use crate::faults;
use crate::names::cached::Origin;
use crate::names::{self, NewManifest, Tx};

/// Where proven bytes come from.
pub(crate) enum Source {
    /// A synced file, which is moved.
    File(PathBuf),
    /// Memory.
    Bytes(Bytes),
}

/// Checks that a file of `size` bytes, over which `hasher` has run, holds `digest`, and makes its bytes durable.
/// Blocks. A hasher of another algorithm means that the file is read once more.
pub(crate) fn prove(core: &Core, file: &File, path: &Path, hasher: Hasher, digest: &Digest) -> Result<()> {
    let actual = if hasher.algorithm() == digest.algorithm() {
        hasher.finish()
    } else {
        disk::digest_file(path, digest.algorithm())?
    };
    if actual != *digest {
        return Err(Error::Mismatch { expected: *digest, actual });
    }
    core.faults.at(faults::BLOB_SYNC)?;
    // What goes to a bucket need not survive here.
    if core.bucket.is_none() {
        file.sync_all()?;
    }
    Ok(())
}

/// Puts the bytes of `digest` in their place, writes down that they are there, and does `change`, which refers to them, in
/// one go as far as the collector is concerned. Returns when both are durable. Must run to its end (see [`Core::to_the_end`]).
pub(crate) async fn settle<T, F>(
    core: &Arc<Core>,
    digest: Digest,
    size: u64,
    source: Source,
    change: F,
) -> Result<T>
where
    T: Send + 'static,
    F: Fn(&mut Tx<'_>) -> Result<T> + Send + Sync + 'static,
{
    if let (Some(bucket), Source::File(path)) = (&core.bucket, &source) {
        let path = path.clone();
        let file = Arc::new(core.blocking(move || Ok(File::open(path)?)).await?);
        return object::settle(core, bucket, digest, size, file, change).await;
    }
    let guard = core.locks.one(&digest).await;
    let placing = Arc::clone(core);
    let placed = core.blocking(move || place(&placing, &digest, size, source)).await;
    let changed = match placed {
        Ok(()) => {
            let changed = move |tx: &mut Tx<'_>| {
                names::blobs::ensure(tx, &digest, size)?;
                change(tx)
            };
            core.database.change(changed).await
        }
        Err(error) => Err(error),
    };
    if changed.is_err() {
        // The file may lie there without a row. If even this fails, the marker tells the next start.
        let queue = move |tx: &mut Tx<'_>| names::review::queue_bytes(tx.connection, &digest, tx.now);
        if core.database.change(queue).await.is_err() {
            return changed;
        }
    }
    let unmarking = Arc::clone(core);
    let unmarked = core
        .blocking(move || {
            unmarking.faults.at(faults::BLOB_UNMARK)?;
            disk::remove_if_there(&unmarking.layout.marker(&digest))?;
            Ok(())
        })
        .await;
    if let Err(error) = unmarked {
        tracing::warn!(%digest, %error, "a marker stays until the next start");
    }
    drop(guard);
    changed
}

/// Moves or writes the bytes to their place. A file that is there already stays: it was proven when it came. Only one
/// of another size is certainly damaged, and makes room.
fn place(core: &Core, digest: &Digest, size: u64, source: Source) -> Result<()> {
    let layout = &core.layout;
    let path = layout.blob(digest);
    core.faults.at(faults::BLOB_MARK)?;
    File::create(layout.marker(digest))?;
    let found = disk::size_if_there(&path)?;
    if found != Some(size) {
        if found.is_some() {
            tracing::error!(%digest, "the file of a blob had another size; it is put in quarantine and replaced");
            names::database::set_aside(layout, &path)?;
            core.recent.forget(digest);
        }
        let from = match source {
            Source::File(from) => from,
            Source::Bytes(bytes) => write_new(core, &bytes)?,
        };
        let renamed = core.faults.at(faults::BLOB_RENAME).and_then(|()| rename(&from, &path));
        if renamed.is_err() && from.parent() == Some(&layout.staging()) {
            let _ = disk::remove_if_there(&from);
        }
        renamed?;
        core.faults.at(faults::BLOB_RENAMED)?;
    }
    // Not before it has its name: until then the upload may have to be gone on with.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444))?;
    // Also for a file that was there: whoever put it there may not have come as far as this.
    disk::sync_parent(&path)?;
    core.faults.at(faults::DIR_SYNCED)?;
    Ok(())
}

/// Renames into a directory that may not exist yet.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(directory) = to.parent() {
                disk::make_directory(directory)?;
            }
            fs::rename(from, to)
        }
        other => other,
    }
}

/// Writes and syncs a new staging file.
fn write_new(core: &Core, bytes: &[u8]) -> Result<PathBuf> {
    core.space.take(bytes.len() as u64)?;
    core.faults.at(faults::STAGE_CREATE)?;
    let path = core.layout.staged(&disk::random_name()?);
    let write = || -> io::Result<()> {
        let mut file = File::create_new(&path)?;
        core.faults.at(faults::STAGE_WRITE)?;
        file.write_all(bytes)?;
        core.faults.at(faults::BLOB_SYNC)?;
        file.sync_all()
    };
    match write() {
        Ok(()) => Ok(path),
        Err(error) => {
            let _ = disk::remove_if_there(&path);
            Err(error.into())
        }
    }
}

/// Stores a manifest: its bytes as a blob, its row, references and tags.
pub(crate) async fn put_manifest(
    core: &Arc<Core>,
    repository: RepositoryName,
    manifest: NewManifest,
    origin: Origin,
) -> Result<()> {
    let settling = Arc::clone(core);
    core.to_the_end(async move {
        if settling.bucket.is_some() {
            // Its row holds the bytes; an object would say the same once more.
            let change = move |tx: &mut Tx<'_>| names::manifests::put(tx, &repository, &manifest, origin);
            return settling.database.change(change).await;
        }
        let (digest, size) = (manifest.digest, manifest.bytes.len() as u64);
        let source = Source::Bytes(manifest.bytes.clone());
        let change = move |tx: &mut Tx<'_>| names::manifests::put(tx, &repository, &manifest, origin);
        settle(&settling, digest, size, source, change).await
    })
    .await
}
