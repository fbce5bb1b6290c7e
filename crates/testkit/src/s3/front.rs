//! What stands before the buckets: the listener, counts, faults.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::memory::Memory;
use super::{ACCESS_KEY, Asked, Counts, Fault, Kind, REGION, SECRET_KEY};

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// Says what is to be done to a request, if anything.
type Order = Box<dyn FnMut(&Asked) -> Option<Fault> + Send>;

/// The buckets, and what was asked of them.
pub(super) struct Front {
    memory: Memory,
    service: S3Service,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    counts: Counts,
    asked: Vec<Asked>,
    /// Each with how often it may still be given.
    orders: Vec<(Option<u64>, Order)>,
}

impl Front {
    pub(super) fn new(memory: Memory) -> Self {
        let mut builder = S3ServiceBuilder::new(memory.clone());
        builder.set_auth(OneKey);
        Self { memory, service: builder.build(), state: Mutex::default() }
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn counts(&self) -> Counts {
        lock(&self.state).counts
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        lock(&self.state).asked.clone()
    }

    pub(super) fn breaks(
        &self,
        times: Option<u64>,
        fault: Fault,
        mut which: Box<dyn FnMut(&Asked) -> bool + Send>,
    ) {
        self.breaks_with(times, Box::new(move |asked| which(asked).then(|| fault.clone())));
    }

    pub(super) fn breaks_with(&self, times: Option<u64>, order: Order) {
        lock(&self.state).orders.push((times, order));
    }

    pub(super) fn mends(&self) {
        lock(&self.state).orders.clear();
    }

    /// Writes a request down, and says what is to be done to it.
    fn note(&self, asked: Asked) -> Option<Fault> {
        let mut state = lock(&self.state);
        state.counts.add(asked.kind);
        state.asked.push(asked.clone());
        for (left, order) in &mut state.orders {
            if *left == Some(0) {
                continue;
            }
            if let Some(fault) = order(&asked) {
                *left = left.map(|left| left - 1);
                return Some(fault);
            }
        }
        None
    }

    async fn answer(&self, request: Request<Incoming>) -> io::Result<Answer> {
        let fault = self.note(asked(&request));
        if let Some(refusal) = wrong_region(&request) {
            return Ok(refusal);
        }
        match fault {
            None => self.done(request.map(s3s::Body::from)).await,
            Some(Fault::Status(status)) => Ok(refuse(status, code_of(status), "this is a test")),
            Some(Fault::Denied) => Ok(refuse(403, "AccessDenied", "Access Denied")),
            Some(Fault::Skewed) => Ok(refuse(
                403,
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
            )),
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                self.done(request.map(s3s::Body::from)).await
            }
            Some(Fault::CutRequest(after)) => {
                let mut body = request.into_body();
                let mut seen = 0;
                while seen < after
                    && let Some(Ok(frame)) = body.frame().await
                {
                    seen += frame.data_ref().map_or(0, |data| data.len() as u64);
                }
                Err(broken())
            }
            Some(Fault::LoseAnswer) => {
                let answer = self.done(request.map(s3s::Body::from)).await?;
                answer.into_body().collect().await?;
                Err(broken())
            }
            Some(Fault::Twice) => {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
                let again = || Request::from_parts(parts.clone(), s3s::Body::from(body.clone()));
                self.done(again()).await?;
                self.done(again()).await
            }
            Some(Fault::CutAnswer(after)) => {
                Ok(torn(self.done(request.map(s3s::Body::from)).await?, Tear::Cut, after))
            }
            Some(Fault::Stall(after)) => {
                Ok(torn(self.done(request.map(s3s::Body::from)).await?, Tear::Stall, after))
            }
            Some(Fault::Corrupt) => Ok(torn(self.done(request.map(s3s::Body::from)).await?, Tear::Flip, 0)),
        }
    }

    /// Does what is asked, and answers well.
    async fn done(&self, request: Request<s3s::Body>) -> io::Result<Answer> {
        let answer =
            self.service.call(request).await.map_err(|error| io::Error::other(format!("{error:?}")))?;
        Ok(answer.map(|body| body.map_err(io::Error::other).boxed_unsync()))
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("memory", &self.memory).finish_non_exhaustive()
    }
}

