//! Moving a registry to other engines while it is served: from a data directory to a bucket and a PostgreSQL, and back.
//!
//! The target is made like the source by comparing the two, again and again: bytes that it lacks are copied and proven,
//! rows that differ are put or removed. Nothing needs to be known of earlier passes, so that one that was killed is simply
//! followed by another. Each pass finds less than the one before; for the last one the source takes no changes
//! ([`Migration::hold`]), while everything that it has can still be pulled from it.

mod bytes;
mod names;
mod reader;
mod rows;
mod tables;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};
use crate::names::{held, milliseconds};
use crate::{Options, Store, collect};

use bytes::Bytes;
use reader::Reader;

/// A registry that is being moved.
#[derive(Debug)]
pub struct Migration {
    source: Reader,
    bytes: Bytes,
    target: Store,
}

/// How far a pass is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bytes are copied: so many blobs and bytes of so many.
    Bytes {
        /// Blobs that the target has by now.
        blobs: u64,
        /// Blobs that the source has.
        of: u64,
        /// Bytes that this pass has copied.
        copied: u64,
    },
    /// Names are compared: so many rows were put or removed.
    Names {
        /// Rows that were put, or removed.
        changed: u64,
    },
}

/// What one pass found to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Pass {
    /// Blobs that were copied.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows of names that were put.
    pub put: u64,
    /// Rows of names that were removed.
    pub removed: u64,
    /// Blobs and rows that were left to the next pass, because the source changed meanwhile.
    pub put_off: u64,
    /// Why the first of them was.
    pub why: Option<String>,
}

impl Pass {
    /// Whether the target was like the source already.
    pub fn found_nothing(&self) -> bool {
        (self.blobs, self.put, self.removed, self.put_off) == (0, 0, 0, 0)
    }
}

impl Migration {
    /// Prepares to move what is in `from`, which may be served meanwhile, to `to`, which may not, and has to be empty or
    /// what an earlier migration has left. Until [`Migration::finish`] no store can be opened there, and one that was open
    /// already, as a replica, changes nothing.
    pub async fn begin(from: &Options, to: Options) -> Result<Self> {
        let source = Reader::of(from).await?;
        let bytes = Bytes::of(from)?;
        let target = Store::open_as_it_is(to).await?;
        let mark = |tx: &mut crate::names::Tx<'_>| {
            let empty = !tx.connection.exists("SELECT 1 FROM repository LIMIT 1", &[])?;
            match empty || held::is_unfinished(tx.connection)? {
                true => held::begin(tx.connection).map(|()| true),
                false => Ok(false),
            }
        };
        if !target.core.database.change(mark).await? {
            return Err(Error::Unusable(
                "there is a registry already where this one is to be moved to; name an empty directory or bucket, and an \
                 empty database"
                    .to_owned(),
            ));
        }
        Ok(Self { source, bytes, target })
    }

    /// Makes the target like the source is meanwhile; `seen` hears how far that is.
    pub async fn pass(&self, seen: &(dyn Fn(Step) + Sync)) -> Result<Pass> {
        let target = &self.target.core;
        let copied = bytes::pass(&self.source, &self.bytes, target, seen).await?;
        let report = |pass: &names::Pass| seen(Step::Names { changed: pass.put + pass.removed });
        let names = names::pass(&self.source, target, report).await?;
        Ok(Pass {
            blobs: copied.blobs,
            bytes: copied.bytes,
            put: names.put,
            removed: names.removed,
            put_off: copied.put_off + names.put_off,
            why: copied.why.or(names.why),
        })
    }

    /// Has the source take no changes for `life` from now on, or, with `None`, until [`Migration::release`]. What it has
    /// can still be pulled from it. Changes that come meanwhile fail with [`Error::Unavailable`].
    pub async fn hold(&self, life: Option<Duration>) -> Result<()> {
        let until = life.map_or(i64::MAX, |life| milliseconds(SystemTime::now() + life));
        self.source.set_held(until).await
    }

    /// Says that the target is whole: once it is [left](Migration::leave), it can be served.
    pub async fn finish(&self) -> Result<()> {
        let core = &self.target.core;
        // Rows were put without a word in the journal: now it says what they say.
        collect::rewrite_journal(core).await?;
        core.database
            .change(|tx| {
                tables::continue_identifiers(tx.connection)?;
                held::finish(tx.connection)
            })
            .await
    }

    /// Closes both sides. What was not finished can be gone on with another time.
    pub async fn leave(self) -> Result<()> {
        self.target.close().await
    }

    /// Has a registry that was held take changes again.
    pub async fn release(held: &Options) -> Result<()> {
        Reader::of(held).await?.set_held(0).await
    }
}
