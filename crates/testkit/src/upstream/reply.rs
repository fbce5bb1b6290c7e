//! What the script answers, and what goes wrong on the way.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use deltaport_oci::wire::{DOCKER_CONTENT_DIGEST, Ranges};
use tokio::io::AsyncWriteExt as _;

use super::Wire;
use crate::http::Headers;
use crate::sample::Content;

/// The most bytes that are written at once, so that counts and faults are exact.
const PIECE: usize = 16 << 10;

/// A reply, with the fault that it ends in.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Headers,
    body: Bytes,
    ranged: bool,
    delay: Duration,
    pause: Duration,
    fault: Option<(usize, Fault)>,
}

/// How the sending of a body ends early.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The connection is closed in order.
    Close,
    /// The connection is reset.
    Reset,
    /// Nothing more comes, and the connection stays open.
    Stall,
}

impl Reply {
    /// A reply with this status, without a body.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Headers::default(),
            body: Bytes::new(),
            ranged: false,
            delay: Duration::ZERO,
            pause: Duration::ZERO,
            fault: None,
        }
    }

    /// 200 with some content as registries serve it: its media type and digest, and parts of it for `Range`.
    pub fn content(content: &Content) -> Self {
        Self::status(200)
            .header("Content-Type", &content.media_type)
            .header(DOCKER_CONTENT_DIGEST, &content.digest.to_string())
            .body(content.bytes.clone())
            .ranged()
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(name, value);
        self
    }

    /// The body; `Content-Length` is always that of all of it.
    #[must_use]
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.body = bytes.into();
        self
    }

    /// Answers 206 or 416 to requests with one range.
    #[must_use]
    pub fn ranged(mut self) -> Self {
        self.ranged = true;
        self
    }

    /// Answers with the whole body even when a range is asked for.
    #[must_use]
    pub fn whole(mut self) -> Self {
        self.ranged = false;
        self
    }

    /// Begins to answer after this time.
    #[must_use]
    pub fn delayed(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Pauses so long after every 16 KiB.
    #[must_use]
    pub fn slowly(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Closes the connection, in order, after this many bytes of what would be sent.
    #[must_use]
    pub fn truncated_after(mut self, bytes: usize) -> Self {
        self.fault = Some((bytes, Fault::Close));
        self
    }

    /// Resets the connection after this many bytes of what would be sent.
    #[must_use]
    pub fn reset_after(mut self, bytes: usize) -> Self {
        self.fault = Some((bytes, Fault::Reset));
        self
    }

    /// Sends nothing more after this many bytes of what would be sent, until the other end goes away.
    #[must_use]
    pub fn stalled_after(mut self, bytes: usize) -> Self {
        self.fault = Some((bytes, Fault::Stall));
        self
    }

    /// Sends the reply; `false` when the connection is not to be used again. Every piece of the body that went out is
    /// reported to `sent`.
    pub(super) async fn send(
        &self,
        stream: &mut impl Wire,
        head_only: bool,
        range: Option<&str>,
        mut sent: impl FnMut(usize),
    ) -> io::Result<bool> {
        tokio::time::sleep(self.delay).await;
        let (status, content_range, body) = self.part(range);
        let content_range =
            content_range.map(|value| format!("Content-Range: {value}\r\n")).unwrap_or_default();
        let fields = self.headers.render();
        let length = body.len();
        // 204 and 304 have no length, or clients wait for a body that they must not expect.
        let length =
            if matches!(status, 204 | 304) { String::new() } else { format!("Content-Length: {length}\r\n") };
        let head = format!("HTTP/1.1 {status} Scripted\r\n{fields}{content_range}{length}\r\n");
        stream.write_all(head.as_bytes()).await?;
        if head_only {
            stream.flush().await?;
            return Ok(true);
        }
        let whole = self.fault.map_or(body.len(), |(after, _)| after.min(body.len()));
        for piece in body[..whole].chunks(PIECE) {
            stream.write_all(piece).await?;
            stream.flush().await?;
            sent(piece.len());
            tokio::time::sleep(self.pause).await;
        }
        stream.flush().await?;
        match self.fault {
            None => Ok(true),
            Some((_, Fault::Close)) => Ok(false),
            Some((_, Fault::Reset)) => {
                // What was sent has to arrive before the reset, which drops what is still under way.
                tokio::time::sleep(Duration::from_millis(50)).await;
                stream.tcp().set_zero_linger()?;
                Ok(false)
            }
            Some((_, Fault::Stall)) => {
                // Ends when the other end does: then there is something to read, or an error.
                let _ = stream.tcp().readable().await;
                Ok(false)
            }
        }
    }

    /// Status, `Content-Range` and body for what was asked.
    fn part(&self, range: Option<&str>) -> (u16, Option<String>, Bytes) {
        let size = self.body.len() as u64;
        match range.filter(|_| self.ranged && self.status == 200).map(|header| Ranges::parse(header, size)) {
            Some(Ranges::Single(range)) => {
                let (start, end) = (to_usize(range.start), to_usize(range.end));
                (206, Some(range.content_range(size)), self.body.slice(start..end))
            }
            Some(Ranges::Unsatisfiable) => (416, Some(format!("bytes */{size}")), Bytes::new()),
            _ => (self.status, None, self.body.clone()),
        }
    }
}

fn to_usize(offset: u64) -> usize {
    usize::try_from(offset).expect("offsets within a body in memory")
}
