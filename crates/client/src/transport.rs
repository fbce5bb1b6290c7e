//! Single requests: timeouts, redirects, and the rule where credentials may go.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{Stream, TryStreamExt as _};
use http::header::{AUTHORIZATION, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::Url;

use crate::address::{Forbidden, Resolver};
use crate::connector::{Connector, Identified};
use crate::error::ErrorKind;
use crate::idle::Idle;
use crate::options::{Options, Timeouts};
use crate::quota::Quota;

/// How many redirects one request may go through.
const MAX_REDIRECTS: usize = 5;
/// How much of a body that nobody wants is read so that its connection can be used again.
const MAX_DRAIN: u64 = 64 * 1024;
/// How many connections are opened ahead of the requests that will need them: an image of which few layers change has its
/// configuration and their deltas asked for at the same time.
const MAX_SPARE: usize = 2;
/// The longest pause that an upstream may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

type Result<T> = std::result::Result<T, ErrorKind>;

/// The connections to one upstream.
#[derive(Debug)]
pub(crate) struct Transport {
    /// For the upstream itself and for token services that may know who we are, if we have a certificate to show.
    known: Option<Arc<Identified>>,
    /// For everybody else; made when it is needed first: reading the system's certificate authorities takes time.
    stranger: OnceLock<Result<reqwest::Client>>,
    connector: Connector,
    home: Url,
    resolver: Resolver,
    timeouts: Timeouts,
    received: Arc<AtomicU64>,
    quota: Mutex<Option<Quota>>,
    /// Connections to the upstream itself that nobody uses.
    idle: Arc<Idle>,
    /// Whether one connection carries all requests (HTTP/2).
    multiplexed: AtomicBool,
    /// Held while connections are opened ahead.
    warming: tokio::sync::Mutex<()>,
}

/// A request, before it is known where it will be answered.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    /// Sent to the upstream itself and to nobody that it redirects to.
    pub(crate) authorization: Option<HeaderValue>,
    /// What is sent, when that is little; most requests have nothing.
    pub(crate) body: Bytes,
    /// Whether redirects are followed; otherwise they are answers.
    pub(crate) follow: bool,
    /// Whether `url` may see our certificate even if it is not the upstream's: it is that of an allowed token service.
    pub(crate) trusted: bool,
}

impl Request {
    /// A request for `url` alone: nothing is followed, and nobody is told who we are.
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            authorization: None,
            body: Bytes::new(),
            follow: false,
            trusted: false,
        }
    }
}

/// The head of an answer, and its body still to come.
#[derive(Debug)]
pub(crate) struct Answer {
    response: reqwest::Response,
    /// Whether the upstream itself answered, and not somebody that it redirected to.
    pub(crate) from_home: bool,
    /// Whether the body has been read to its end.
    ended: bool,
    stall: Duration,
    received: Arc<AtomicU64>,
    idle: Arc<Idle>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        // A connection that still has something of an answer on it is closed.
        if self.from_home && (self.ended || self.response.content_length() == Some(0)) {
            self.idle.leave();
        }
    }
}

impl Transport {
    pub(crate) fn new(options: &Options, home: Url) -> Result<Self> {
        let configured = home.host_str().map(str::to_owned).into_iter();
        let configured = configured.chain(options.token_hosts.clone()).chain(options.redirect_hosts.clone());
        let resolver = Resolver::new(configured);
        let connector = Connector::new(options, &home, resolver.clone())?;
        let files = options.certificate.clone();
        let known = files.map(|files| Identified::new(connector.clone(), files).map(Arc::new)).transpose()?;
        Ok(Self {
            known,
            stranger: OnceLock::new(),
            connector,
            home,
            resolver,
            timeouts: options.timeouts,
            received: Arc::default(),
            quota: Mutex::default(),
            idle: Arc::default(),
            multiplexed: AtomicBool::new(false),
            warming: tokio::sync::Mutex::default(),
        })
    }

    /// Makes what connections are made with, unless it has been.
    ///
    /// Fails when the system's certificate authorities cannot be read, and then always.
    pub(crate) fn prepare(&self) -> Result<()> {
        self.stranger().map(|_| ())
    }

    fn stranger(&self) -> Result<&reqwest::Client> {
        self.stranger.get_or_init(|| self.connector.build(None)).as_ref().map_err(Clone::clone)
    }

    /// The address of the upstream.
    pub(crate) fn home(&self) -> &Url {
        &self.home
    }

