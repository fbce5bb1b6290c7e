//! Requests and responses, and how they are read from a stream.

use std::io;

use base64::Engine as _;
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest head of a message that is read, in bytes.
const MAX_HEAD: usize = 1 << 20;

/// Header fields in the order they came; names are compared without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of `name`.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Every value of `name`, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    /// The fields as they stand in a message, each with its line end.
    pub(crate) fn render(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
    }
}

/// What comes after the head of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// Nothing, and no header says so.
    #[default]
    None,
    /// Bytes whose length is announced.
    Sized(Bytes),
    /// Chunks without an announced length.
    Chunked(Vec<Bytes>),
}

/// A request, to be sent as it stands.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Header fields besides those that the body and the connection bring.
    pub headers: Headers,
    /// The body.
    pub body: Body,
}

impl Request {
    /// A request without a body. `target` may be a whole URL, as it comes in `Location`: its path and query are used.
    pub fn new(method: &str, target: &str) -> Self {
        let target = match target.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
            None => target,
        };
        let needs_length = matches!(method, "POST" | "PUT" | "PATCH");
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Headers::default(),
            body: if needs_length { Body::Sized(Bytes::new()) } else { Body::None },
        }
    }

    /// GET.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// HEAD.
    pub fn head(target: &str) -> Self {
        Self::new("HEAD", target)
    }

    /// POST with an empty body.
    pub fn post(target: &str) -> Self {
        Self::new("POST", target)
    }

    /// PUT with an empty body.
    pub fn put(target: &str) -> Self {
        Self::new("PUT", target)
    }

    /// PATCH with an empty body.
    pub fn patch(target: &str) -> Self {
        Self::new("PATCH", target)
    }

    /// DELETE.
    pub fn delete(target: &str) -> Self {
        Self::new("DELETE", target)
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.headers.push(name, value.as_ref());
        self
    }

    /// Adds one parameter to the query; the value is sent as it stands.
    #[must_use]
    pub fn query(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        let separator = if self.target.contains('?') { '&' } else { '?' };
        self.target = format!("{}{separator}{name}={value}", self.target);
        self
    }

    /// Adds credentials by the Basic scheme.
    #[must_use]
    pub fn basic(self, user: &str, password: &str) -> Self {
        let pair = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"));
        self.header("Authorization", format!("Basic {pair}"))
    }

    /// A body whose length is announced.
    #[must_use]
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.body = Body::Sized(bytes.into());
        self
    }

    /// A body in chunks, without an announced length.
    #[must_use]
    pub fn chunked(mut self, chunks: impl IntoIterator<Item = Bytes>) -> Self {
        self.body = Body::Chunked(chunks.into_iter().collect());
        self
    }

    /// The head as it is sent, up to and with the empty line.
    pub fn render_head(&self, host: &str) -> String {
        let length = match &self.body {
            Body::None => String::new(),
            Body::Sized(bytes) => format!("Content-Length: {}\r\n", bytes.len()),
            Body::Chunked(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
        };
        let fields = self.headers.render();
        let host = match self.headers.first("host") {
            Some(_) => String::new(),
            None => format!("Host: {host}\r\n"),
        };
        format!("{} {} HTTP/1.1\r\n{host}{fields}{length}\r\n", self.method, self.target)
    }

    /// The body as it is sent, with the framing of chunks.
    pub fn render_body(&self) -> Bytes {
        match &self.body {
            Body::None => Bytes::new(),
            Body::Sized(bytes) => bytes.clone(),
            Body::Chunked(chunks) => {
                let mut framed = BytesMut::new();
                for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                    framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    framed.extend_from_slice(chunk);
                    framed.extend_from_slice(b"\r\n");
                }
                framed.extend_from_slice(b"0\r\n\r\n");
                framed.freeze()
            }
        }
    }
}

/// A response, as it arrived.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: Headers,
    /// The body, without the framing of chunks.
    pub body: Bytes,
}

impl Response {
    /// The first value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.first(name)
    }

    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// When it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// The body as text, for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(2000)]).into_owned()
    }
}

/// The first line and the fields of a message; `None` when the stream ends before a message begins. What was read
/// beyond stays in `buffer`.
pub(crate) async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<Option<(String, Headers)>> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if buffer.len() > MAX_HEAD {
            return Err(invalid("the head of a message does not end"));
        }
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    };
    let head = buffer.split_to(end + 4);
    let head = std::str::from_utf8(&head[..end]).map_err(|_| invalid("a head that is not text"))?;
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let mut headers = Headers::default();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| invalid("a field without a colon"))?;
        headers.push(name, value.trim());
    }
    Ok(Some((first, headers)))
}

/// The body of a request, by what its headers announce.
pub(crate) async fn read_request_body(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    headers: &Headers,
) -> io::Result<Bytes> {
    if is_chunked(headers) {
        read_chunks(stream, buffer).await
    } else {
        let length = length(headers)?.unwrap_or(0);
        read_exactly(stream, buffer, length).await
    }
}

/// A whole response to a request of `method`. Interim responses (1xx) are passed over. A body that ends early is an
/// error of kind `UnexpectedEof`.
pub(super) async fn read_response(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    method: &str,
) -> io::Result<Response> {
    loop {
        let (first, headers) =
            read_head(stream, buffer).await?.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status: u16 = status.ok_or_else(|| invalid("no status code"))?;
        if (100..200).contains(&status) {
            continue;
        }
        let body = if method == "HEAD" || matches!(status, 204 | 304) {
            Bytes::new()
        } else if is_chunked(&headers) {
            read_chunks(stream, buffer).await?
        } else if let Some(length) = length(&headers)? {
            read_exactly(stream, buffer, length).await?
        } else {
            while stream.read_buf(buffer).await? > 0 {}
            buffer.split().freeze()
        };
        return Ok(Response { status, headers, body });
    }
}

async fn read_exactly(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    length: usize,
) -> io::Result<Bytes> {
    while buffer.len() < length {
        buffer.reserve((length - buffer.len()).min(1 << 20));
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buffer.split_to(length).freeze())
}

async fn read_chunks(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> io::Result<Bytes> {
    let mut body = BytesMut::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(2).position(|window| window == b"\r\n") {
                break end;
            }
            if stream.read_buf(buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let line = buffer.split_to(end + 2);
        let size = std::str::from_utf8(&line[..end]).ok().and_then(|text| text.split(';').next());
        let size = size.and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
        let size = size.ok_or_else(|| invalid("a chunk without a size"))?;
        let mut chunk = read_exactly(stream, buffer, size + 2).await?;
        if size == 0 {
            return Ok(body.freeze());
        }
        chunk.truncate(size);
        body.extend_from_slice(chunk.chunk());
    }
}

fn is_chunked(headers: &Headers) -> bool {
    headers.all("transfer-encoding").any(|value| value.eq_ignore_ascii_case("chunked"))
}

fn length(headers: &Headers) -> io::Result<Option<usize>> {
    let value = headers.first("content-length");
    value.map(|text| text.parse().map_err(|_| invalid("a length that is not a number"))).transpose()
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
