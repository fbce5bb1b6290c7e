//! An upload on its way to a bucket: bytes gather in a local file until they are a part, and while it is sent the next
//! gather.
//!
//! A sender on a slow link costs disk space and no memory, and one on a fast link waits for the bucket. Every part that is
//! there is recorded with the state of the hash behind it, so that another replica can go on there.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use deltaport_oci::{Digest, Hasher, RepositoryName};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::finish::{Ending, Last};
use super::lease::Lease;
use crate::bucket::send::{self, MOST_PARTS, part_len, parts_len};
use crate::bucket::{Bucket, Fault, Place};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::faults;
use crate::inflow::Inflow;
use crate::names::parts::{self, Progress, Tail};

/// How many bytes may wait to be taken.
const QUEUE: usize = 4 << 20;
/// Up to so many bytes behind the last part are kept in the row of the upload, which spares an object.
const ROW_TAIL: u64 = 64 << 10;

/// The way into an upload.
#[derive(Debug)]
pub(super) struct Spool {
    messages: mpsc::UnboundedSender<Message>,
    /// One permit for each byte that may wait; closed after a failure.
    room: Arc<Semaphore>,
    failure: Arc<Mutex<Option<Error>>>,
}

#[derive(Debug)]
enum Message {
    Bytes(Bytes),
    Finish(oneshot::Sender<Result<u64>>),
    Commit(RepositoryName, Digest, oneshot::Sender<Result<u64>>),
}

impl Spool {
    /// Goes on with an upload where `progress` says that it is.
    pub(super) async fn open(
        core: &Arc<Core>,
        bucket: &Arc<Bucket>,
        lease: Lease,
        progress: Progress,
    ) -> Result<Self> {
        let Some(hasher) = Hasher::resume(&progress.state) else {
            // A hasher of another version of this program, and bytes that cannot be read before they are an object.
            tracing::warn!(upload = lease.id(), "an upload of another version of this program is ended");
            lease.end(|tx, id, holder| parts::cancel(tx, id, holder)).await?;
            return Err(Error::NotFound);
        };
        let file = part_file(core).await?;
        let filled = match restore(core, bucket, &progress, &file).await {
            Ok(filled) => filled,
            Err(Fault::Gone) => {
                tracing::error!(upload = lease.id(), "the bucket has lost the end of an upload; it is ended");
                lease.end(|tx, id, holder| parts::cancel(tx, id, holder)).await?;
                return Err(Error::NotFound);
            }
            Err(fault) => {
                lease.release().await?;
                return Err(fault.into());
            }
        };
        let inflow = Inflow::new(core, file, filled, hasher);
        let (messages, received) = mpsc::unbounded_channel();
        let (room, failure) = (Arc::new(Semaphore::new(QUEUE)), Arc::default());
        let worker = Worker {
            core: Arc::clone(core),
            bucket: Arc::clone(bucket),
            lease,
            progress,
            inflow,
            filled,
            under_way: None,
        };
        let served = worker.serve(received, Arc::clone(&room), Arc::clone(&failure));
        core.tasks.spawn_on(served, &core.runtime);
        Ok(Self { messages, room, failure })
    }

    /// Queues the next bytes; waits while the queue is full.
    pub(super) async fn write(&self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(QUEUE));
            let permits = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            match self.room.acquire_many(permits).await {
                Ok(room) => room.forget(),
                Err(_) => return Err(self.failed()),
            }
            self.messages.send(Message::Bytes(chunk)).map_err(|_| self.failed())?;
        }
        Ok(())
    }

    /// Records everything and returns the new offset.
    pub(super) async fn finish(self) -> Result<u64> {
        let (reply, answer) = oneshot::channel();
        self.messages.send(Message::Finish(reply)).map_err(|_| self.failed())?;
        answer.await.map_err(|_| Error::closed())?
    }

    /// Makes a blob of it.
    pub(super) async fn commit(self, repository: RepositoryName, digest: Digest) -> Result<u64> {
        let (reply, answer) = oneshot::channel();
        self.messages.send(Message::Commit(repository, digest, reply)).map_err(|_| self.failed())?;
        answer.await.map_err(|_| Error::closed())?
    }

    fn failed(&self) -> Error {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().map_or_else(Error::closed, Error::share)
    }
}

