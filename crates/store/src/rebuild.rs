//! Making the database again from the blobs and the journal.
//!
//! Names come from the journal, what they refer to from the bytes of the manifests, sizes from the files. Uploads in
//! progress, jobs for deltas and why children of indexes are absent are lost, and so is when something was last linked or
//! tagged a second time; nothing else is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use deltaport_oci::manifest::{Limits, View};
use deltaport_oci::{Digest, RepositoryName, Tag};

use crate::disk::{self, ProcessLock};
use crate::error::{Error, Result};
use crate::journal::{self, Item};
use crate::layout::{Layout, companion};
use crate::names::cached::Origin;
use crate::names::replay::{Pointed, Replay};
use crate::names::sql::{Connection, values};
use crate::names::{self, LayerDelta, NewManifest, Tx, database, milliseconds, schema};
use crate::open::files;
use crate::{ByteStore, NamesOptions};

/// How many losses a report names one by one.
const NAMED_LOSSES: usize = 1000;

/// Manifests were admitted under the limits of their time; nothing is refused now.
pub(crate) const NO_LIMITS: Limits = Limits { depth: 1 << 20, descriptors: 1 << 20 };

/// What [`rebuild`] made.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Rebuilt {
    /// Blobs found, those of manifests included.
    pub blobs: u64,
    /// Repositories.
    pub repositories: u64,
    /// Manifests, counted once for each repository that holds them.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Links from repositories to blobs.
    pub links: u64,
    /// Deltas that are known, or known not to be worth it.
    pub deltas: u64,
    /// Names of the journal that could not be given back, because bytes are missing or damaged.
    pub lost: u64,
    /// The first thousand of those, in words.
    pub losses: Vec<String>,
    /// Lines of the journal that did not read.
    pub damaged_lines: u64,
    /// Where the old database is now, if there was one.
    pub set_aside: Option<PathBuf>,
}

/// Makes the database of the store at `root` again, with bytes and names where they are said to be. Blocks, and needs
/// the store to be open nowhere. The old database is set aside, not deleted; until the new one is whole, it stays where
/// it is.
///
/// Fails with [`Error::Unusable`] when there are no bytes, and when it is not of files that the database is made: names in
/// PostgreSQL have no journal, and objects of a bucket do not say what they are.
pub fn rebuild(root: &Path, bytes: &ByteStore, names: &NamesOptions) -> Result<Rebuilt> {
    if let NamesOptions::Postgres(_) = names {
        return Err(Error::Unusable(
            "the names are in PostgreSQL, which has backups and standbys of its own and no journal here"
                .to_owned(),
        ));
    }
    let layout = Layout::of(root, bytes, names);
    if !layout.blobs().is_dir() {
        return Err(no_bytes(&layout));
    }
    if matches!(bytes, ByteStore::Bucket(_)) || layout.copies().is_dir() {
        return Err(Error::Unusable(
            "the bytes are in a bucket, whose objects do not say what they are; names have to come back from a backup of \
             the database"
                .to_owned(),
        ));
    }
    let _lock = ProcessLock::take(&layout)?;
    for directory in layout.directories() {
        disk::make_directory(&directory)?;
    }
    let mut rebuilt = Rebuilt::default();
    let mut replay = Replay::default();
    let last = journal::read(&layout.journal(), |item| {
        match item {
            Item::Entry(entry) => replay.apply(entry.at, entry.change.clone()),
            Item::Damage(text) => {
                rebuilt.damaged_lines += 1;
                tracing::warn!("the journal is damaged: {text}");
            }
        }
        Ok(())
    })?;

    let path = layout.new_database();
    disk::remove_if_there(&path)?;
    let connection = rusqlite::Connection::open(&path)?;
    schema::configure(&connection)?;
    connection.pragma_update(None, "journal_mode", "OFF")?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    schema::migrate(&connection)?;
    let connection = Connection::Sqlite(connection);
    connection.batch("BEGIN")?;
    Filling { layout: &layout, connection: &connection, rebuilt: &mut rebuilt }.fill(replay)?;
    connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('outbox', ?1)", values![last])?;
    connection.batch("COMMIT")?;
    let broken = rebuilt.damaged_lines > 0 || rebuilt.lost > 0;
    if broken {
        // The journal has to say what the database says.
        database::set_aside(&layout, &layout.journal())?;
        database::rewrite_journal(&layout, &connection)?;
    }
    connection.close()?;
    File::open(&path)?.sync_all()?;
    rebuilt.set_aside = replace_database(&layout)?;
    Ok(rebuilt)
}

/// What is said of a directory without blobs, which would else be taken for one that has lost them all.
pub(crate) fn no_bytes(layout: &Layout) -> Error {
    Error::Unusable(format!(
        "{} is not a data directory: it has no blobs/; give the configuration if it says that they are elsewhere",
        layout.bytes().display()
    ))
}