    /// How many bytes of bodies have been received so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// What the upstream last said about how much we may ask.
    pub(crate) fn quota(&self) -> Option<Quota> {
        *self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends `request` and follows redirects.
    ///
    /// Once a request has left the upstream its authorization is gone for good, even if a redirect leads back: who
    /// may send us somewhere must not be able to do it in our name.
    pub(crate) async fn send(&self, request: &Request) -> Result<Answer> {
        let (mut url, mut from_home) = (request.url.clone(), self.is_home(&request.url));
        for _ in 0..=MAX_REDIRECTS {
            let authorization = request.authorization.as_ref().filter(|_| from_home);
            let answer = self.send_once(request, url.clone(), authorization, from_home).await?;
            let redirect = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !redirect || !request.follow {
                return Ok(answer);
            }
            let next = answer.location(&url)?;
            self.check_redirect(&url, &next)?;
            from_home &= self.is_home(&next);
            url = next;
            answer.drain().await;
        }
        Err(ErrorKind::protocol(format!("redirects more than {MAX_REDIRECTS} times")))
    }

    async fn send_once(
        &self,
        request: &Request,
        url: Url,
        authorization: Option<&HeaderValue>,
        from_home: bool,
    ) -> Result<Answer> {
        let http = self.connections(from_home || request.trusted).await?;
        let mut builder = http.request(request.method.clone(), url).headers(request.headers.clone());
        if let Some(value) = authorization {
            builder = builder.header(AUTHORIZATION, value.clone());
        }
        if !request.body.is_empty() {
            builder = builder.body(request.body.clone());
        }
        // Connecting has its own limit inside of this one.
        let limit = self.timeouts.connect + self.timeouts.header;
        if from_home {
            self.idle.take();
        }
        let again = builder.try_clone().filter(|_| request.method.is_safe());
        let sent = async {
            match (builder.send().await, again) {
                // A connection that was kept for the next request often turns out to be dead by then.
                (Err(error), Some(again)) if !error.is_connect() && !error.is_timeout() => again.send().await,
                (sent, _) => sent,
            }
        };
        let response = match tokio::time::timeout(limit, sent).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(failure(&error)),
            Err(_) => return Err(ErrorKind::unavailable(format!("no answer within {} s", limit.as_secs()))),
        };
        Ok(self.answer(response, from_home))
    }

