//! Uploads in progress: bytes that arrive in several requests, perhaps with a crash in between.
//!
//! A row holds how many bytes were acknowledged and the hasher after them; the file may be longer, when a chunk did not
//! get as far as its acknowledgement, and is cut to that length when somebody goes on. With a bucket there is no file that
//! outlives a request: see [`spool`], [`lease`] and [`finish`](mod@finish).

mod finish;
mod lease;
mod spool;

use std::fs::File;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use deltaport_oci::{Algorithm, Digest, Hasher, RepositoryName};

use crate::blobs::place::{self, Source};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::inflow::Inflow;
use crate::layout::is_upload_id;
use crate::names::sessions::{self, Session};
use crate::names::{self, Tx, milliseconds, parts};
use crate::{disk, faults};

use lease::Lease;
use spool::Spool;

/// How long nobody must have touched an upload before it can be ended to make room for another one of its owner.
const MIN_IDLE: Duration = Duration::from_secs(5 * 60);

/// Uploads in progress. They belong to a repository and to the caller that began them (`owner`); for anybody else they
/// are [`Error::NotFound`]. Offset and hash state survive a crash as of the last acknowledged chunk.
#[derive(Clone, Debug)]
pub struct Uploads {
    core: Arc<Core>,
}

impl Uploads {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Begins an upload and returns its identifier (128 random bits, hexadecimal). `algorithm` is a hint: the digest
    /// given at the end may still be of the other one, which costs another read of the bytes.
    ///
    /// When `owner` has `per_owner` already, the one that has been idle for longest is ended, as clients on a bad link
    /// begin a new one for each attempt and leave the old ones behind. Fails with [`Error::TooManyUploads`] when none
    /// has been idle for five minutes.
    pub async fn begin(
        &self,
        repository: &RepositoryName,
        owner: &str,
        algorithm: Option<Algorithm>,
        per_owner: usize,
    ) -> Result<String> {
        self.core.check_space()?;
        let id = disk::random_name()?;
        let state = Hasher::new(algorithm.unwrap_or(Algorithm::Sha256)).save();
        loop {
            let (name, repository, owned_by) = (id.clone(), repository.clone(), owner.to_owned());
            let state = state.clone();
            let begun = self
                .core
                .database
                .change(move |tx| sessions::begin(tx, &name, &repository, &owned_by, &state, per_owner))
                .await;
            match begun {
                Err(Error::TooManyUploads) if self.end_longest_idle(owner).await? => {}
                begun => return begun.map(|()| id),
            }
        }
    }

