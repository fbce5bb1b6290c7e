//! A bounded queue of bytes into one file, which are hashed and written on a blocking thread while more arrive.
//!
//! The thread is borrowed only while there is something to write: a slow sender holds none. While it works, what
//! arrives gathers, so that a fast sender's bytes are written in large pieces.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use deltaport_oci::Hasher;
use tokio::sync::{Notify, Semaphore, watch};

use crate::core::Core;
use crate::error::{Error, Result};
use crate::faults;

/// How many bytes may wait to be written.
const QUEUE: usize = 4 << 20;
/// How many bytes are written and hashed in one go, and then make room in the queue.
const BATCH: usize = 1 << 20;
/// How many pieces one write gathers at most; the system's limit is 1024.
const PIECES: usize = 256;
/// After how many bytes the disk is told to begin with what was written.
const WRITE_BACK: u64 = 4 << 20;

/// The way into the file.
#[derive(Clone, Debug)]
pub(crate) struct Inflow {
    core: Arc<Core>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    file: Arc<File>,
    queue: Mutex<Queue>,
    body: Mutex<Body>,
    /// What of `body` may be asked for while the thread works on it.
    written: Mutex<(u64, Hasher)>,
    /// One permit for each byte that may be queued; closed after a failure.
    room: Semaphore,
    progress: watch::Sender<u64>,
    /// Told when the thread stops working.
    idle: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Bytes>,
    running: bool,
    failure: Option<Error>,
}

/// What is in the file.
#[derive(Debug)]
struct Body {
    len: u64,
    hasher: Hasher,
    /// Up to where the disk has been told to begin.
    begun: u64,
}

impl Inflow {
    /// Goes on with a file of `len` bytes over which `hasher` has run.
    pub(crate) fn new(core: &Arc<Core>, file: File, len: u64, hasher: Hasher) -> Self {
        let shared = Shared {
            file: Arc::new(file),
            queue: Mutex::default(),
            written: Mutex::new((len, hasher.clone())),
            body: Mutex::new(Body { len, hasher, begun: len }),
            room: Semaphore::new(QUEUE),
            progress: watch::Sender::new(len),
            idle: Notify::new(),
        };
        Self { core: Arc::clone(core), shared: Arc::new(shared) }
    }

    pub(crate) fn file(&self) -> &Arc<File> {
        &self.shared.file
    }

    /// How many bytes are in the file.
    pub(crate) fn progress(&self) -> watch::Receiver<u64> {
        self.shared.progress.subscribe()
    }

    /// Queues bytes; waits while the queue is full. Fails with what an earlier write failed with.
    pub(crate) async fn push(&self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(QUEUE));
            let permits = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            match self.shared.room.acquire_many(permits).await {
                Ok(room) => room.forget(),
                Err(_) => return Err(self.failure()),
            }
            let start = {
                let mut queue = locked(&self.shared.queue);
                if let Some(failure) = &queue.failure {
                    return Err(failure.share());
                }
                queue.chunks.push_back(chunk);
                !std::mem::replace(&mut queue.running, true)
            };
            if start {
                let (core, shared) = (Arc::clone(&self.core), Arc::clone(&self.shared));
                self.core.tasks.spawn_blocking_on(move || shared.work(&core), &self.core.runtime);
            }
        }
        Ok(())
    }

    /// Waits until everything that was queued is in the file; how many bytes that are, and the hasher after them.
    pub(crate) async fn drain(&self) -> Result<(u64, Hasher)> {
        self.rest().await;
        match &locked(&self.shared.queue).failure {
            Some(failure) => Err(failure.share()),
            None => Ok(self.written()),
        }
    }

    /// Waits until nothing more is written, for better or worse.
    pub(crate) async fn rest(&self) {
        loop {
            let mut told = pin!(self.shared.idle.notified());
            told.as_mut().enable();
            if !locked(&self.shared.queue).running {
                return;
            }
            told.await;
        }
    }

    /// What is in the file and hashed, also after a failure.
    pub(crate) fn written(&self) -> (u64, Hasher) {
        locked(&self.shared.written).clone()
    }

    /// Takes nothing more: what is queued is dropped, and every later write fails with `error`. What is being written
    /// at the moment is still written; see [`Inflow::rest`].
    pub(crate) fn stop(&self, error: Error) {
        let mut queue = locked(&self.shared.queue);
        queue.chunks.clear();
        queue.failure.get_or_insert(error);
        drop(queue);
        self.shared.room.close();
    }

    fn failure(&self) -> Error {
        locked(&self.shared.queue).failure.as_ref().map_or_else(Error::closed, Error::share)
    }
}

impl Shared {
    /// Writes until nothing waits.
    fn work(&self, core: &Core) {
        let mut body = locked(&self.body);
        loop {
            let Some(batch) = self.next_batch() else { return };
            let size: usize = batch.iter().map(Bytes::len).sum();
            if let Err(error) = self.write(core, &mut body, &batch, size as u64) {
                drop(body);
                self.fail(error);
                return;
            }
            drop(batch);
            self.room.add_permits(size);
            self.progress.send_replace(body.len);
        }
    }

    /// Takes the next pieces from the queue; the thread's work is over when there are none.
    fn next_batch(&self) -> Option<Vec<Bytes>> {
        let mut queue = locked(&self.queue);
        let (mut batch, mut size) = (Vec::new(), 0);
        while size < BATCH && batch.len() < PIECES {
            let Some(chunk) = queue.chunks.pop_front() else { break };
            size += chunk.len();
            batch.push(chunk);
        }
        if batch.is_empty() {
            queue.running = false;
            drop(queue);
            self.idle.notify_waiters();
            return None;
        }
        Some(batch)
    }

    fn write(&self, core: &Core, body: &mut Body, batch: &[Bytes], size: u64) -> Result<()> {
        core.take_space(size)?;
        core.faults.at(faults::STAGE_WRITE)?;
        write_all_at(&self.file, batch, body.len)?;
        // Hashed after it was written, so that after a failure length and hash still belong together.
        for chunk in batch {
            body.hasher.update(chunk);
        }
        body.len += size;
        *locked(&self.written) = (body.len, body.hasher.clone());
        if body.len - body.begun >= WRITE_BACK {
            begin_write_back(&self.file, body.begun, body.len);
            body.begun = body.len;
        }
        Ok(())
    }

    fn fail(&self, error: Error) {
        let mut queue = locked(&self.queue);
        queue.chunks.clear();
        queue.failure = Some(error);
        queue.running = false;
        drop(queue);
        self.room.close();
        self.idle.notify_waiters();
    }
}

/// Writes all pieces, one behind the other.
fn write_all_at(file: &File, pieces: &[Bytes], mut offset: u64) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        match rustix::io::pwritev(file, rest, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                offset += count as u64;
                IoSlice::advance_slices(&mut rest, count);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Lets the disk begin with what was just written, so that the sync at the end finds most of it done. On Linux, advice
/// that pages are not needed starts their write-back and waits for nothing; pages under way stay in memory.
fn begin_write_back(file: &File, start: u64, end: u64) {
    #[cfg(target_os = "linux")]
    if let Some(len) = std::num::NonZeroU64::new(end - start) {
        // Advice: it does no harm when it is not taken.
        let _ = rustix::fs::fadvise(file, start, Some(len), rustix::fs::Advice::DontNeed);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, start, end);
}

/// A thread that panicked has left a hash that fits nothing, and the digest check finds that.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
