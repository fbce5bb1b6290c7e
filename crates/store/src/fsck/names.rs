//! Checking rows: that they agree with the files, with the bytes of manifests, and with each other.

use std::ops::ControlFlow;

use deltaport_oci::manifest::View;
use deltaport_oci::{Digest, RepositoryName, Tag};

use super::{Check, Code};
use crate::disk;
use crate::error::Result;
use crate::names::sql::{Row, values};
use crate::names::{self, manifests};
use crate::open::files;
use crate::rebuild::NO_LIMITS;

/// A row of a manifest, as far as it is checked.
struct Stored {
    id: i64,
    repository: i64,
    name: RepositoryName,
    digest: Digest,
    media_type: String,
    artifact_type: Option<String>,
    subject: Option<Digest>,
    bytes: Vec<u8>,
}

impl Check<'_> {
    /// Checks everything that the database says.
    pub(super) fn rows(&mut self) -> Result<()> {
        if self.remote.is_none() {
            self.blobs()?;
        }
        self.links()?;
        self.manifests()?;
        self.presence()?;
        self.absences()?;
        self.tags()?;
        self.past()?;
        self.deltas()?;
        self.jobs()?;
        self.queue()?;
        self.repositories()
    }

    /// Runs a query of few columns to its end, so that what it found can be mended.
    fn rows_of<T>(&self, sql: &str, read: impl Fn(&Row<'_>) -> Result<T>) -> Result<Vec<T>> {
        self.connection.query(sql, values![], read)
    }

    fn count(&self, sql: &str) -> Result<u64> {
        self.connection.one(sql, values![], |row| row.get(0))
    }

    /// Rows of blobs whose file is not there. Damaged files were seen before.
    fn blobs(&mut self) -> Result<()> {
        let mut missing = Vec::new();
        self.connection.each("SELECT digest FROM blob", values![], |row| {
            let digest: Digest = row.get(0)?;
            if disk::size_if_there(&self.layout.blob(&digest))?.is_none() {
                missing.push(digest);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for digest in missing {
            let detail = self.held_by(&digest)?;
            let repaired = self.mend(|mend| mend.restore_or_forget(&digest))?;
            self.find(Code::BlobMissing, digest, detail, repaired);
        }
        Ok(())
    }

    fn links(&mut self) -> Result<()> {
        self.report.links = self.count("SELECT count(*) FROM repository_blob")?;
        let dangling: Vec<(RepositoryName, Digest)> = self.rows_of(
            "SELECT name, digest FROM repository_blob JOIN repository ON id = repository
             WHERE NOT EXISTS (SELECT 1 FROM blob WHERE blob.digest = repository_blob.digest)",
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        for (name, digest) in dangling {
            let repaired = self.mend(|mend| mend.unlink(&name, &digest))?;
            self.find(Code::LinkDangling, format!("{name}@{digest}"), "the bytes have no row", repaired);
        }
        Ok(())
    }

    fn manifests(&mut self) -> Result<()> {
        for id in self.rows_of("SELECT id FROM manifest", |row| row.get::<i64>(0))? {
            let stored = self.connection.one(
                "SELECT repository, name, digest, media_type, artifact_type, subject, bytes
                 FROM manifest JOIN repository ON repository.id = repository WHERE manifest.id = ?1",
                values![id],
                |row| {
                    Ok(Stored {
                        id,
                        repository: row.get(0)?,
                        name: row.get(1)?,
                        digest: row.get(2)?,
                        media_type: row.get(3)?,
                        artifact_type: row.get(4)?,
                        subject: row.get(5)?,
                        bytes: row.get(6)?,
                    })
                },
            )?;
            self.report.manifests += 1;
            self.manifest(&stored)?;
        }
        self.report.references = self.count("SELECT count(*) FROM reference")?;
        Ok(())
    }

    fn manifest(&mut self, stored: &Stored) -> Result<()> {
        let subject = format!("{}@{}", stored.name, stored.digest);
        let actual = Digest::of(stored.digest.algorithm(), &stored.bytes);
        if actual != stored.digest {
            let (name, digest) = (&stored.name, &stored.digest);
            let repaired = self.mend(|mend| mend.reload_or_delete(name, digest))?;
            self.find(Code::ManifestCorrupt, subject, format!("the row's bytes hash to {actual}"), repaired);
            return Ok(());
        }
        let view = match View::parse(&stored.media_type, &stored.bytes, NO_LIMITS) {
            Ok(view) => view,
            Err(error) => {
                let detail = format!("{} does not read: {error}", stored.media_type);
                self.find(Code::ReferencesWrong, subject, detail, false);
                return Ok(());
            }
        };
        let same = self.references_match(stored.id, &view)?
            && view.referrer_type().map(|text| self.connection.kept(text))
                == stored.artifact_type.as_deref().map(Into::into)
            && view.subject.as_ref().map(|subject| subject.digest) == stored.subject;
        if !same {
            let repaired = self.mend(|mend| mend.rewrite_references(stored.repository, stored.id, &view))?;
            self.find(Code::ReferencesWrong, subject, "the rows are not what the manifest says", repaired);
        }
        Ok(())
    }

    /// Whether the rows of what a manifest refers to are those that its bytes ask for.
    fn references_match(&self, id: i64, view: &View) -> Result<bool> {
        let stored: Vec<(String, Digest)> = self.connection.query(
            "SELECT kind, digest FROM reference WHERE manifest = ?1 ORDER BY position",
            values![id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let wanted = manifests::references(view).map(|(kind, descriptor)| (kind, descriptor.digest));
        Ok(wanted.eq(stored.iter().map(|(kind, digest)| (kind.as_str(), *digest))))
    }

    fn presence(&mut self) -> Result<()> {
        let wrong: Vec<(i64, i64, String, Digest, bool)> = self.rows_of(
            "SELECT manifest, position, name, digest, present FROM reference JOIN repository ON id = repository
             WHERE present <> CASE
                 WHEN kind IN ('config', 'layer') AND EXISTS (SELECT 1 FROM repository_blob
                     WHERE repository_blob.repository = reference.repository
                         AND repository_blob.digest = reference.digest) THEN 1
                 WHEN kind IN ('manifest', 'subject') AND EXISTS (SELECT 1 FROM manifest
                     WHERE manifest.repository = reference.repository
                         AND manifest.digest = reference.digest) THEN 1
                 ELSE 0 END",
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
        )?;
        for (manifest, position, name, digest, present) in wrong {
            let repaired = self.mend(|mend| mend.set_presence(manifest, position, !present))?;
            let detail =
                if present { "said to be here, and is not" } else { "said to be absent, and is here" };
            self.find(Code::PresenceWrong, format!("{name}@{digest}"), detail, repaired);
        }
        Ok(())
    }

    fn absences(&mut self) -> Result<()> {
        let dangling: Vec<(i64, String)> = self.rows_of(
            "SELECT repository, digest FROM absence
             WHERE NOT EXISTS (SELECT 1 FROM reference
                 WHERE reference.repository = absence.repository AND reference.digest = absence.digest
                     AND kind = 'manifest' AND present = 0)",
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        for (repository, digest) in dangling {
            let repaired = self.mend(|mend| mend.forget_absence(repository, &digest))?;
            self.find(Code::AbsenceDangling, digest, "no index lacks it", repaired);
        }
        Ok(())
    }

    fn tags(&mut self) -> Result<()> {
        self.report.tags = self.count("SELECT count(*) FROM tag")?;
        let dangling: Vec<(RepositoryName, Tag, String)> = self.rows_of(
            "SELECT repository.name, tag.name, digest FROM tag JOIN repository ON id = repository
             WHERE NOT EXISTS (SELECT 1 FROM manifest
                 WHERE manifest.repository = tag.repository AND manifest.digest = tag.digest)",
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        for (name, tag, digest) in dangling {
            let repaired = self.mend(|mend| mend.delete_tag(&name, &tag))?;
            self.find(Code::TagDangling, format!("{name}:{tag}"), format!("points at {digest}"), repaired);
        }
        Ok(())
    }

    fn past(&mut self) -> Result<()> {
        let dangling: Vec<(i64, String, String)> = self.rows_of(
            "SELECT repository, tag, digest FROM tag_past
             WHERE NOT EXISTS (SELECT 1 FROM tag
                 WHERE tag.repository = tag_past.repository AND tag.name = tag_past.tag)",
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        for (repository, tag, digest) in dangling {
            let repaired = self.mend(|mend| mend.forget_past(repository, &tag))?;
            self.find(Code::PastDangling, tag, format!("pointed at {digest}, and is gone"), repaired);
        }
        Ok(())
    }

    fn jobs(&mut self) -> Result<()> {
        let dangling: Vec<(i64, String, String)> = self.rows_of(
            "SELECT id, base, target FROM delta_job
             WHERE EXISTS (SELECT 1 FROM (SELECT base AS digest UNION SELECT target) AS needed
                 WHERE NOT EXISTS (SELECT 1 FROM repository_blob AS held
                     WHERE held.repository = delta_job.repository AND held.digest = needed.digest))",
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        for (id, base, target) in dangling {
            let repaired = self.mend(|mend| mend.drop_job(id))?;
            self.find(Code::DeltaJobDangling, id, format!("from {base} to {target}"), repaired);
        }
        Ok(())
    }

    fn deltas(&mut self) -> Result<()> {
        let dangling: Vec<(RepositoryName, Digest, Digest)> = self.rows_of(
            "SELECT name, base, target FROM layer_delta JOIN repository ON id = repository
             WHERE EXISTS (SELECT 1 FROM (SELECT base AS digest UNION SELECT target UNION SELECT layer_delta.digest) AS needed
                 WHERE needed.digest IS NOT NULL AND NOT EXISTS (SELECT 1 FROM repository_blob AS held
                     WHERE held.repository = layer_delta.repository AND held.digest = needed.digest))",
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        for (name, base, target) in dangling {
            let repaired = self.mend(|mend| mend.forget_delta(&name, &base, &target))?;
            let detail = format!("from {base} to {target}");
            self.find(Code::DeltaDangling, name, detail, repaired);
        }
        Ok(())
    }

    /// Everything unreferenced must be in the collector's queue, or it stays for ever.
    fn queue(&mut self) -> Result<()> {
        let blobs: Vec<Digest> = self.rows_of(
            "SELECT digest FROM blob
             WHERE NOT EXISTS (SELECT 1 FROM repository_blob WHERE repository_blob.digest = blob.digest)
                 AND NOT EXISTS (SELECT 1 FROM manifest WHERE manifest.digest = blob.digest)
                 AND NOT EXISTS (SELECT 1 FROM review
                     WHERE review.repository = 0 AND review.digest = blob.digest)",
            |row| row.get(0),
        )?;
        for digest in blobs {
            let repaired = self.mend(|mend| mend.queue(0, &digest))?;
            self.find(Code::ReviewMissing, digest, "bytes that nothing refers to", repaired);
        }
        let links: Vec<(i64, String, Digest)> = self.rows_of(
            "SELECT id, name, link.digest FROM repository_blob AS link JOIN repository ON id = repository
             WHERE NOT EXISTS (SELECT 1 FROM reference
                     WHERE reference.repository = id AND reference.digest = link.digest
                         AND kind IN ('config', 'layer'))
                 AND NOT EXISTS (SELECT 1 FROM layer_delta
                     WHERE layer_delta.repository = id AND layer_delta.digest = link.digest)
                 AND NOT EXISTS (SELECT 1 FROM review
                     WHERE review.repository = id AND review.digest = link.digest)",
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        for (id, name, digest) in links {
            let repaired = self.mend(|mend| mend.queue(id, &digest))?;
            let detail = "a link to a blob that no manifest refers to";
            self.find(Code::ReviewMissing, format!("{name}@{digest}"), detail, repaired);
        }
        Ok(())
    }

    fn repositories(&mut self) -> Result<()> {
        let empty: Vec<(i64, String)> = self.rows_of(
            "SELECT id, name FROM repository
             WHERE NOT EXISTS (SELECT 1 FROM repository_blob WHERE repository = id)
                 AND NOT EXISTS (SELECT 1 FROM manifest WHERE manifest.repository = repository.id)",
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        for (id, name) in empty {
            let repaired = self.mend(|mend| mend.drop_repository(id))?;
            self.find(Code::RepositoryEmpty, name, "it holds nothing", repaired);
        }
        Ok(())
    }

    /// Checks uploads in progress: rows against files.
    pub(super) fn uploads(&mut self) -> Result<()> {
        if self.remote.is_some() {
            return Ok(());
        }
        let uploads: Vec<(String, u64)> =
            self.rows_of("SELECT id, position FROM upload", |row| Ok((row.get(0)?, row.get(1)?)))?;
        for (id, position) in uploads {
            let found = disk::size_if_there(&self.layout.upload(&id))?.unwrap_or(0);
            // The file is gone when a crash came between its move and the end of its row: then it can be finished.
            if found < position && disk::size_if_there(&self.layout.upload(&id))?.is_some() {
                let repaired = self.mend(|mend| mend.end_upload(&id))?;
                let detail = format!("{found} bytes of the {position} that were acknowledged");
                self.find(Code::UploadDamaged, id, detail, repaired);
            }
        }
        for path in files(self.layout.uploads())? {
            let id = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !names::sessions::exists(self.connection, id)? {
                self.find(Code::UploadOrphan, path.display(), "the next start removes it", false);
            }
        }
        Ok(())
    }
}