    /// Ends the upload of `owner` that has been idle for longest; `false` when none has been for [`MIN_IDLE`].
    async fn end_longest_idle(&self, owner: &str) -> Result<bool> {
        let now = self.core.database.by_its_clock(SystemTime::now()).await?;
        let before = milliseconds(now - MIN_IDLE);
        let owner = owner.to_owned();
        let idle = self.core.database.read(move |names| sessions::idle(names, &owner, before)).await?;
        for id in idle {
            if self.core.bucket.is_some() {
                let name = id.clone();
                if self.core.database.change(move |tx| parts::expire(tx, &name, before)).await? {
                    return Ok(true);
                }
                continue;
            }
            // Somebody is at it, though nothing of it has been acknowledged for a while.
            let Some(turn) = Turn::take(&self.core, &id) else { continue };
            let core = Arc::clone(&self.core);
            let ended = self.core.to_the_end(async move { expire(&core, &turn, before).await }).await?;
            if ended {
                tracing::debug!(upload = id, "an idle upload made room for another of its owner");
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many bytes have been acknowledged.
    pub async fn offset(&self, repository: &RepositoryName, id: &str, owner: &str) -> Result<u64> {
        Ok(self.session(repository, id, owner).await?.position)
    }

    /// Opens an upload to append to it, alone. `at` is where the sender believes the upload ends; fails with
    /// [`Error::OutOfOrder`] when that is not so, and with [`Error::Busy`] when somebody else is at it.
    pub async fn append(
        &self,
        repository: &RepositoryName,
        id: &str,
        owner: &str,
        at: Option<u64>,
    ) -> Result<Appender> {
        if let Some(bucket) = &self.core.bucket {
            let (lease, progress) = Lease::acquire(&self.core, bucket, repository, id, owner).await?;
            if at.is_some_and(|at| at != progress.position) {
                lease.release().await?;
                return Err(Error::OutOfOrder { offset: progress.position });
            }
            self.core.check_space()?;
            let spool = Spool::open(&self.core, bucket, lease, progress).await?;
            return Ok(Appender(Way::Bucket(spool)));
        }
        let (turn, session) = self.take_turn(repository, id, owner).await?;
        if at.is_some_and(|at| at != session.position) {
            return Err(Error::OutOfOrder { offset: session.position });
        }
        self.core.check_space()?;
        let core = Arc::clone(&self.core);
        self.core
            .to_the_end(async move {
                let (opening, position) = (Arc::clone(&core), session.position);
                let name = turn.id.clone();
                let opened = core.blocking(move || open(&opening, &name, session)).await;
                let (file, hasher) = end_if_gone(&core, &turn, opened).await?;
                let inflow = Inflow::new(&core, file, position, hasher);
                Ok(Appender(Way::File(Some(Open { inflow, turn, from: position }))))
            })
            .await
    }

    /// Checks the digest, makes the blob durable and visible, links it and ends the upload. On a mismatch the upload
    /// is gone. May be repeated when it failed for another reason.
    pub async fn finish(
        &self,
        repository: &RepositoryName,
        id: &str,
        owner: &str,
        digest: &Digest,
    ) -> Result<u64> {
        if let Some(bucket) = &self.core.bucket {
            let (lease, progress) = Lease::acquire(&self.core, bucket, repository, id, owner).await?;
            let (core, bucket) = (Arc::clone(&self.core), Arc::clone(bucket));
            let finish = finish::finish(core, bucket, lease, progress, repository.clone(), *digest);
            return self.core.to_the_end(finish).await;
        }
        let (turn, session) = self.take_turn(repository, id, owner).await?;
        let (core, repository, digest) = (Arc::clone(&self.core), repository.clone(), *digest);
        self.core.to_the_end(async move { finish(core, turn, session, repository, digest).await }).await
    }

    /// Ends an upload and drops its bytes.
    pub async fn cancel(&self, repository: &RepositoryName, id: &str, owner: &str) -> Result<()> {
        if let Some(bucket) = &self.core.bucket {
            let (lease, _) = Lease::acquire(&self.core, bucket, repository, id, owner).await?;
            return lease.end(|tx, id, holder| parts::cancel(tx, id, holder)).await;
        }
        let (turn, _) = self.take_turn(repository, id, owner).await?;
        let core = Arc::clone(&self.core);
        self.core.to_the_end(async move { end(&core, &turn).await }).await
    }

    async fn session(&self, repository: &RepositoryName, id: &str, owner: &str) -> Result<Session> {
        if !is_upload_id(id) {
            return Err(Error::NotFound);
        }
        let (id, repository, owner) = (id.to_owned(), repository.clone(), owner.to_owned());
        let found =
            self.core.database.read(move |names| sessions::find(names, &id, &repository, &owner)).await?;
        found.ok_or(Error::NotFound)
    }

    /// Gets the right to work on an upload alone, and how far it has come.
    async fn take_turn(&self, repository: &RepositoryName, id: &str, owner: &str) -> Result<(Turn, Session)> {
        let turn = Turn::take(&self.core, id);
        // Whether it is busy is told only to its owner. Read after the turn was taken, so it stays true.
        let session = self.session(repository, id, owner).await?;
        Ok((turn.ok_or(Error::Busy)?, session))
    }
}

/// The right to work on an upload alone, while this lives.
#[derive(Debug)]
pub(crate) struct Turn {
    core: Arc<Core>,
    id: String,
}

impl Turn {
    /// `None` when somebody has it.
    pub(crate) fn take(core: &Arc<Core>, id: &str) -> Option<Self> {
        let mut busy = core.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.insert(id.to_owned()).then(|| Self { core: Arc::clone(core), id: id.to_owned() })
    }

    /// Whether somebody has it.
    pub(crate) fn is_taken(core: &Core, id: &str) -> bool {
        core.busy.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.core.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Opens the file of an upload where it ends, with the hasher for what is in it. Blocks.
fn open(core: &Core, id: &str, session: Session) -> Result<(File, Hasher)> {
    core.faults.at(faults::STAGE_CREATE)?;
    let path = core.layout.upload(id);
    let begins = session.position == 0;
    let file = match File::options().read(true).write(true).create(begins).truncate(false).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::NotFound),
        Err(error) => return Err(error.into()),
    };
    let len = file.metadata()?.len();
    if len < session.position {
        return Err(Error::Corrupt(format!("upload {id} has {len} bytes of {}", session.position)));
    }
    if len > session.position {
        file.set_len(session.position)?;
    }
    let hasher = match Hasher::resume(&session.state) {
        Some(hasher) => hasher,
        // A hasher of another version of this program: the bytes are still good.
        None => disk::hash_file(File::open(&path)?, Algorithm::Sha256, session.position, |_| {})?.0,
    };
    Ok((file, hasher))
}

/// Ends an upload whose bytes are gone or damaged; nobody can go on with it.
async fn end_if_gone<T>(core: &Arc<Core>, turn: &Turn, opened: Result<T>) -> Result<T> {
    if matches!(opened, Err(Error::NotFound | Error::Corrupt(_))) {
        tracing::error!(upload = turn.id, "an upload has lost bytes; it is ended");
        end(core, turn).await?;
        return Err(Error::NotFound);
    }
    opened
}

/// Ends an upload and removes its file.
async fn end(core: &Arc<Core>, turn: &Turn) -> Result<()> {
    let id = turn.id.clone();
    core.database.change(move |tx| sessions::end(tx, &id)).await?;
    remove_file(core, &turn.id).await
}

/// Ends an upload if nobody touched it after `before`, and removes its file.
pub(crate) async fn expire(core: &Arc<Core>, turn: &Turn, before: i64) -> Result<bool> {
    let id = turn.id.clone();
    let expired = core.database.change(move |tx| sessions::expire(tx, &id, before)).await?;
    if expired {
        remove_file(core, &turn.id).await?;
    }
    Ok(expired)
}

/// Removes the file of an upload whose row is gone.
async fn remove_file(core: &Arc<Core>, id: &str) -> Result<()> {
    let path = core.layout.upload(id);
    core.blocking(move || {
        disk::remove_if_there(&path)?;
        Ok(())
    })
    .await
}

/// See [`Uploads::finish`].
async fn finish(
    core: Arc<Core>,
    turn: Turn,
    session: Session,
    repository: RepositoryName,
    digest: Digest,
) -> Result<u64> {
    let size = session.position;
    // A crash, or an error, after the file got its place and before the row went: the bytes are proven already.
    let (layout, name) = (core.layout.clone(), turn.id.clone());
    let state = session.state.clone();
    let placed = core
        .blocking(move || {
            let moved = disk::size_if_there(&layout.upload(&name))?.is_none();
            let proven = Hasher::resume(&state).is_some_and(|hasher| hasher.finish() == digest);
            Ok(moved && proven && disk::size_if_there(&layout.blob(&digest))? == Some(size))
        })
        .await?;
    if !placed {
        let (opening, name) = (Arc::clone(&core), turn.id.clone());
        let opened = core.blocking(move || open(&opening, &name, session)).await;
        let (file, hasher) = end_if_gone(&core, &turn, opened).await?;
        prove(&core, &turn, Arc::new(file), hasher, digest).await?;
    }
    settle(&core, &turn, size, repository, digest).await?;
    Ok(size)
}

/// Proves the bytes of an upload; on a mismatch the upload is gone.
async fn prove(core: &Arc<Core>, turn: &Turn, file: Arc<File>, hasher: Hasher, digest: Digest) -> Result<()> {
    let (proving, path) = (Arc::clone(core), core.layout.upload(&turn.id));
    let proven = core.blocking(move || place::prove(&proving, &file, &path, hasher, &digest)).await;
    if matches!(proven, Err(Error::Mismatch { .. })) {
        end(core, turn).await?;
    }
    proven
}

/// Puts the proven bytes of an upload in their place and ends it.
async fn settle(
    core: &Arc<Core>,
    turn: &Turn,
    size: u64,
    repository: RepositoryName,
    digest: Digest,
) -> Result<()> {
    let (id, source) = (turn.id.clone(), Source::File(core.layout.upload(&turn.id)));
    let change = move |tx: &mut Tx<'_>| {
        sessions::end(tx, &id)?;
        names::blobs::link(tx, &repository, &digest)
    };
    place::settle(core, digest, size, source, change).await?;
    remove_file(core, &turn.id).await
}

/// An upload that is being written to.
///
/// When it is dropped instead of finished, for instance because the client's connection broke, what arrived is kept as
/// far as it reached the disk; until that is recorded the upload is [`Error::Busy`].
#[derive(Debug)]
pub struct Appender(Way);

#[derive(Debug)]
enum Way {
    /// Into a file; taken when it is finished or dropped.
    File(Option<Open>),
    /// To a bucket.
    Bucket(Spool),
}

impl Way {
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::File(None))
    }
}