/// Sets the old database aside and puts the new one in its place.
fn replace_database(layout: &Layout) -> Result<Option<PathBuf>> {
    let stamp = milliseconds(SystemTime::now()).unsigned_abs();
    let (from, to) = (layout.database(), layout.old_database(stamp));
    let existed = from.exists();
    // The log first: a database without its log is older, but a log without its database is noise.
    for suffix in ["-wal", "-shm", ""] {
        match fs::rename(companion(from, suffix), companion(&to, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    fs::rename(layout.new_database(), from)?;
    disk::sync_parent(from)?;
    Ok(existed.then_some(to))
}

struct Filling<'a> {
    layout: &'a Layout,
    connection: &'a Connection,
    rebuilt: &'a mut Rebuilt,
}

impl Filling<'_> {
    fn fill(&mut self, replay: Replay) -> Result<()> {
        let now = milliseconds(SystemTime::now());
        self.find_blobs(now)?;
        for ((repository, digest), at) in replay.links {
            self.link(&repository, &digest, at)?;
        }
        let mut manifests: Vec<_> = replay.manifests.into_iter().collect();
        manifests.sort_by_key(|(_, (_, _, put))| *put);
        for ((repository, digest), (media_type, at, _)) in manifests {
            let origin = match replay.fetched.contains(&(repository.clone(), digest)) {
                true => Origin::Fetched,
                false => Origin::Pushed,
            };
            self.manifest(&repository, digest, &media_type, origin, at)?;
        }
        for ((repository, digest), verdicts) in replay.verdicts {
            for verdict in verdicts.into_values() {
                let mut tx = Tx::unlogged(self.connection, milliseconds(verdict.at));
                // With a manifest that is lost, which has been told, its verdicts are.
                names::verdicts::put(&mut tx, &repository, &digest, &verdict)?;
            }
        }
        for ((repository, tag), pointed) in replay.tags {
            self.tag(&repository, &tag, &pointed)?;
        }
        for ((repository, base, target), (digest, at)) in replay.deltas {
            let delta = digest.map_or(LayerDelta::NotWorthIt, LayerDelta::Blob);
            let mut tx = Tx::unlogged(self.connection, at);
            match names::deltas::put(&mut tx, &repository, &base, &target, &delta) {
                Ok(()) => self.rebuilt.deltas += 1,
                Err(Error::Missing(_)) => {
                    self.lose(format!("the delta in {repository} from {base} to {target} lacks a blob"));
                }
                Err(error) => return Err(error),
            }
        }
        self.connection.execute(
            "INSERT INTO review (repository, digest, since)
             SELECT 0, digest, ?1 FROM blob
             WHERE NOT EXISTS (SELECT 1 FROM repository_blob WHERE repository_blob.digest = blob.digest)
                 AND NOT EXISTS (SELECT 1 FROM manifest WHERE manifest.digest = blob.digest)
             ON CONFLICT (repository, digest) DO UPDATE SET since = excluded.since",
            values![now],
        )?;
        self.rebuilt.repositories =
            self.connection.one("SELECT count(*) FROM repository", values![], |row| row.get(0))?;
        Ok(())
    }

    /// Writes a row for every file of `blobs/`.
    fn find_blobs(&mut self, now: i64) -> Result<()> {
        let tx = Tx::unlogged(self.connection, now);
        for algorithm in files(self.layout.blobs())? {
            for directory in files(algorithm)?.into_iter().filter(|path| path.is_dir()) {
                for path in files(directory)? {
                    if let Some(digest) = self.layout.digest_of(&path) {
                        names::blobs::ensure(&tx, &digest, fs::metadata(&path)?.len())?;
                        self.rebuilt.blobs += 1;
                    }
                }
            }
        }
        Ok(())
    }

    fn link(&mut self, repository: &RepositoryName, digest: &Digest, at: i64) -> Result<()> {
        if !names::blobs::is_here(self.connection, digest)? {
            self.lose(format!("the blob {digest} of {repository} is not here"));
            return Ok(());
        }
        names::blobs::link(&mut Tx::unlogged(self.connection, at), repository, digest)?;
        self.rebuilt.links += 1;
        Ok(())
    }

    fn manifest(
        &mut self,
        repository: &RepositoryName,
        digest: Digest,
        media_type: &str,
        origin: Origin,
        at: i64,
    ) -> Result<()> {
        let bytes = match fs::read(self.layout.blob(&digest)) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.lose(format!("the manifest {digest} of {repository} is not here"));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if Digest::of(digest.algorithm(), &bytes) != digest {
            self.lose(format!("the manifest {digest} of {repository} is damaged"));
            return Ok(());
        }
        let view = match View::parse(media_type, &bytes, NO_LIMITS) {
            Ok(view) => view,
            Err(error) => {
                self.lose(format!("the manifest {digest} of {repository}: {error}"));
                return Ok(());
            }
        };
        let manifest = NewManifest { digest, bytes, view, tags: Vec::new(), required: Vec::new() };
        names::manifests::put(&mut Tx::unlogged(self.connection, at), repository, &manifest, origin)?;
        self.rebuilt.manifests += 1;
        Ok(())
    }

    fn tag(&mut self, repository: &RepositoryName, tag: &Tag, pointed: &Pointed) -> Result<()> {
        let mut tx = Tx::unlogged(self.connection, pointed.at);
        let (id, digest) =
            (names::repositories::find(self.connection, repository)?.unwrap_or(0), &pointed.digest);
        if !names::manifests::exists(self.connection, id, digest)? {
            self.lose(format!("{repository}:{tag} pointed at {digest}, which is not here"));
            return Ok(());
        }
        names::tags::put(&mut tx, repository, id, tag, digest)?;
        for (old, until) in &pointed.past {
            names::past::insert(&tx, id, tag, old, *until)?;
        }
        self.rebuilt.tags += 1;
        Ok(())
    }

    fn lose(&mut self, text: String) {
        self.rebuilt.lost += 1;
        if self.rebuilt.losses.len() < NAMED_LOSSES {
            self.rebuilt.losses.push(text);
        }
    }
}