/// A file without a name for the bytes of a part.
async fn part_file(core: &Arc<Core>) -> Result<File> {
    let making = Arc::clone(core);
    core.blocking(move || {
        making.faults.at(faults::STAGE_CREATE)?;
        Ok(tempfile::tempfile_in(making.layout.staging())?)
    })
    .await
}

/// Puts what is behind the last part of an upload into a file, for more to come behind it; how many bytes that are.
async fn restore(core: &Core, bucket: &Bucket, progress: &Progress, file: &File) -> Result<u64, Fault> {
    let (tail, _room) = match &progress.tail {
        Tail::Row(bytes) => (bytes.clone().into(), None),
        Tail::Object(place) => {
            let (bytes, room) = send::end(core, bucket, place, tail_len(progress)).await?.into_parts();
            (bytes, Some(room))
        }
    };
    let (file, len) = (file.try_clone()?, tail.len() as u64);
    core.blocking(move || Ok(file.write_all_at(&tail, 0)?)).await.map_err(Fault::here)?;
    Ok(len)
}

/// How many bytes are behind the last part.
pub(super) fn tail_len(progress: &Progress) -> u64 {
    progress.position.saturating_sub(parts_len(progress.part_size, progress.tags.len()))
}

/// Who takes the bytes.
struct Worker {
    core: Arc<Core>,
    bucket: Arc<Bucket>,
    lease: Lease,
    progress: Progress,
    /// The part that is gathering.
    inflow: Inflow,
    /// How many bytes it has been given.
    filled: u64,
    under_way: Option<UnderWay>,
}

/// A part that is being sent.
struct UnderWay {
    tag: JoinHandle<Result<String>>,
    /// The hasher behind it.
    state: Vec<u8>,
}

