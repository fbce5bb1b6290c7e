//! Reading requests: bodies within limits, and the headers that handlers share.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_RANGE, CONTENT_TYPE};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use deltaport_oci::wire::ContentRange;

use crate::activity::Activity;
use crate::error::Failure;

/// The body of a request.
#[derive(Debug)]
pub(crate) struct Payload {
    incoming: Incoming,
    activity: Arc<Activity>,
    received: u64,
}

impl Payload {
    pub(crate) fn new(incoming: Incoming, activity: Arc<Activity>) -> Self {
        Self { incoming, activity, received: 0 }
    }

    /// How many bytes were read of it.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// How many bytes are still to come, when the client said so.
    pub(crate) fn announced(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    /// Whether there is nothing to be read.
    pub(crate) fn is_empty(&self) -> bool {
        self.incoming.is_end_stream()
    }

    /// The next bytes; the first call lets a client go on that waits for "100 Continue".
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let _waiting = self.activity.wait();
        while let Some(frame) = self.incoming.frame().await {
            let frame = frame.map_err(|_broken| Failure::Interrupted)?;
            if let Ok(bytes) = frame.into_data() {
                self.received += bytes.len() as u64;
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// All of it, if it has at most `limit` bytes; `None` if it has more, of which no more than that were read.
    pub(crate) async fn all(&mut self, limit: usize) -> Result<Option<Bytes>, Failure> {
        let announced = self.announced().map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
        if announced > limit {
            return Ok(None);
        }
        let Some(first) = self.next().await? else { return Ok(Some(Bytes::new())) };
        if first.len() == announced {
            return Ok(Some(first).filter(|first| first.len() <= limit));
        }
        // Room is made as bytes arrive: who announces much and sends nothing takes nothing.
        let mut all = BytesMut::from(&first[..]);
        while all.len() <= limit {
            match self.next().await? {
                Some(bytes) => all.extend_from_slice(&bytes),
                None => return Ok(Some(all.freeze())),
            }
        }
        Ok(None)
    }
}

/// The media type of a body, without parameters; empty when the client did not say.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split_once(';').map_or(value, |(media_type, _)| media_type).trim()
}

/// The range that a chunk says it is.
pub(crate) fn content_range(headers: &HeaderMap) -> Result<Option<ContentRange>, Failure> {
    let Some(value) = headers.get(CONTENT_RANGE) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    Ok(Some(text.parse()?))
}
