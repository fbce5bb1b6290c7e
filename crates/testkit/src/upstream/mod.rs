//! A registry that follows a script: a table of requests and the replies to them, with states to go through and
//! faults on the way. What it was asked is recorded, byte for byte what it sent is counted.
//!
//! ```
//! # async fn example() {
//! use deltaport_testkit::upstream::{Reply, Rule, Upstream};
//!
//! // The first request is refused, the second answered, and the connection breaks on the way.
//! let upstream = Upstream::start(vec![
//!     Rule::on("GET", "/v2/a/blobs/x").times(1).reply(Reply::status(503)),
//!     Rule::on("GET", "/v2/a/blobs/x").reply(Reply::status(200).body("0123456789").reset_after(4)),
//! ])
//! .await;
//! # drop(upstream);
//! # }
//! ```

mod reply;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::http::{Headers, read_head, read_request_body};
use crate::tls::Certificates;

pub use reply::{Gate, Reply};

/// One line of the script: which requests it is about, and what they are answered.
#[derive(Clone, Debug)]
pub struct Rule {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    state: Option<String>,
    left: Option<usize>,
    reply: Reply,
    next: Option<String>,
}

impl Rule {
    /// About requests of `method` for `target`. A target without a question mark is about every query. Answers 200
    /// with nothing until told otherwise.
    pub fn on(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            state: None,
            left: None,
            reply: Reply::status(200),
            next: None,
        }
    }

    /// What a hub says of itself.
    pub const HUB: &str = r#"{"extensions":[{"name":"_deltaport","endpoints":["_deltaport/delta/layer"]}]}"#;

    /// The question whether it is a hub, which it is.
    pub fn hub() -> Self {
        Self::on("GET", "/v2/_oci/ext/discover").reply(Reply::status(200).body(Self::HUB))
    }

    /// The base of the API, which says nothing.
    pub fn base() -> Self {
        Self::on("GET", "/v2/")
    }

    /// The question whether it is a hub, which it is not.
    pub fn no_hub() -> Self {
        Self::on("GET", "/v2/_oci/ext/discover").reply(Reply::status(404))
    }

    /// Only requests that have this header with this value.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Only while the script is in this state. It begins in the state `""`.
    #[must_use]
    pub fn in_state(mut self, state: &str) -> Self {
        self.state = Some(state.to_owned());
        self
    }

    /// Only for the first `count` requests that it is about.
    #[must_use]
    pub fn times(mut self, count: usize) -> Self {
        self.left = Some(count);
        self
    }

    /// What is answered.
    #[must_use]
    pub fn reply(mut self, reply: Reply) -> Self {
        self.reply = reply;
        self
    }

    /// The state that the script is in afterwards.
    #[must_use]
    pub fn then(mut self, state: &str) -> Self {
        self.next = Some(state.to_owned());
        self
    }

    fn is_about(&self, asked: &Asked, state: &str) -> bool {
        let path = asked.target.split('?').next().unwrap_or_default();
        self.left != Some(0)
            && self.method == asked.method
            && (self.target == asked.target || self.target == path)
            && self.state.as_deref().is_none_or(|wanted| wanted == state)
            && self.headers.iter().all(|(name, value)| asked.headers.all(name).any(|has| has == value))
    }
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The header fields.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
    /// Whether a rule was about it; otherwise it was answered 501.
    pub scripted: bool,
    /// Whether it came over a connection whose other end had shown a certificate.
    pub certified: bool,
    /// The connection that it came over, counted from 0 in the order in which they were accepted.
    pub connection: usize,
}

impl Asked {
    /// Method and target, for messages and comparisons.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// The running script. It ends, with every connection, when this is dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    scheme: &'static str,
    script: Arc<Mutex<Script>>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Script {
    rules: Vec<Rule>,
    state: String,
    asked: Vec<Asked>,
    sent: u64,
    connections: usize,
}

impl Upstream {
    /// Listens on a free port of loopback and follows `rules`: the first that is about a request answers it.
    pub async fn start(rules: Vec<Rule>) -> Self {
        Self::listen(rules, None).await
    }

    /// The same over TLS. Clients may show a certificate of the same authority.
    pub async fn start_tls(rules: Vec<Rule>, certificates: &Certificates) -> Self {
        Self::listen(rules, Some(TlsAcceptor::from(certificates.server()))).await
    }

    async fn listen(rules: Vec<Rule>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let script = Script { rules, state: String::new(), asked: Vec::new(), sent: 0, connections: 0 };
        let script = Arc::new(Mutex::new(script));
        let accepting = tokio::spawn(accept(listener, tls, Arc::clone(&script)));
        Self { address, scheme, script, accepting }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address as a URL without a slash at the end.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Adds a rule that is asked before all others.
    pub fn first(&self, rule: Rule) {
        lock(&self.script).rules.insert(0, rule);
    }

    /// Every request so far, in the order in which they were read.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.script).asked.clone()
    }

    /// Method and target of every request so far.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.script).asked.iter().map(Asked::line).collect()
    }

    /// How many connections have been accepted so far.
    pub fn connections(&self) -> usize {
        lock(&self.script).connections
    }

    /// How many bytes of bodies were sent so far.
    pub fn sent(&self) -> u64 {
        lock(&self.script).sent
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    script.lock().expect("no test panics while it holds the script")
}

/// What a reply is written to: a connection, plain or TLS.
trait Wire: AsyncRead + AsyncWrite + Unpin {
    /// The connection that it goes over.
    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Accepts connections until it is aborted; then its set of connections goes too.
async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, script: Arc<Mutex<Script>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (script, tls) = (Arc::clone(&script), tls.clone());
        let number = {
            let mut script = lock(&script);
            script.connections += 1;
            script.connections - 1
        };
        connections.spawn(async move {
            stream.set_nodelay(true)?;
            let Some(tls) = tls else { return serve(stream, false, number, script).await };
            let stream = tls.accept(stream).await?;
            let certified = stream.get_ref().1.peer_certificates().is_some();
            serve(stream, certified, number, script).await
        });
    }
}

/// Answers the requests of one connection. Where the other end goes away, so does this.
async fn serve(
    mut stream: impl Wire,
    certified: bool,
    connection: usize,
    script: Arc<Mutex<Script>>,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    while let Some((first, headers)) = read_head(&mut stream, &mut buffer).await? {
        let body = read_request_body(&mut stream, &mut buffer, &headers).await?;
        let mut words = first.split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let asked = Asked { method, target, headers, body, scripted: true, certified, connection };
        let range = asked.headers.first("range").map(str::to_owned);
        let head_only = asked.method == "HEAD";
        let reply = lock(&script).answer(asked);
        let count = |bytes: usize| lock(&script).sent += bytes as u64;
        if !reply.send(&mut stream, head_only, range.as_deref(), count).await? {
            return Ok(());
        }
    }
    Ok(())
}

impl Script {
    /// Records a request and finds the reply to it.
    fn answer(&mut self, mut asked: Asked) -> Reply {
        let rule = self.rules.iter_mut().find(|rule| rule.is_about(&asked, &self.state));
        asked.scripted = rule.is_some();
        let reply = match rule {
            None => Reply::status(501).body(format!("the script says nothing about {}", asked.line())),
            Some(rule) => {
                rule.left = rule.left.map(|left| left - 1);
                if let Some(next) = &rule.next {
                    self.state.clone_from(next);
                }
                rule.reply.clone()
            }
        };
        self.asked.push(asked);
        reply
    }
}