    /// Sends `request` to the upstream itself with a long body. It goes on for as long as the body does: only standing
    /// still is an error.
    pub(crate) async fn upload<S>(&self, request: &Request, body: S) -> Result<Answer>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let sent = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&sent);
        let body = body.inspect_ok(move |chunk| {
            counter.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        });
        let http = self.connections(true).await?;
        let mut builder = http.request(request.method.clone(), request.url.clone());
        if let Some(value) = &request.authorization {
            builder = builder.header(AUTHORIZATION, value.clone());
        }
        let builder = builder.headers(request.headers.clone()).body(reqwest::Body::wrap_stream(body));
        let sending = builder.send();
        tokio::pin!(sending);
        let limit = self.timeouts.connect + self.timeouts.header + self.timeouts.stall;
        loop {
            let before = sent.load(Ordering::Relaxed);
            match tokio::time::timeout(limit, &mut sending).await {
                Ok(Ok(response)) => return Ok(self.answer(response, true)),
                Ok(Err(error)) => return Err(failure(&error)),
                Err(_) if sent.load(Ordering::Relaxed) > before => {}
                Err(_) => {
                    let why = format!("took no byte within {} s", limit.as_secs());
                    return Err(ErrorKind::unavailable(why));
                }
            }
        }
    }

    fn answer(&self, response: reqwest::Response, from_home: bool) -> Answer {
        if from_home && let Some(quota) = Quota::read(response.headers()) {
            *self.quota.lock().unwrap_or_else(PoisonError::into_inner) = Some(quota);
        }
        if from_home && response.version() == http::Version::HTTP_2 {
            self.multiplexed.store(true, Ordering::Relaxed);
        }
        let idle = Arc::clone(&self.idle);
        let received = Arc::clone(&self.received);
        Answer { response, from_home, ended: false, stall: self.timeouts.stall, received, idle }
    }

    /// Opens connections to the upstream itself, with as many requests at once, unless there are [`MAX_SPARE`] that
    /// nobody uses, or one takes all requests.
    pub(crate) async fn warm(&self, request: &Request) {
        let Ok(_alone) = self.warming.try_lock() else { return };
        if self.multiplexed.load(Ordering::Relaxed) || self.idle.count() >= MAX_SPARE {
            return;
        }
        let ask = async |_| {
            if let Ok(answer) = self.send(request).await {
                answer.drain().await;
            }
        };
        join_all((0..MAX_SPARE).map(ask)).await;
    }

    /// The connections to somebody who may see our certificate, or to somebody who may not.
    async fn connections(&self, known: bool) -> Result<reqwest::Client> {
        match self.known.as_ref().filter(|_| known) {
            Some(known) => Ok(known.client().await),
            None => self.stranger().cloned(),
        }
    }

    /// Whether `url` is on the upstream itself: same scheme, host and port.
    fn is_home(&self, url: &Url) -> bool {
        url.origin() == self.home.origin()
    }

    fn check_redirect(&self, from: &Url, to: &Url) -> Result<()> {
        let place = || to.host_str().unwrap_or("nowhere").to_owned();
        match (from.scheme(), to.scheme()) {
            (_, "https") | ("http", "http") => {}
            _ => return Err(ErrorKind::protocol(format!("redirects to {} without TLS", place()))),
        }
        if !to.username().is_empty() || to.password().is_some() {
            return Err(ErrorKind::protocol("redirects to an address with a password in it"));
        }
        if !self.resolver.permits(to) {
            let why =
                format!("redirects to {}, a private address that the configuration does not allow", place());
            return Err(ErrorKind::protocol(why));
        }
        Ok(())
    }
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// A header as text; `None` when it is absent or not ASCII.
    pub(crate) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// `Content-Length`, as it stands there (a body that is not there, as in the answer to HEAD, counts too).
    pub(crate) fn content_length(&self) -> Option<u64> {
        self.header(http::header::CONTENT_LENGTH)?.parse().ok()
    }

    /// Where a redirect leads, relative to where it came from.
    pub(crate) fn location(&self, from: &Url) -> Result<Url> {
        let text = self.header(LOCATION).ok_or_else(|| ErrorKind::protocol("redirects to nowhere"))?;
        from.join(text).map_err(|_| ErrorKind::protocol("redirects to something that is no address"))
    }

    /// The next bytes of the body, `None` at its end. Fails when none come for a while, and when the connection ends
    /// before the body does.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        match tokio::time::timeout(self.stall, self.response.chunk()).await {
            Ok(Ok(chunk)) => {
                let count = chunk.as_ref().map_or(0, |bytes| bytes.len() as u64);
                self.received.fetch_add(count, Ordering::Relaxed);
                self.ended |= chunk.is_none();
                Ok(chunk)
            }
            Ok(Err(error)) => Err(ErrorKind::unavailable(format!("broke off: {}", chain(&error)))),
            Err(_) => Err(ErrorKind::unavailable(format!("no byte within {} s", self.stall.as_secs()))),
        }
    }

    /// The whole body, if it has at most `limit` bytes. `what` names it in the error.
    pub(crate) async fn read(&mut self, what: &'static str, limit: u64) -> Result<Bytes> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(ErrorKind::Limit { what, limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }

    /// Reads a short body to its end, so that the connection need not be made anew: on a slow link that is the
    /// larger part of the cost.
    pub(crate) async fn drain(mut self) {
        if self.response.content_length().is_some_and(|length| length <= MAX_DRAIN) {
            let _ = self.read("an error", MAX_DRAIN).await;
        }
    }

    /// What a status that is no success means.
    pub(crate) async fn into_error(self) -> ErrorKind {
        let (status, retry_after, from_home) = (self.status(), self.retry_after(), self.from_home);
        self.drain().await;
        match status.as_u16() {
            // Only the registry itself can say what it has. An address that it gave may have expired on the way, and
            // it gives another one.
            400 | 403 | 404 | 410 if !from_home => {
                let why = format!("redirects to a place that answers {status}");
                ErrorKind::Unavailable { why, retry_after, quota: false }
            }
            401 | 403 | 451 => ErrorKind::Denied(format!("answers {status}")),
            404 | 410 => ErrorKind::NotFound,
            408 | 429 | 500..=599 => {
                let quota = status == StatusCode::TOO_MANY_REQUESTS;
                ErrorKind::Unavailable { why: format!("answers {status}"), retry_after, quota }
            }
            _ => ErrorKind::protocol(format!("answers {status}")),
        }
    }

    /// `Retry-After`, in seconds or as a date, at most an hour.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let text = self.header(RETRY_AFTER)?.trim();
        let pause = match text.parse() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => {
                httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default()
            }
        };
        Some(pause.min(MAX_RETRY_AFTER))
    }
}

/// Why there is no answer. A name that we may not follow is found out only when it is resolved, and is no reason to
/// believe that the upstream is down.
fn failure(error: &reqwest::Error) -> ErrorKind {
    let mut causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    match causes.find_map(|cause| cause.downcast_ref::<Forbidden>()) {
        Some(forbidden) => ErrorKind::Protocol(format!("leads to {forbidden}")),
        None => ErrorKind::unavailable(chain(error)),
    }
}

/// An error with its causes, which reqwest hides behind `source`, and without the address, which may hold secrets.
pub(crate) fn chain(error: &reqwest::Error) -> String {
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    let mut text =
        if error.is_connect() { "cannot connect".to_owned() } else { "the request failed".to_owned() };
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}
