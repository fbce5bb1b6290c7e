//! The right to work on an upload alone, among all replicas: a lease on its row, renewed while this lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use deltaport_oci::RepositoryName;
use tokio::task::JoinHandle;

use crate::bucket::{Bucket, Place};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::layout::is_upload_id;
use crate::names::Tx;
use crate::names::parts::{self, LEASE, Progress};

/// How many times a lease is renewed within its length, so that one that fails does no harm.
const RENEWALS: u32 = 3;

/// A lease on an upload. When it is dropped before the upload is given back or ended, it is given back.
#[derive(Debug)]
pub(super) struct Lease {
    core: Arc<Core>,
    id: Arc<str>,
    holder: Place,
    renewing: JoinHandle<()>,
    /// Whether the row knows of it.
    held: bool,
    /// Whether the object that is the holder's to make may have been made.
    spare_used: AtomicBool,
}

impl Lease {
    /// Takes the lease on an upload of this repository and owner; see [`parts::acquire`].
    pub(super) async fn acquire(
        core: &Arc<Core>,
        bucket: &Bucket,
        repository: &RepositoryName,
        id: &str,
        owner: &str,
    ) -> Result<(Self, Progress)> {
        if !is_upload_id(id) {
            return Err(Error::NotFound);
        }
        let (id, holder, part_size): (Arc<str>, _, _) = (id.into(), Place::draw()?, bucket.options.part_size);
        let (taking, repository, owner) = (Arc::clone(core), repository.clone(), owner.to_owned());
        // To its end: a lease that nobody knows of would keep everybody waiting.
        core.to_the_end(async move {
            let (name, by) = (Arc::clone(&id), holder.clone());
            let progress = taking
                .database
                .change(move |tx| parts::acquire(tx, &name, &repository, &owner, &by, part_size))
                .await?;
            let renewing = renew(&taking, &id, &holder);
            Ok((
                Self { core: taking, id, holder, renewing, held: true, spare_used: AtomicBool::new(false) },
                progress,
            ))
        })
        .await
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Changes something of the upload; `change` is given its name and that of the holder.
    pub(super) async fn change<F>(&self, change: F) -> Result<()>
    where
        F: Fn(&mut Tx<'_>, &str, &Place) -> Result<()> + Send + 'static,
    {
        let (id, holder) = (Arc::clone(&self.id), self.holder.clone());
        self.core.database.change(move |tx| change(tx, &id, &holder)).await
    }

    /// Says that the object that is the holder's to make is about to be made.
    pub(super) fn use_spare(&self) {
        self.spare_used.store(true, Ordering::Relaxed);
    }

    /// The same as [`Lease::change`] with a change after which nobody holds the upload.
    pub(super) async fn end<F>(mut self, change: F) -> Result<()>
    where
        F: Fn(&mut Tx<'_>, &str, &Place) -> Result<()> + Send + 'static,
    {
        let used = self.spare_used.load(Ordering::Relaxed);
        let ended = self
            .change(move |tx, id, holder| {
                if !used {
                    parts::forget_spare(tx, id, holder)?;
                }
                change(tx, id, holder)
            })
            .await;
        self.held = ended.is_err();
        ended
    }

    /// Gives it back.
    pub(super) async fn release(self) -> Result<()> {
        self.end(|tx, id, holder| parts::release(tx, id, holder)).await
    }
}

/// Goes on holding a lease, until the task is aborted or somebody else has it.
fn renew(core: &Arc<Core>, id: &Arc<str>, holder: &Place) -> JoinHandle<()> {
    let (core, id, holder) = (Arc::clone(core), Arc::clone(id), holder.clone());
    let runtime = core.runtime.clone();
    runtime.spawn(async move {
        loop {
            tokio::time::sleep(LEASE / RENEWALS).await;
            let (name, by) = (Arc::clone(&id), holder.clone());
            match core.database.change(move |tx| parts::renew(tx, &name, &by)).await {
                Ok(()) => {}
                // What is recorded from here on fails, and whoever works on it hears of it then.
                Err(Error::Busy | Error::NotFound) => return,
                Err(error) => tracing::debug!(upload = &*id, %error, "a lease could not be renewed"),
            }
        }
    })
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
        if !self.held {
            return;
        }
        let (core, id, holder) = (Arc::clone(&self.core), Arc::clone(&self.id), self.holder.clone());
        let release = async move {
            let name = Arc::clone(&id);
            if let Err(error) = core.database.change(move |tx| parts::release(tx, &name, &holder)).await {
                tracing::debug!(upload = &*id, %error, "a lease was not given back; it runs out");
            }
        };
        self.core.tasks.spawn_on(release, &self.core.runtime);
    }
}
