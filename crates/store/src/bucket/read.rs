//! Reading an object as a stream of chunks, over broken connections.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use deltaport_oci::Digest;
use deltaport_oci::wire::ByteRange;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};

use super::{Bucket, Fault, Place};
use crate::core::Core;

/// How often in a row reading may break off without a single byte before it is given up. The requests themselves are
/// repeated besides.
const ATTEMPTS: u32 = 4;
/// How long after the first of them the next attempt waits; each waits twice as long as the one before.
const BACKOFF: Duration = Duration::from_millis(100);

/// A blob that is an object.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) core: Arc<Core>,
    pub(crate) bucket: Arc<Bucket>,
    pub(crate) digest: Digest,
    pub(crate) place: Place,
    pub(crate) size: u64,
}

impl Object {
    /// Reads part of it; asks when the first chunk is wanted.
    pub(crate) fn read(&self, range: ByteRange) -> ObjectStream {
        Reading::new(self.clone(), range).stream()
    }

    /// The same, when the service has begun to answer.
    pub(crate) async fn open(&self, range: ByteRange) -> Result<ObjectStream, Fault> {
        let mut reading = Reading::new(self.clone(), range);
        if !reading.is_over() {
            reading.begin().await?;
        }
        Ok(reading.stream())
    }
}

/// The chunks of an object.
pub(crate) struct ObjectStream(BoxStream<'static, io::Result<Bytes>>);

impl fmt::Debug for ObjectStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectStream")
    }
}

impl ObjectStream {
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        Pin::new(&mut self.0).poll_next(cx)
    }
}

struct Reading {
    object: Object,
    /// What has not been read.
    rest: ByteRange,
    body: Option<BoxStream<'static, object_store::Result<Bytes>>>,
    /// How often in a row it broke off without a byte.
    failures: u32,
    /// Whether it was looked up once more which object has the bytes.
    looked_up: bool,
}

impl Reading {
    fn new(object: Object, range: ByteRange) -> Self {
        Self { object, rest: range, body: None, failures: 0, looked_up: false }
    }

    fn is_over(&self) -> bool {
        self.rest.start >= self.rest.end
    }

    fn stream(self) -> ObjectStream {
        let chunks = futures_util::stream::unfold(Some(self), |reading| async move {
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some(reading))),
                Ok(None) => None,
                Err(fault) => Some((Err(fault.into()), None)),
            }
        });
        ObjectStream(chunks.boxed())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            if self.is_over() {
                return Ok(None);
            }
            if self.body.is_none() {
                self.begin().await?;
            }
            let Some(body) = &mut self.body else { continue };
            let why = match body.next().await {
                Some(Ok(mut chunk)) if !chunk.is_empty() => {
                    let left = usize::try_from(self.rest.end - self.rest.start).unwrap_or(usize::MAX);
                    chunk.truncate(left);
                    self.rest.start += chunk.len() as u64;
                    self.failures = 0;
                    return Ok(Some(chunk));
                }
                Some(Ok(_)) => continue,
                Some(Err(error)) => Fault::from(error),
                None => Fault::Away("the answer ended early".to_owned()),
            };
            self.body = None;
            self.failures += 1;
            if self.failures >= ATTEMPTS {
                return Err(why);
            }
            tracing::debug!(digest = %self.object.digest, at = self.rest.start, error = %why, "reading goes on after it broke off");
            tokio::time::sleep(BACKOFF * 2_u32.pow(self.failures - 1)).await;
        }
    }

    /// Asks for what has not been read.
    async fn begin(&mut self) -> Result<(), Fault> {
        loop {
            let Object { bucket, place, size, digest, .. } = &self.object;
            if self.rest.end > *size {
                let text = "reading behind the end of a blob";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text).into());
            }
            match bucket.get(place, self.rest.start..self.rest.end).await {
                Ok((found, _)) if found != *size => {
                    return Err(Fault::Wrong(format!(
                        "the object of {digest} has {found} bytes, not {size}"
                    )));
                }
                Ok((_, body)) => {
                    self.body = Some(body);
                    return Ok(());
                }
                Err(Fault::Gone) if !self.looked_up => self.look_up().await?,
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Finds out where the bytes are now: the blob may have been collected and stored again.
    async fn look_up(&mut self) -> Result<(), Fault> {
        self.looked_up = true;
        let found = super::super::blobs::object::find_anew(&self.object.core, &self.object.digest).await;
        match found.map_err(|error| Fault::Away(error.to_string()))? {
            Some((place, size)) if place != self.object.place => {
                (self.object.place, self.object.size) = (place, size);
                Ok(())
            }
            _ => Err(Fault::Gone),
        }
    }
}
