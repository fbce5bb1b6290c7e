//! The end of an upload that went to a bucket: its last part, the object, and the row that makes it a blob.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use deltaport_oci::wire::ByteRange;
use deltaport_oci::{Digest, Hasher, RepositoryName};

use super::lease::Lease;
use super::spool::tail_len;
use crate::bucket::read::Object;
use crate::bucket::send;
use crate::bucket::{Bucket, Completed, Fault, Place};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::names::parts::{self, Progress, Tail};

/// What is behind the last part.
pub(super) enum Last {
    /// The first bytes of a local file.
    File(Arc<File>, u64),
    /// Bytes from the row, or none.
    Bytes(Vec<u8>),
    /// An object of its own.
    Object(Place, u64),
}

impl Last {
    fn is_empty(&self) -> bool {
        match self {
            Self::File(_, len) | Self::Object(_, len) => *len == 0,
            Self::Bytes(bytes) => bytes.is_empty(),
        }
    }
}

/// An upload that has all its bytes.
pub(super) struct Ending {
    pub(super) core: Arc<Core>,
    pub(super) bucket: Arc<Bucket>,
    pub(super) lease: Lease,
    pub(super) progress: Progress,
    pub(super) size: u64,
    pub(super) hasher: Hasher,
}

/// Makes a blob of what has been recorded of an upload.
pub(super) async fn finish(
    core: Arc<Core>,
    bucket: Arc<Bucket>,
    lease: Lease,
    progress: Progress,
    repository: RepositoryName,
    digest: Digest,
) -> Result<u64> {
    let Some(hasher) = Hasher::resume(&progress.state) else {
        lease.end(|tx, id, holder| parts::cancel(tx, id, holder)).await?;
        return Err(Error::NotFound);
    };
    let last = match &progress.tail {
        Tail::Row(bytes) => Last::Bytes(bytes.clone()),
        Tail::Object(place) => Last::Object(place.clone(), tail_len(&progress)),
    };
    let size = progress.position;
    Ending { core, bucket, lease, progress, size, hasher }.conclude(last, repository, digest).await
}

impl Ending {
    /// Checks the digest, makes the object whole and the blob visible. On a mismatch the upload is gone.
    pub(super) async fn conclude(
        self,
        last: Last,
        repository: RepositoryName,
        digest: Digest,
    ) -> Result<u64> {
        let hashed = self.hasher.clone();
        let known = hashed.algorithm() == digest.algorithm();
        let actual = hashed.finish();
        if known && actual != digest {
            return self.refuse(Error::Mismatch { expected: digest, actual }).await;
        }
        let (place, certain) = match self.make(last).await {
            Ok(made) => made,
            Err(Fault::Gone) => {
                tracing::error!(
                    upload = self.lease.id(),
                    "the bucket has lost parts of an upload; it is ended"
                );
                return self.refuse(Error::NotFound).await;
            }
            Err(fault) => return self.give_back(fault.into()).await,
        };
        if !known || !certain {
            let there = match self.read(&place, digest).await {
                Ok(there) => there,
                Err(error) => return self.give_back(error).await,
            };
            if there != digest {
                // Another digest than the one that was proven: somebody else's parts, and nobody's fault who is here.
                let error =
                    if known { Error::NotFound } else { Error::Mismatch { expected: digest, actual: there } };
                return self.refuse(error).await;
            }
        }
        let Self { lease, size, .. } = self;
        lease
            .end(move |tx, id, holder| parts::finish(tx, id, holder, &place, (&digest, size), &repository))
            .await?;
        Ok(size)
    }

    /// Leaves the upload to the next attempt.
    async fn give_back(self, error: Error) -> Result<u64> {
        if let Err(error) = self.lease.release().await {
            tracing::debug!(%error, "a lease was not given back; it runs out");
        }
        Err(error)
    }

    /// Ends the upload without a blob.
    async fn refuse(self, error: Error) -> Result<u64> {
        self.lease.end(|tx, id, holder| parts::cancel(tx, id, holder)).await?;
        Err(error)
    }

    /// Makes the object; which it is, and whether it certainly holds what was hashed.
    async fn make(&self, last: Last) -> Result<(Place, bool), Fault> {
        let Progress { object, tags, spare, doubtful, .. } = &self.progress;
        let Some((object, multipart)) = object.as_ref().filter(|_| !tags.is_empty()) else {
            if let Last::Object(place, _) = last {
                return Ok((place, true));
            }
            self.lease.use_spare();
            self.bucket.put(spare, self.bytes(last).await?.0).await?;
            return Ok((spare.clone(), true));
        };
        let mut tags = tags.clone();
        if !last.is_empty() {
            let (bytes, _room) = self.bytes(last).await?;
            match self.bucket.put_part(object, multipart, tags.len(), bytes).await {
                Ok(tag) => tags.push(tag),
                // An earlier attempt may have come to its end without anybody hearing of it.
                Err(Fault::Gone) => {
                    self.bucket.completed_before(object, self.size).await?;
                    return Ok((object.clone(), false));
                }
                Err(fault) => return Err(fault),
            }
        }
        let completed = self.bucket.complete(object, multipart, tags, self.size).await?;
        Ok((object.clone(), completed == Completed::Surely && !doubtful))
    }

    /// The bytes of the last part, with the room that they take.
    async fn bytes(&self, last: Last) -> Result<(Bytes, Option<send::Room>), Fault> {
        Ok(match last {
            Last::File(file, len) => {
                let piece =
                    send::piece(&self.core, &self.bucket, &file, 0, len).await.map_err(Fault::here)?;
                let (bytes, room) = piece.into_parts();
                (bytes, Some(room))
            }
            Last::Bytes(bytes) => (bytes.into(), None),
            Last::Object(place, len) => {
                let (bytes, room) = send::end(&self.core, &self.bucket, &place, len).await?.into_parts();
                (bytes, Some(room))
            }
        })
    }

    /// The digest of what is in an object.
    async fn read(&self, place: &Place, digest: Digest) -> Result<Digest> {
        let (core, bucket) = (Arc::clone(&self.core), Arc::clone(&self.bucket));
        let object = Object { core, bucket, digest, place: place.clone(), size: self.size };
        let mut hasher = Hasher::new(digest.algorithm());
        let mut chunks = object.read(ByteRange { start: 0, end: self.size });
        while let Some(chunk) = std::future::poll_fn(|cx| chunks.poll_next(cx)).await {
            hasher.update(&chunk.map_err(Fault::from_reading)?);
        }
        Ok(hasher.finish())
    }
}
