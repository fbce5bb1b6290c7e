//! Response bodies, sent as they are read, and counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::vec::IntoIter;

use bytes::Bytes;
use deltaport_oci::wire::ByteRange;
use deltaport_registry::pull;
use futures_util::Stream;
use hyper::body::{Frame, SizeHint};

use crate::activity::{Activity, Waiting};
use crate::exchange::Exchange;

/// What a response says, without who listens.
#[derive(Debug)]
pub(crate) enum Content {
    /// Nothing.
    Empty,
    /// These bytes.
    Whole(Bytes),
    /// Bytes of a blob, this many.
    Stream(pull::BodyStream, u64),
    /// Several parts of a blob.
    Parts(Parts),
}

impl Content {
    /// How many bytes it has.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Stream(_, len) => *len,
            Self::Parts(parts) => parts.len,
        }
    }
}

/// A `multipart/byteranges` body (RFC 9110, section 14.6).
#[derive(Debug)]
pub(crate) struct Parts {
    blob: pull::Body,
    /// What stands in front of each part, and the part.
    parts: IntoIter<(Bytes, ByteRange)>,
    /// What stands behind the last; empty once it was sent.
    end: Bytes,
    current: Option<pull::BodyStream>,
    len: u64,
}

impl Parts {
    /// `boundary` must not occur in the blob; it is the caller's random number.
    pub(crate) fn new(blob: pull::Body, ranges: &[ByteRange], boundary: &str) -> Self {
        let size = blob.size();
        let parts: Vec<_> = ranges
            .iter()
            .enumerate()
            .map(|(index, range)| {
                let head = format!(
                    "{}--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: {}\r\n\r\n",
                    if index == 0 { "" } else { "\r\n" },
                    range.content_range(size),
                );
                (Bytes::from(head), *range)
            })
            .collect();
        let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
        let len =
            parts.iter().map(|(head, range)| head.len() as u64 + range.len()).sum::<u64>() + end.len() as u64;
        Self { blob, parts: parts.into_iter(), end, current: None, len }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(part) = &mut self.current {
            match ready!(Pin::new(part).poll_next(cx)) {
                Some(chunk) => return Poll::Ready(Some(chunk)),
                None => self.current = None,
            }
        }
        Poll::Ready(match self.parts.next() {
            Some((head, range)) => {
                self.current = Some(self.blob.read(range));
                Some(Ok(head))
            }
            None => Some(Ok(std::mem::take(&mut self.end)))
                .filter(|end| !matches!(end, Ok(end) if end.is_empty())),
        })
    }
}

/// The body of a response as the connection takes it.
#[derive(Debug)]
pub(crate) struct Body {
    content: Content,
    left: u64,
    activity: Arc<Activity>,
    /// Held from when bytes were handed over until more are asked for: then the client took them.
    waiting: Option<Waiting>,
    exchange: Exchange,
}

impl Body {
    pub(crate) fn new(content: Content, activity: Arc<Activity>, exchange: Exchange) -> Self {
        Self { left: content.len(), content, activity, waiting: None, exchange }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.waiting = None;
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let chunk = match &mut self.content {
            Content::Empty => None,
            Content::Whole(bytes) => Some(Ok(std::mem::take(bytes))),
            Content::Stream(stream, _) => ready!(Pin::new(stream).poll_next(cx)),
            Content::Parts(parts) => ready!(parts.poll_next(cx)),
        };
        // Fewer or more bytes than announced would be taken for a whole answer, or for the beginning of the next one.
        let chunk = match chunk {
            Some(Ok(chunk)) if chunk.len() as u64 <= self.left => chunk,
            Some(Err(error)) => return Poll::Ready(Some(Err(self.failed(error)))),
            _ => {
                let error =
                    io::Error::new(io::ErrorKind::UnexpectedEof, "the content is not as long as announced");
                return Poll::Ready(Some(Err(self.failed(error))));
            }
        };
        self.left -= chunk.len() as u64;
        self.exchange.sent(chunk.len() as u64);
        if self.left > 0 {
            self.waiting = Some(self.activity.wait());
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Body {
    fn failed(&mut self, error: io::Error) -> io::Error {
        self.exchange.broke(&error);
        error
    }
}
