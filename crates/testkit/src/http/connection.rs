//! The asking end: one connection, or a new one for each request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::message::{Request, Response, read_response};

/// How long a test waits for a response, or for the body of one. Only a hang takes this long.
pub const TIME_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
enum Authorization {
    Basic(String, String),
    Bearer(String),
}

/// Sends requests to one server, each on a new connection.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    tls: Option<Arc<rustls::ClientConfig>>,
    authorization: Option<Authorization>,
}

impl Client {
    /// Speaks plain HTTP to `address`.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None, authorization: None }
    }

    /// Speaks TLS to `address`.
    pub fn tls(address: SocketAddr, config: Arc<rustls::ClientConfig>) -> Self {
        Self { address, tls: Some(config), authorization: None }
    }

    /// The same with credentials on every request.
    #[must_use]
    pub fn logged_in(&self, user: &str, password: &str) -> Self {
        let authorization = Some(Authorization::Basic(user.to_owned(), password.to_owned()));
        Self { authorization, ..self.clone() }
    }

    /// The same with a bearer token on every request.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { authorization: Some(Authorization::Bearer(token.to_owned())), ..self.clone() }
    }

    /// The same without credentials.
    #[must_use]
    pub fn anonymous(&self) -> Self {
        Self { authorization: None, ..self.clone() }
    }

    /// Where the requests go.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens a connection.
    pub async fn connect(&self) -> io::Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = match &self.tls {
            None => Stream::Plain(stream),
            Some(config) => {
                let name = ServerName::IpAddress(self.address.ip().into());
                let connector = TlsConnector::from(Arc::clone(config));
                Stream::Tls(Box::new(connector.connect(name, stream).await?))
            }
        };
        Ok(Connection { stream, buffer: BytesMut::new(), host: self.address.to_string() })
    }

    /// Sends a request on a new connection and returns the whole response.
    ///
    /// # Panics
    ///
    /// When there is none within [`TIME_LIMIT`].
    pub async fn send(&self, request: Request) -> Response {
        let shown = format!("{} {}", request.method, request.target);
        self.try_send(request).await.unwrap_or_else(|error| panic!("{shown}: {error}"))
    }

    /// Sends a request on a new connection and returns the whole response, or what went wrong on the way. What
    /// arrives after the server refused the rest of a body counts.
    pub async fn try_send(&self, mut request: Request) -> io::Result<Response> {
        match &self.authorization {
            Some(Authorization::Basic(user, password)) => request = request.basic(user, password),
            Some(Authorization::Bearer(token)) => {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            None => {}
        }
        let request = request.header("Connection", "close");
        let exchange = async {
            let mut connection = self.connect().await?;
            let sent = connection.send(&request).await;
            match connection.response(&request.method).await {
                Ok(response) => Ok(response),
                Err(error) => Err(sent.err().unwrap_or(error)),
            }
        };
        tokio::time::timeout(TIME_LIMIT, exchange)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

/// One connection to a server.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// What was received and not yet used.
    buffer: BytesMut,
    host: String,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Sends a whole request.
    pub async fn send(&mut self, request: &Request) -> io::Result<()> {
        let head = request.render_head(&self.host);
        self.write(head.as_bytes()).await?;
        self.write(&request.render_body()).await
    }

    /// Sends the head of a request and nothing of its body, which [`Connection::write`] sends in pieces.
    pub async fn send_head(&mut self, request: &Request) -> io::Result<()> {
        let head = request.render_head(&self.host);
        self.write(head.as_bytes()).await
    }

    /// Sends bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes).await,
            Stream::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// Reads the response to a request of `method`.
    pub async fn response(&mut self, method: &str) -> io::Result<Response> {
        let read = async {
            match &mut self.stream {
                Stream::Plain(stream) => read_response(stream, &mut self.buffer, method).await,
                Stream::Tls(stream) => read_response(stream, &mut self.buffer, method).await,
            }
        };
        tokio::time::timeout(TIME_LIMIT, read).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// Says that nothing more will be sent, and goes on listening.
    pub async fn finish(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.shutdown().await,
            Stream::Tls(stream) => stream.shutdown().await,
        }
    }

    /// Breaks the connection off as a dead link does: with a reset and not with a farewell.
    pub fn reset(self) -> io::Result<()> {
        match self.stream {
            Stream::Plain(stream) => stream.set_zero_linger(),
            Stream::Tls(stream) => stream.get_ref().0.set_zero_linger(),
        }
    }
}
