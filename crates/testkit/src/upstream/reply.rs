//! What the script answers, and what goes wrong on the way.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deltaport_oci::wire::{DOCKER_CONTENT_DIGEST, Ranges};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

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
    chunked: bool,
    delay: Duration,
    pause: Duration,
    fault: Option<(usize, Fault)>,
    gate: Option<(usize, Gate)>,
}

/// What a reply can be held by in the middle, so that a test needs no clock. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    /// A gate that is closed.
    #[allow(clippy::new_without_default)] // whether a default gate is open would be anybody's guess
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets pass whoever waits at it or comes later.
    pub fn open(&self) {
        self.0.close();
    }

    async fn pass(&self) {
        // Nobody gives permits; it fails when the gate opens.
        let _ = self.0.acquire().await;
    }
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
            chunked: false,
            delay: Duration::ZERO,
            pause: Duration::ZERO,
            fault: None,
            gate: None,
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

    /// Sends the body in chunks, without saying how long it is.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
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

    /// Sends what is behind this many bytes of what would be sent only after `gate` was opened.
    #[must_use]
    pub fn held_after(mut self, bytes: usize, gate: &Gate) -> Self {
        self.gate = Some((bytes, gate.clone()));
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
        let length = match status {
            204 | 304 => String::new(),
            _ if self.chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
            _ => format!("Content-Length: {length}\r\n"),
        };
        let head = format!("HTTP/1.1 {status} Scripted\r\n{fields}{content_range}{length}\r\n");
        stream.write_all(head.as_bytes()).await?;
        if head_only {
            stream.flush().await?;
            return Ok(true);
        }
        let whole = self.fault.map_or(body.len(), |(after, _)| after.min(body.len()));
        let held = self.gate.as_ref().map_or(whole, |(after, _)| (*after).min(whole));
        self.send_pieces(stream, &body[..held], &mut sent).await?;
        if let Some((_, gate)) = &self.gate {
            gate.pass().await;
        }
        self.send_pieces(stream, &body[held..whole], &mut sent).await?;
        if self.chunked && self.fault.is_none() {
            stream.write_all(b"0\r\n\r\n").await?;
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

    async fn send_pieces(
        &self,
        stream: &mut impl Wire,
        bytes: &[u8],
        sent: &mut impl FnMut(usize),
    ) -> io::Result<()> {
        for piece in bytes.chunks(PIECE) {
            if self.chunked {
                stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
            }
            stream.write_all(piece).await?;
            if self.chunked {
                stream.write_all(b"\r\n").await?;
            }
            stream.flush().await?;
            sent(piece.len());
            tokio::time::sleep(self.pause).await;
        }
        Ok(())
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
