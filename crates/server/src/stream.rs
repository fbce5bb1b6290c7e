//! The stream of one connection: it tells what moves, and is not closed over what the client still sends.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::activity::Activity;

/// How much is read of what a client still sends after it got its answer, in bytes. A socket that is closed over
/// unread bytes is reset, and a reset may overtake the answer.
const LINGER_BYTES: usize = 16 << 20;
/// How long that may take.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// How much of it is read at once, in bytes.
const LINGER_BUFFER: usize = 16 << 10;

/// A stream that tells its [`Activity`] what it does.
#[derive(Debug)]
pub(crate) struct ClientStream<S> {
    stream: S,
    activity: Arc<Activity>,
    closing: Closing,
}

#[derive(Debug)]
enum Closing {
    Open,
    /// Our side is closed; what still comes is read and forgotten.
    Lingering {
        until: Pin<Box<Sleep>>,
        left: usize,
    },
    Done,
}

impl<S> ClientStream<S> {
    pub(crate) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, closing: Closing::Open }
    }

    fn note(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Pending => self.activity.blocked(),
            Poll::Ready(Ok(sent)) => self.activity.sent(*sent),
            Poll::Ready(Err(_)) => {}
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.activity.received(buf.filled().len() - before);
        result
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let this = &mut *self;
            match &mut this.closing {
                Closing::Open => {
                    ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                    this.closing = match this.activity.is_unread() {
                        true => {
                            Closing::Lingering { until: Box::pin(sleep(LINGER_TIME)), left: LINGER_BYTES }
                        }
                        false => Closing::Done,
                    };
                }
                Closing::Lingering { until, left } => {
                    let mut buffer = [0; LINGER_BUFFER];
                    let mut buffer = ReadBuf::new(&mut buffer);
                    match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                        Poll::Pending => ready!(until.as_mut().poll(cx)),
                        Poll::Ready(Ok(())) if !buffer.filled().is_empty() && *left > 0 => {
                            *left = left.saturating_sub(buffer.filled().len());
                            continue;
                        }
                        Poll::Ready(_) => {}
                    }
                    this.closing = Closing::Done;
                }
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}