/// Serves until `stopped`, then breaks every connection.
pub(super) fn run(
    listener: TcpListener,
    front: &Arc<Front>,
    tls: Option<Arc<rustls::ServerConfig>>,
    mut stopped: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        listener.set_nonblocking(true).expect("a socket can be switched");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listening socket");
        let tls = tls.map(TlsAcceptor::from);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = &mut stopped => return,
            };
            let Ok((stream, _)) = accepted else { continue };
            // Answers are small here, and a delay would be taken for the server's.
            let _ = stream.set_nodelay(true);
            let (front, tls) = (Arc::clone(front), tls.clone());
            connections.spawn(async move {
                match tls {
                    None => connection(stream, front).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            connection(stream, front).await;
                        }
                    }
                }
            });
            while connections.try_join_next().is_some() {}
        }
    });
    runtime.shutdown_timeout(Duration::ZERO);
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, front: Arc<Front>) {
    let service = service_fn(move |request| {
        let front = Arc::clone(&front);
        async move { front.answer(request).await }
    });
    // An error is one that we made, or a client that went away.
    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

/// What a request is about, from its head.
fn asked(request: &Request<Incoming>) -> Asked {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let query = request.uri().query().unwrap_or_default();
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let path = request.uri().path();
    let of_object = path.trim_matches('/').contains('/');
    let kind = match request.method().as_str() {
        "GET" if !of_object || has("uploadId") => Kind::List,
        "GET" => Kind::Get,
        "HEAD" if of_object => Kind::Head,
        "PUT" if header("x-amz-copy-source").is_some() => Kind::Copy,
        "PUT" if has("partNumber") => Kind::Part,
        "PUT" if of_object => Kind::Put,
        "POST" if has("uploads") => Kind::Create,
        "POST" if has("uploadId") => Kind::Complete,
        "POST" if has("delete") => Kind::DeleteMany,
        "DELETE" if has("uploadId") => Kind::Abort,
        "DELETE" if of_object => Kind::Delete,
        _ => Kind::Other,
    };
    Asked {
        kind,
        method: request.method().to_string(),
        path: path.to_owned(),
        query: query.to_owned(),
        range: header("range").map(str::to_owned),
        length: header("content-length").and_then(|length| length.parse().ok()).unwrap_or_default(),
    }
}

/// The refusal of a request that is signed for another region, which the crate below would take.
fn wrong_region(request: &Request<Incoming>) -> Option<Answer> {
    let authorization = request.headers().get("authorization")?.to_str().ok()?;
    // Credential=KEY/DATE/REGION/s3/aws4_request
    let region = authorization.split("Credential=").nth(1)?.split('/').nth(2)?;
    let message = format!(
        "The authorization header is malformed; the region '{region}' is wrong; expecting '{REGION}'"
    );
    (region != REGION).then(|| {
        let more = format!("<Region>{REGION}</Region>");
        answer_xml(400, "AuthorizationHeaderMalformed", &message, &more)
    })
}

fn refuse(status: u16, code: &str, message: &str) -> Answer {
    answer_xml(status, code, message, "")
}

fn answer_xml(status: u16, code: &str, message: &str, more: &str) -> Answer {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>{more}\
         <RequestId>TEST</RequestId></Error>"
    );
    let body = http_body_util::Full::from(text).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(status).expect("a test names a status");
    answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/xml"));
    answer
}

/// The code that S3 has for a status.
fn code_of(status: u16) -> &'static str {
    match status {
        403 => "AccessDenied",
        404 => "NoSuchKey",
        409 => "ConditionalRequestConflict",
        412 => "PreconditionFailed",
        429 => "TooManyRequests",
        503 => "SlowDown",
        _ => "InternalError",
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the connection breaks on purpose")
}

/// How the body of an answer is spoiled.
#[derive(Clone, Copy, Debug)]
enum Tear {
    Cut,
    Stall,
    Flip,
}

/// Announces the whole body and spoils it after so many bytes.
fn torn(answer: Answer, tear: Tear, after: u64) -> Answer {
    answer.map(|body| Torn { body, tear, left: after }.boxed_unsync())
}

struct Torn {
    body: UnsyncBoxBody<Bytes, io::Error>,
    tear: Tear,
    left: u64,
}

impl Body for Torn {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            match self.tear {
                Tear::Cut => return Poll::Ready(Some(Err(broken()))),
                // Nobody wakes this up, on purpose.
                Tear::Stall => return Poll::Pending,
                Tear::Flip => {}
            }
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        let Ok(mut data) = frame.into_data() else { return Poll::Ready(None) };
        if let Tear::Flip = self.tear {
            let mut bytes = BytesMut::from(&data[..]);
            if let (Some(byte), true) = (bytes.first_mut(), self.left == 0) {
                *byte ^= 0x40;
                self.left = u64::MAX;
            }
            return Poll::Ready(Some(Ok(Frame::data(bytes.freeze()))));
        }
        data.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= data.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Who may come in.
struct OneKey;

#[async_trait::async_trait]
impl S3Auth for OneKey {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == ACCESS_KEY {
            return Ok(SecretKey::from(SECRET_KEY));
        }
        Err(s3_error!(
            InvalidAccessKeyId,
            "The AWS Access Key Id you provided does not exist in our records."
        ))
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that failed while it held the lock has said so already.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
