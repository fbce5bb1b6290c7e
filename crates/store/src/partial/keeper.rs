//! Who records how far a partial has come, beside the writing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::What;
use super::record::Record;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::inflow::Inflow;
use crate::uploads::Turn;
use crate::{disk, faults};

/// Whenever so many bytes more have arrived, it is recorded: what a crash costs on a fast link, besides what arrives while
/// the disk syncs.
const STEP: u64 = 4 << 20;
/// After this time it is recorded whatever has arrived: what a crash costs on a slow link.
const INTERVAL: Duration = Duration::from_secs(10);

/// Records how far a partial has come until it is told to end.
pub(super) struct Keeper {
    core: Arc<Core>,
    what: Arc<What>,
    inflow: Inflow,
    turn: Turn,
    /// How many bytes the record counts.
    recorded: u64,
    /// How many there were when it was last tried to record them.
    tried: u64,
    /// Whether there is a record, and the names of the two files are durable.
    named: bool,
}

/// A [`Keeper`] at work. When this is dropped, it records what there is and ends.
#[derive(Debug)]
pub(super) struct Keeping {
    /// Sent to: end at once. Dropped: record, then end.
    leave: oneshot::Sender<()>,
    /// Gives back the right to work on the partial.
    task: JoinHandle<Turn>,
}

impl Keeper {
    /// Begins to keep what `inflow` writes, of which `recorded` bytes are recorded already.
    pub(super) fn start(
        core: &Arc<Core>,
        what: &Arc<What>,
        inflow: &Inflow,
        turn: Turn,
        recorded: u64,
    ) -> Keeping {
        let keeper = Self {
            core: Arc::clone(core),
            what: Arc::clone(what),
            inflow: inflow.clone(),
            turn,
            recorded,
            tried: recorded,
            named: recorded > 0,
        };
        let (leave, left) = oneshot::channel();
        Keeping { leave, task: core.tasks.spawn_on(keeper.keep(left), &core.runtime) }
    }

    async fn keep(mut self, mut left: oneshot::Receiver<()>) -> Turn {
        let mut arrived = self.inflow.progress();
        let closing = self.core.closing.clone();
        let mut next = Instant::now() + INTERVAL;
        loop {
            let due = tokio::select! {
                biased;
                told = &mut left => {
                    if told.is_err() {
                        self.end().await;
                    }
                    return self.turn;
                }
                () = closing.cancelled() => {
                    self.inflow.stop(Error::closed());
                    self.end().await;
                    return self.turn;
                }
                () = tokio::time::sleep_until(next) => true,
                changed = arrived.changed() => {
                    changed.is_ok() && *arrived.borrow_and_update() / STEP > self.tried / STEP
                }
            };
            if due {
                self.record().await;
                next = Instant::now() + INTERVAL;
            }
        }
    }

    /// Records what there is when nothing more comes. A file without a record is of no use to anybody.
    async fn end(&mut self) {
        self.inflow.rest().await;
        self.record().await;
        if !self.named {
            let path = self.core.layout.partial(&self.what.key);
            let removed = self.core.blocking(move || Ok(disk::remove_if_there(&path)?)).await;
            if let Err(error) = removed {
                tracing::debug!(digest = %self.what.digest, %error, "an empty partial stays until the next start");
            }
        }
    }

    /// Syncs what is in the file and records it.
    async fn record(&mut self) {
        let (length, hasher) = self.inflow.written();
        if length <= self.recorded {
            return;
        }
        self.tried = length;
        let What { repository, digest, .. } = &*self.what;
        let (repository, digest) = (repository.clone(), *digest);
        let record = Record { repository, digest, size: self.what.size(), length, hasher };
        let synced = self.sync().await;
        if let Err(error) = synced {
            // The system has forgotten what it could not write: the next sync would not tell.
            tracing::warn!(%digest, %error, "what has arrived of a blob could not be made durable");
            self.recorded = u64::MAX;
            self.inflow.stop(error);
            return;
        }
        match self.write(record).await {
            Ok(()) => (self.recorded, self.named) = (length, true),
            Err(error) => tracing::debug!(%digest, %error, "it is not recorded what has arrived of a blob"),
        }
    }

    async fn sync(&self) -> Result<()> {
        let (core, file) = (Arc::clone(&self.core), Arc::clone(self.inflow.file()));
        self.core
            .blocking(move || {
                core.faults.at(faults::PARTIAL_SYNC)?;
                Ok(file.sync_data()?)
            })
            .await
    }

    async fn write(&self, record: Record) -> Result<()> {
        let (core, what, named) = (Arc::clone(&self.core), Arc::clone(&self.what), self.named);
        self.core
            .blocking(move || {
                record.write(&core, &what.key)?;
                if !named {
                    disk::sync_directory(&core.layout.partials())?;
                }
                Ok(())
            })
            .await
    }
}

impl Keeping {
    /// Ends the keeping without another record, and takes the right to work on the partial.
    pub(super) async fn leave(self) -> Result<Turn> {
        // It may have ended already, because the store closes.
        let _ = self.leave.send(());
        Ok(self.task.await?)
    }

    /// Ends the keeping when everything is recorded.
    pub(super) async fn close(self) {
        let Self { leave, task } = self;
        drop(leave);
        // It does not panic; if it did, the record before would stand.
        let _ = task.await;
    }
}