#[derive(Debug)]
struct Open {
    inflow: Inflow,
    turn: Turn,
    /// How many bytes were there before.
    from: u64,
}

impl Appender {
    /// Queues the next bytes; waits while the queue is full. When the future is dropped, either none of up to 4 MiB of
    /// bytes are queued or all are.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        match &self.0 {
            Way::File(Some(open)) => open.inflow.push(bytes).await,
            Way::File(None) => Err(Error::closed()),
            Way::Bucket(spool) => spool.write(bytes).await,
        }
    }

    /// Makes what was written durable and returns the new offset. After a failure the upload continues at what
    /// [`Uploads::offset`] says.
    pub async fn finish(mut self) -> Result<u64> {
        match self.0.take() {
            Way::File(Some(open)) => {
                let core = Arc::clone(&open.turn.core);
                core.to_the_end(open.record()).await
            }
            Way::File(None) => Err(Error::closed()),
            Way::Bucket(spool) => spool.finish().await,
        }
    }

    /// Does what [`Appender::finish`] and then [`Uploads::finish`] would do, with one wait for the disk instead of two:
    /// checks the digest, makes the blob durable and visible in `repository`, and ends the upload.
    pub async fn commit(mut self, repository: &RepositoryName, digest: &Digest) -> Result<u64> {
        let (repository, digest) = (repository.clone(), *digest);
        match self.0.take() {
            Way::File(Some(open)) => {
                let core = Arc::clone(&open.turn.core);
                core.to_the_end(open.commit(repository, digest)).await
            }
            Way::File(None) => Err(Error::closed()),
            Way::Bucket(spool) => spool.commit(repository, digest).await,
        }
    }
}