impl Worker {
    async fn serve(
        mut self,
        mut messages: mpsc::UnboundedReceiver<Message>,
        room: Arc<Semaphore>,
        failure: Arc<Mutex<Option<Error>>>,
    ) {
        let closing = self.core.closing.clone();
        let mut failed = None;
        loop {
            let message = tokio::select! {
                biased;
                message = messages.recv() => message,
                () = closing.cancelled() => None,
            };
            match message {
                Some(Message::Bytes(_)) if failed.is_some() => {}
                Some(Message::Bytes(bytes)) => {
                    let len = bytes.len();
                    match self.take(bytes).await {
                        Ok(()) => room.add_permits(len),
                        Err(error) => {
                            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.share());
                            room.close();
                            failed = Some(error);
                        }
                    }
                }
                Some(Message::Finish(reply)) => {
                    // Who asked may have gone away; what is recorded stands all the same.
                    let _ = reply.send(self.record(failed).await);
                    return;
                }
                Some(Message::Commit(repository, digest, reply)) => {
                    let done = match failed {
                        None => self.commit(repository, digest).await,
                        failed => self.record(failed).await,
                    };
                    let _ = reply.send(done);
                    return;
                }
                None => {
                    let id = self.lease.id().to_owned();
                    if let Err(error) = self.record(failed).await {
                        tracing::debug!(upload = id, %error, "an interrupted chunk was not kept whole");
                    }
                    return;
                }
            }
        }
    }

    async fn take(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let parts = self.progress.tags.len() + usize::from(self.under_way.is_some());
            let whole = part_len(self.progress.part_size, parts);
            let room = usize::try_from(whole - self.filled).unwrap_or(usize::MAX);
            let chunk = bytes.split_to(bytes.len().min(room));
            self.filled += chunk.len() as u64;
            self.inflow.push(chunk).await?;
            if self.filled == whole {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    /// Has the part that is full sent, and begins the next.
    async fn send_part(&mut self) -> Result<()> {
        self.end_part().await?;
        let (len, hasher) = self.inflow.drain().await?;
        let index = self.progress.tags.len();
        if index as u64 >= MOST_PARTS {
            return Err(Error::Io(std::io::Error::other("a blob of more parts than services take")));
        }
        let (object, multipart) = self.object().await?;
        let file = Arc::clone(self.inflow.file());
        let (core, bucket) = (Arc::clone(&self.core), Arc::clone(&self.bucket));
        let sent = async move {
            let piece = send::piece(&core, &bucket, &file, 0, len).await?;
            Ok(bucket.put_part(&object, &multipart, index, piece.bytes).await?)
        };
        let tag = self.core.runtime.spawn(sent);
        self.under_way = Some(UnderWay { tag, state: hasher.save() });
        self.inflow = Inflow::new(&self.core, part_file(&self.core).await?, 0, hasher);
        self.filled = 0;
        Ok(())
    }

    /// The object that parts are sent to.
    async fn object(&mut self) -> Result<(Place, String)> {
        if let Some(object) = &self.progress.object {
            return Ok(object.clone());
        }
        let place = Place::draw()?;
        let multipart = self.bucket.create_multipart(&place).await?;
        let begun = (place.clone(), multipart.clone());
        self.lease.change(move |tx, id, holder| parts::begin(tx, id, holder, &begun.0, &begun.1)).await?;
        Ok(self.progress.object.insert((place, multipart)).clone())
    }

    /// Waits for the part that is being sent, and records it.
    async fn end_part(&mut self) -> Result<()> {
        let Some(UnderWay { tag, state }) = self.under_way.take() else { return Ok(()) };
        let (tag, index) = (tag.await??, self.progress.tags.len());
        let position = parts_len(self.progress.part_size, index + 1);
        let name = tag.clone();
        self.lease
            .change(move |tx, id, holder| parts::add(tx, id, holder, (index, &name), position, &state))
            .await?;
        self.progress.tags.push(tag);
        self.progress.position = position;
        self.progress.tail = Tail::default();
        Ok(())
    }

    /// Records everything that has arrived and gives the upload back; fails with what has failed before, after that.
    async fn record(mut self, failed: Option<Error>) -> Result<u64> {
        if let Err(error) = self.end_part().await {
            return self.give_up(failed.unwrap_or(error)).await;
        }
        match failed {
            // It has been waited for the bucket already.
            Some(error @ Error::Unavailable { .. }) => self.give_up(error).await,
            // A full disk, say: what is in the file is good.
            failed => {
                let drained = self.inflow.drain().await.map(|_| ());
                let recorded = self.record_tail().await?;
                failed.map_or(drained, Err)?;
                Ok(recorded)
            }
        }
    }

    async fn give_up(self, error: Error) -> Result<u64> {
        if let Err(error) = self.lease.release().await {
            tracing::debug!(%error, "a lease was not given back; it runs out");
        }
        Err(error)
    }

    /// Records what is behind the last part.
    async fn record_tail(self) -> Result<u64> {
        let (len, hasher) = self.inflow.written();
        let position = parts_len(self.progress.part_size, self.progress.tags.len()) + len;
        if position == self.progress.position {
            self.lease.release().await?;
            return Ok(position);
        }
        let piece = send::piece(&self.core, &self.bucket, self.inflow.file(), 0, len).await?;
        let tail = match len <= ROW_TAIL {
            true => Tail::Row(piece.bytes.to_vec()),
            false => {
                let spare = self.progress.spare.clone();
                self.lease.use_spare();
                self.bucket.put(&spare, piece.bytes).await?;
                self.bucket.keep_end(&spare, self.inflow.file());
                Tail::Object(spare)
            }
        };
        let state = hasher.save();
        self.lease.end(move |tx, id, holder| parts::rest(tx, id, holder, &tail, position, &state)).await?;
        Ok(position)
    }

    async fn commit(mut self, repository: RepositoryName, digest: Digest) -> Result<u64> {
        if let Err(error) = self.end_part().await {
            return self.give_up(error).await;
        }
        let (len, hasher) = match self.inflow.drain().await {
            Ok(written) => written,
            Err(error) => return self.record(Some(error)).await,
        };
        let size = parts_len(self.progress.part_size, self.progress.tags.len()) + len;
        let last = Last::File(Arc::clone(self.inflow.file()), len);
        let Self { core, bucket, lease, progress, .. } = self;
        Ending { core, bucket, lease, progress, size, hasher }.conclude(last, repository, digest).await
    }
}
