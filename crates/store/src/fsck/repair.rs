//! Mending what a check found. Each step is one transaction and leaves its changes in the outbox, like any other.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use deltaport_oci::manifest::View;
use deltaport_oci::{Digest, RepositoryName, Tag};

use super::Check;
use crate::blobs::place;
use crate::bucket::Place;
use crate::disk;
use crate::error::Result;
use crate::layout::Layout;
use crate::names::sql::values;
use crate::names::{
    self, Tx, blobs, database, doomed, manifests, parts, repositories, review, sessions, tags,
};

/// What mending works on.
pub(super) struct Mend<'a> {
    layout: &'a Layout,
    tx: Tx<'a>,
}

impl Check<'_> {
    /// Does `work` in a transaction when the store is to be mended; whether it was.
    pub(super) fn mend(&self, work: impl FnOnce(&mut Mend<'_>) -> Result<()>) -> Result<bool> {
        if !self.repair {
            return Ok(false);
        }
        self.connection
            .batch(self.connection.either("BEGIN IMMEDIATE", "BEGIN ISOLATION LEVEL SERIALIZABLE"))?;
        let mut mend = Mend { layout: self.layout, tx: Tx::offline(self.connection) };
        let done = work(&mut mend);
        drop(mend);
        self.connection.batch(if done.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        done.map(|()| true)
    }
}

impl Mend<'_> {
    /// Moves a file into quarantine.
    pub(super) fn quarantine(&mut self, path: &Path) -> Result<()> {
        database::set_aside(self.layout, path)?;
        Ok(())
    }

    /// Puts a damaged file aside, and either the right bytes in its place or nothing.
    pub(super) fn replace(&mut self, digest: &Digest) -> Result<()> {
        self.quarantine(&self.layout.blob(digest))?;
        self.restore_or_forget(digest)
    }

    /// Writes a manifest's file again from its row; what is in no row is forgotten, with every name that needs it.
    pub(super) fn restore_or_forget(&mut self, digest: &Digest) -> Result<()> {
        if let Some(bytes) = self.manifest_bytes(digest)? {
            write_blob(self.layout, digest, &bytes)?;
            return blobs::ensure(&self.tx, digest, bytes.len() as u64);
        }
        for repository in blobs::holders(self.tx.connection, digest, usize::MAX)? {
            blobs::unlink(&mut self.tx, &repository, digest)?;
        }
        for repository in self.manifest_holders(digest)? {
            manifests::delete(&mut self.tx, &repository, digest)?;
        }
        self.tx.connection.execute("DELETE FROM blob WHERE digest = ?1", values![digest])?;
        Ok(())
    }

    /// Forgets an object that is lost or damaged: what is in no row of a manifest besides, with every name that needs it. A
    /// damaged one stays where it is, as one that nothing refers to.
    pub(super) fn forget_object(&mut self, digest: &Digest) -> Result<()> {
        for repository in blobs::holders(self.tx.connection, digest, usize::MAX)? {
            blobs::unlink(&mut self.tx, &repository, digest)?;
        }
        match self.manifest_bytes(digest)? {
            Some(_) => {
                self.tx
                    .connection
                    .execute("UPDATE blob SET place = NULL WHERE digest = ?1", values![digest])?;
            }
            None => {
                self.tx.connection.execute("DELETE FROM blob WHERE digest = ?1", values![digest])?;
            }
        }
        Ok(())
    }

    /// Has an object removed that nothing refers to.
    pub(super) fn doom(&mut self, place: &Place) -> Result<()> {
        doomed::put(&self.tx, place, None, Duration::ZERO)
    }

    /// Ends an upload whose bytes are in a bucket.
    pub(super) fn end_upload_in_bucket(&mut self, id: &str) -> Result<()> {
        parts::end_but(&self.tx, id, None)
    }

    /// The bytes of a manifest from a row whose bytes are good.
    fn manifest_bytes(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let mut good = None;
        self.tx.connection.each("SELECT bytes FROM manifest WHERE digest = ?1", values![digest], |row| {
            let bytes: Vec<u8> = row.get(0)?;
            if Digest::of(digest.algorithm(), &bytes) != *digest {
                return Ok(ControlFlow::Continue(()));
            }
            good = Some(bytes);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(good)
    }

    fn manifest_holders(&self, digest: &Digest) -> Result<Vec<RepositoryName>> {
        self.tx.connection.query(
            "SELECT name FROM manifest JOIN repository ON repository.id = repository WHERE digest = ?1",
            values![digest],
            |row| row.get(0),
        )
    }

    /// Gives a manifest's row its bytes back from the file, or from the row of another repository; deletes the manifest
    /// when neither is good.
    pub(super) fn reload_or_delete(&mut self, repository: &RepositoryName, digest: &Digest) -> Result<()> {
        let from_file = fs::read(self.layout.blob(digest)).ok();
        let good = from_file.filter(|bytes| Digest::of(digest.algorithm(), bytes) == *digest);
        let good = match good {
            Some(bytes) => Some(bytes),
            None => self.manifest_bytes(digest)?,
        };
        match good {
            Some(bytes) => {
                self.tx.connection.execute(
                    "UPDATE manifest SET bytes = ?1, size = ?2 WHERE digest = ?3",
                    values![bytes[..], bytes.len(), digest],
                )?;
            }
            None => {
                manifests::delete(&mut self.tx, repository, digest)?;
            }
        }
        Ok(())
    }

    /// Gives a blob's row the size of its file.
    pub(super) fn resize(&mut self, digest: &Digest, size: u64) -> Result<()> {
        self.tx.connection.execute("UPDATE blob SET size = ?2 WHERE digest = ?1", values![digest, size])?;
        Ok(())
    }

    /// Gives a file that nobody knows a row, and hands it to the collector.
    pub(super) fn adopt(&mut self, digest: &Digest, size: u64) -> Result<()> {
        blobs::ensure(&self.tx, digest, size)?;
        self.queue(0, digest)
    }

    /// Puts something into the collector's queue.
    pub(super) fn queue(&mut self, repository: i64, digest: &Digest) -> Result<()> {
        review::queue(self.tx.connection, repository, digest, self.tx.now)
    }

    pub(super) fn unlink(&mut self, repository: &RepositoryName, digest: &Digest) -> Result<()> {
        blobs::unlink(&mut self.tx, repository, digest)?;
        Ok(())
    }

    pub(super) fn delete_tag(&mut self, repository: &RepositoryName, tag: &Tag) -> Result<()> {
        tags::delete(&mut self.tx, repository, tag)?;
        Ok(())
    }

    pub(super) fn forget_delta(
        &mut self,
        repository: &RepositoryName,
        base: &Digest,
        target: &Digest,
    ) -> Result<()> {
        names::deltas::delete(&mut self.tx, repository, base, target)
    }

    pub(super) fn forget_past(&mut self, repository: i64, tag: &str) -> Result<()> {
        self.tx
            .connection
            .execute("DELETE FROM tag_past WHERE repository = ?1 AND tag = ?2", values![repository, tag])?;
        Ok(())
    }

    pub(super) fn forget_absence(&mut self, repository: i64, digest: &str) -> Result<()> {
        self.tx.connection.execute(
            "DELETE FROM absence WHERE repository = ?1 AND digest = ?2",
            values![repository, digest],
        )?;
        Ok(())
    }

    pub(super) fn drop_job(&mut self, id: i64) -> Result<()> {
        self.tx.connection.execute("DELETE FROM delta_job WHERE id = ?1", values![id])?;
        Ok(())
    }

    /// Writes what a manifest refers to, and is, again.
    pub(super) fn rewrite_references(&mut self, repository: i64, id: i64, view: &View) -> Result<()> {
        self.tx.connection.execute(
            "UPDATE manifest SET artifact_type = ?2, subject = ?3 WHERE id = ?1",
            values![id, view.referrer_type(), view.subject.as_ref().map(|s| s.digest)],
        )?;
        manifests::put_references(&self.tx, repository, id, view)
    }

    pub(super) fn set_presence(&mut self, manifest: i64, position: i64, present: bool) -> Result<()> {
        self.tx.connection.execute(
            "UPDATE reference SET present = ?3 WHERE manifest = ?1 AND position = ?2",
            values![manifest, position, present],
        )?;
        Ok(())
    }

    pub(super) fn drop_repository(&mut self, id: i64) -> Result<()> {
        repositories::drop_if_empty(&self.tx, id)
    }

    pub(super) fn end_upload(&mut self, id: &str) -> Result<()> {
        self.quarantine(&self.layout.upload(id))?;
        sessions::end(&self.tx, id)?;
        Ok(())
    }
}

/// Writes the file of a blob, durably.
fn write_blob(layout: &Layout, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
    let (from, to) = (layout.staged(&disk::random_name()?), layout.blob(digest));
    let mut file = File::create_new(&from)?;
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(0o444))?;
    file.sync_all()?;
    place::rename(&from, &to)?;
    disk::sync_parent(&to)
}
