//! Local copies of objects, for whoever needs a file with random access: the delta engine, above all.
//!
//! A copy is made by one at a time, verified, and goes when room is needed for others. Whoever has it open goes on reading
//! it then; its room comes back when the last of them closes it.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deltaport_oci::wire::ByteRange;
use deltaport_oci::{Digest, Hasher};
use lru::LruCache;

use super::Fault;
use super::read::Object;
use crate::core::{Core, DigestLocks};
use crate::disk;
use crate::error::{Error, Result};
use crate::inflow::Inflow;
use crate::layout::Layout;

/// How many copies are kept at most, however small.
const COPIES: usize = 10_000;

/// The copies, and what room they may take.
pub(crate) struct Copies {
    most: u64,
    kept: Mutex<Kept>,
    making: DigestLocks,
}

struct Kept {
    files: LruCache<Digest, u64>,
    /// Bytes of those.
    bytes: u64,
    /// Bytes of those that are being made.
    making: u64,
}

impl Copies {
    /// Copies of at most `most` bytes, all together.
    pub(crate) fn new(most: u64) -> Self {
        let kept = Kept { files: LruCache::unbounded(), bytes: 0, making: 0 };
        Self { most, kept: Mutex::new(kept), making: DigestLocks::new() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for `size` bytes that come; returns the copies that have to go for that. Fails with
    /// [`Error::NoSpace`] when there is no such room, and then none has to go.
    fn reserve(&self, size: u64) -> Result<Vec<Digest>> {
        let mut kept = self.kept();
        if kept.making.saturating_add(size) > self.most {
            tracing::warn!(size, most = self.most, "there is no room for a local copy of a blob");
            return Err(Error::NoSpace);
        }
        let mut gone = Vec::new();
        while kept.bytes + kept.making + size > self.most || kept.files.len() >= COPIES {
            let Some((digest, freed)) = kept.files.pop_lru() else { break };
            kept.bytes = kept.bytes.saturating_sub(freed);
            gone.push(digest);
        }
        kept.making += size;
        Ok(gone)
    }

    /// What was made is a copy now, or nothing came of it.
    fn settle(&self, size: u64, made: Option<Digest>) {
        let mut kept = self.kept();
        kept.making = kept.making.saturating_sub(size);
        if let Some(digest) = made {
            kept.bytes += size;
            kept.files.put(digest, size);
        }
    }

    /// Removes all copies; whether there were any. Blocks.
    pub(crate) fn clear(&self, layout: &Layout) -> io::Result<bool> {
        let gone: Vec<Digest> = {
            let mut kept = self.kept();
            kept.bytes = 0;
            std::iter::from_fn(|| kept.files.pop_lru()).map(|(digest, _)| digest).collect()
        };
        for digest in &gone {
            disk::remove_if_there(&layout.copy(digest))?;
        }
        Ok(!gone.is_empty())
    }

    /// Forgets a copy that is not there any more.
    fn forget(&self, digest: &Digest) {
        let mut kept = self.kept();
        if let Some(size) = kept.files.pop(digest) {
            kept.bytes = kept.bytes.saturating_sub(size);
        }
    }
}

fn path(core: &Core, digest: &Digest) -> PathBuf {
    core.layout.copy(digest)
}

/// A local file with the bytes of an object. Whoever asks for the same meanwhile waits for the one copy.
pub(crate) async fn copy(object: &Object, copies: &Copies) -> Result<File> {
    let _alone = copies.making.one(&object.digest).await;
    if let Some(file) = find(object, copies).await? {
        return Ok(file);
    }
    let gone = copies.reserve(object.size)?;
    let made = async {
        remove(&object.core, gone).await?;
        make(object).await
    };
    let made = made.await;
    copies.settle(object.size, made.is_ok().then_some(object.digest));
    made
}

/// The copy that there is.
async fn find(object: &Object, copies: &Copies) -> Result<Option<File>> {
    if copies.kept().files.get(&object.digest).is_none() {
        return Ok(None);
    }
    let path = path(&object.core, &object.digest);
    let opened = object.core.blocking(move || match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    });
    let file = opened.await?;
    if file.is_none() {
        copies.forget(&object.digest);
    }
    Ok(file)
}

async fn remove(core: &Arc<Core>, gone: Vec<Digest>) -> Result<()> {
    if gone.is_empty() {
        return Ok(());
    }
    let removing = Arc::clone(core);
    core.blocking(move || {
        for digest in &gone {
            disk::remove_if_there(&path(&removing, digest))?;
        }
        Ok(())
    })
    .await
}

/// Brings the bytes here and checks them.
async fn make(object: &Object) -> Result<File> {
    let core = &object.core;
    let making = Arc::clone(core);
    let opened = core.blocking(move || {
        making.check_space()?;
        Ok(tempfile::Builder::new().tempfile_in(making.layout.copies())?)
    });
    let (file, temporary) = opened.await?.into_parts();
    let inflow = Inflow::new(core, file, 0, Hasher::new(object.digest.algorithm()));
    let mut chunks = object.read(ByteRange { start: 0, end: object.size });
    while let Some(chunk) = std::future::poll_fn(|cx| chunks.poll_next(cx)).await {
        inflow.push(chunk.map_err(Fault::from_reading)?).await?;
    }
    let (_, hasher) = inflow.drain().await?;
    let actual = hasher.finish();
    if actual != object.digest {
        tracing::error!(digest = %object.digest, place = %object.place, %actual, "an object does not hold what it was stored with; run fsck");
        return Err(Error::Corrupt(format!("the object of {} hashes to {actual}", object.digest)));
    }
    let (copying, digest) = (Arc::clone(core), object.digest);
    core.blocking(move || {
        let path = path(&copying, &digest);
        temporary.persist(&path).map_err(|error| error.error)?;
        Ok(File::open(&path)?)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_make_room_for_each_other() {
        let copies = Copies::new(100);
        let keep = |name: &[u8], size| {
            let gone = copies.reserve(size)?;
            copies.settle(size, Some(Digest::sha256(name)));
            Ok::<_, Error>(gone)
        };
        assert!(keep(b"a", 40).unwrap().is_empty());
        assert!(keep(b"b", 40).unwrap().is_empty());
        copies.kept().files.get(&Digest::sha256(b"a"));
        assert_eq!(keep(b"c", 50).unwrap(), [Digest::sha256(b"b")], "the one that was used least recently");
        assert!(matches!(keep(b"d", 101), Err(Error::NoSpace)));
        assert_eq!(copies.reserve(60).unwrap(), [Digest::sha256(b"a"), Digest::sha256(b"c")]);
        assert!(matches!(copies.reserve(60), Err(Error::NoSpace)), "the room is being filled");
        copies.settle(60, None);
        assert!(copies.reserve(100).unwrap().is_empty());
    }

    #[test]
    fn all_copies_go_when_the_disk_is_full() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::new(home.path());
        std::fs::create_dir(layout.copies()).unwrap();
        let copies = Copies::new(100);
        assert!(!copies.clear(&layout).unwrap());
        for name in [&b"a"[..], b"b"] {
            let digest = Digest::sha256(name);
            std::fs::write(layout.copy(&digest), name).unwrap();
            copies.reserve(40).unwrap();
            copies.settle(40, Some(digest));
        }
        assert!(copies.clear(&layout).unwrap());
        assert_eq!(std::fs::read_dir(layout.copies()).unwrap().count(), 0);
        assert!(copies.reserve(100).unwrap().is_empty());
    }
}