impl Open {
    /// Syncs and records what is in the file; fails with what writing failed with, after that.
    async fn record(self) -> Result<u64> {
        let drained = self.inflow.drain().await;
        let (len, hasher) = self.inflow.written();
        let core = Arc::clone(&self.turn.core);
        if len > self.from {
            let (syncing, file, begins) = (Arc::clone(&core), Arc::clone(self.inflow.file()), self.from == 0);
            core.blocking(move || {
                syncing.faults.at(faults::UPLOAD_SYNC)?;
                file.sync_data()?;
                if begins {
                    disk::sync_directory(&syncing.layout.uploads())?;
                }
                Ok(())
            })
            .await?;
            let id = self.turn.id.clone();
            core.database.change(move |tx| sessions::advance(tx, &id, len, &hasher.save())).await?;
        }
        drained?;
        Ok(len)
    }

    async fn commit(self, repository: RepositoryName, digest: Digest) -> Result<u64> {
        let (size, hasher) = match self.inflow.drain().await {
            Ok(written) => written,
            Err(_) => return self.record().await,
        };
        let core = Arc::clone(&self.turn.core);
        prove(&core, &self.turn, Arc::clone(self.inflow.file()), hasher, digest).await?;
        settle(&core, &self.turn, size, repository, digest).await?;
        Ok(size)
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        if let Way::File(Some(open)) = self.0.take() {
            let core = Arc::clone(&open.turn.core);
            let id = open.turn.id.clone();
            let record = async move {
                if let Err(error) = open.record().await {
                    tracing::debug!(upload = id, %error, "an interrupted chunk was not kept whole");
                }
            };
            core.tasks.spawn_on(record, &core.runtime);
        }
    }
}
