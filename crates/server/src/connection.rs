//! One connection, from the handshake to the last byte.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deltaport_trust::certificates;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::activity::{Activity, Verdict, Watchdog};
use crate::challenges::ACME_TLS;
use crate::dispatch;
use crate::peer::{Peer, Shared};
use crate::stream::ClientStream;

/// The first byte of every TLS connection: a record that holds a handshake message.
const TLS_HANDSHAKE: u8 = 22;
/// How long to wait for what a client sends in the clear to a port that speaks TLS.
const PLAIN_LINGER: Duration = Duration::from_secs(1);
/// How many headers a request may have.
const MAX_HEADERS: usize = 128;
/// How many requests one HTTP/2 connection may have open.
const MAX_STREAMS: u32 = 64;
/// How much an HTTP/2 client may send ahead on one request, in bytes: enough for 130 Mbit/s over 60 ms.
const STREAM_WINDOW: u32 = 1 << 20;
/// How much it may send ahead on all of them together, in bytes: enough for 1 Gbit/s over 60 ms.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// How much of a response is buffered for an HTTP/2 client that does not read, in bytes.
const MAX_SEND_BUFFER: usize = 512 << 10;

/// Serves one connection until it ends, or until `stop` and the end of the requests that have begun.
pub(crate) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    // Answers are written whole; waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%address, %error, "cannot set TCP_NODELAY");
    }
    let _open = shared.metrics.connection();
    if tls.is_some() && speaks_plain_http(&stream, shared.limits.header_timeout).await {
        return refuse_plain_http(stream).await;
    }
    let activity = Arc::new(Activity::default());
    let stream = ClientStream::new(stream, Arc::clone(&activity));
    let mut peer = Peer::new(Arc::clone(&shared), address, activity);
    let Some(tls) = tls else {
        return serve_http1(stream, peer, stop).await;
    };
    let handshake = tokio::time::timeout(peer.shared.limits.header_timeout, tls.accept(stream));
    match stop.run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => {
            // The handshake has proven that the certificate is valid and the client's.
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            peer.certified = shown.and_then(|der| certificates::user(&peer.shared.certificates, der));
            match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => serve_http2(stream, peer, stop).await,
                // The handshake was all that the authority wanted (RFC 8737, section 3).
                Some(ACME_TLS) => tracing::debug!(%address, "a certificate authority has looked"),
                _ => serve_http1(stream, peer, stop).await,
            }
        }
        Some(Ok(Err(error))) => tracing::debug!(%address, %error, "the TLS handshake failed"),
        Some(Err(_elapsed)) => tracing::debug!(%address, "the TLS handshake took too long"),
        None => {}
    }
}

/// Whether a client's first byte is not that of a TLS handshake (RFC 8446, section 5.1). Some clients try plain HTTP
/// after HTTPS has failed and would show their user an alert that they cannot read.
async fn speaks_plain_http(stream: &TcpStream, limit: Duration) -> bool {
    let mut first = [0];
    match tokio::time::timeout(limit, stream.peek(&mut first)).await {
        Ok(Ok(1)) => first[0] != TLS_HANDSHAKE,
        _ => false,
    }
}

/// Says so in words that such a client understands. Nothing it sent is read: it may hold a password.
async fn refuse_plain_http(mut stream: TcpStream) {
    let answer = b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
        This port speaks TLS only; use https.\n";
    if let Err(error) = stream.write_all(answer).await {
        tracing::debug!(%error, "a client that spoke plain HTTP did not wait for the answer");
    }
    let _ = stream.shutdown().await;
    // Closing over unread bytes would reset the connection, and a reset may overtake the answer.
    let _ = tokio::time::timeout(PLAIN_LINGER, stream.readable()).await;
    let _ = stream.try_read(&mut [0; 16 << 10]);
}

async fn serve_http1<S>(stream: S, peer: Peer, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = peer.shared.limits;
    let mut watch = Watch::new(&peer, true, stop);
    let address = peer.address;
    let service = service_fn(move |request| {
        let peer = peer.clone();
        async move { Ok::<_, Infallible>(dispatch::handle(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_header_size(limits.header_bytes)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%address, %error, "the connection ended early");
                }
                return;
            }
            event = watch.next() => match event {
                Event::Close => return,
                Event::Finish => connection.as_mut().graceful_shutdown(),
            },
        }
    }
}

async fn serve_http2<S>(stream: S, peer: Peer, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut watch = Watch::new(&peer, false, stop);
    let (address, header_bytes) = (peer.address, peer.shared.limits.header_bytes);
    let service = service_fn(move |request| {
        let peer = peer.clone();
        async move { Ok::<_, Infallible>(dispatch::handle(request, peer).await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%address, %error, "the connection ended early");
                }
                return;
            }
            event = watch.next() => match event {
                Event::Close => return,
                Event::Finish => connection.as_mut().graceful_shutdown(),
            },
        }
    }
}

/// What may end a connection from our side.
struct Watch {
    watchdog: Watchdog,
    ticks: Interval,
    stop: CancellationToken,
    finishing: bool,
    address: SocketAddr,
}

enum Event {
    /// Drop it.
    Close,
    /// End it after the requests in progress.
    Finish,
}

impl Watch {
    fn new(peer: &Peer, heads: bool, stop: CancellationToken) -> Self {
        let limits = peer.shared.limits;
        let mut ticks = interval(Watchdog::period(&limits));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watchdog = Watchdog::new(Arc::clone(&peer.activity), limits, heads);
        Self { watchdog, ticks, stop, finishing: false, address: peer.address }
    }

    /// Waits for a reason to end the connection. Nothing is lost when the wait is given up.
    async fn next(&mut self) -> Event {
        loop {
            tokio::select! {
                () = self.stop.cancelled(), if !self.finishing => {
                    self.finishing = true;
                    return Event::Finish;
                }
                _ = self.ticks.tick() => match self.watchdog.look(Instant::now()) {
                    Verdict::Fine => {}
                    Verdict::Idle if !self.finishing => {
                        self.finishing = true;
                        return Event::Finish;
                    }
                    Verdict::Idle => return Event::Close,
                    verdict => {
                        tracing::info!(address = %self.address, ?verdict, "the client is too slow; closing its connection");
                        return Event::Close;
                    }
                },
            }
        }
    }
}
