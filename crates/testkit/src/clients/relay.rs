//! A TCP relay in front of an HTTP/1.1 server: it counts, it remembers what was asked, and it breaks things.

use std::fmt;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Sub;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The answer to a request that is refused.
const REFUSAL: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

/// Bytes that went through a relay: all of TCP's payload, heads of requests and answers included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// From the client to the server.
    pub sent: u64,
    /// From the server to the client.
    pub received: u64,
}

impl Traffic {
    /// Both directions.
    pub fn total(self) -> u64 {
        self.sent + self.received
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { sent: self.sent - earlier.sent, received: self.received - earlier.received }
    }
}

/// What a relay does with a request that it was told to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Flips a bit in the body of the answer.
    Corrupt,
    /// Closes the connection when this many bytes of the request have passed.
    Cut(u64),
    /// Answers 404 itself.
    Refuse,
}

/// A relay from a port of 127.0.0.1 to a server. It reads along where a request begins, which it knows because no
/// client of ours sends one before the last was answered.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

type Rule = (Box<dyn Fn(&str) -> bool + Send>, Fault);

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
    requests: Mutex<Vec<String>>,
    rule: Mutex<Option<Rule>>,
}

impl Relay {
    /// Starts a relay to `server`.
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        let relay = Self { address, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.stopped.load(Ordering::Relaxed) {
                    break;
                }
                // A client that went away, or a server that is down, is for the client to see.
                if let Ok(client) = client
                    && let Ok(server) = TcpStream::connect(server)
                {
                    Connection::start(client, server, &shared);
                }
            }
        });
        relay
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has gone through until now.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            sent: self.shared.sent.load(Ordering::SeqCst),
            received: self.shared.received.load(Ordering::SeqCst),
        }
    }

    /// The first lines of all requests until now, as `GET /v2/ HTTP/1.1`.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.shared.requests).clone()
    }

    /// From now on does `fault` to each request whose first line is one of `which`.
    pub fn breaks(&self, fault: Fault, which: impl Fn(&str) -> bool + Send + 'static) {
        *lock(&self.shared.rule) = Some((Box::new(which), fault));
    }

    /// From now on breaks nothing.
    pub fn mends(&self) {
        *lock(&self.shared.rule) = None;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

/// One connection: each direction has a thread, which ends with the connection.
struct Connection {
    client: TcpStream,
    server: TcpStream,
    shared: Arc<Shared>,
    /// Whether the next bytes of a body from the server are to be changed.
    corrupt: AtomicBool,
}

impl Connection {
    fn start(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
        let connection =
            Arc::new(Self { client, server, shared: Arc::clone(shared), corrupt: AtomicBool::new(false) });
        let other = Arc::clone(&connection);
        thread::spawn(move || {
            let _ = other.requests();
            let _ = other.server.shutdown(Shutdown::Write);
        });
        thread::spawn(move || {
            let _ = connection.answers();
            let _ = connection.client.shutdown(Shutdown::Write);
        });
    }

    fn requests(&self) -> std::io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        let mut left_until_cut = None;
        loop {
            let length = read(&self.client, &mut buffer)?;
            let bytes = &buffer[..length];
            if bytes.is_empty() {
                return Ok(());
            }
            self.shared.sent.fetch_add(length as u64, Ordering::SeqCst);
            let line = request_line(bytes);
            if line.is_some() {
                // The answer before had no body.
                self.corrupt.store(false, Ordering::SeqCst);
            }
            match line.and_then(|line| self.shared.note(line)) {
                Some(Fault::Refuse) => {
                    self.shared.received.fetch_add(REFUSAL.len() as u64, Ordering::SeqCst);
                    (&self.client).write_all(REFUSAL)?;
                    continue;
                }
                Some(Fault::Corrupt) => self.corrupt.store(true, Ordering::SeqCst),
                Some(Fault::Cut(after)) => left_until_cut = Some(after),
                None => {}
            }
            (&self.server).write_all(bytes)?;
            if let Some(left) = &mut left_until_cut {
                let Some(rest) = left.checked_sub(length as u64) else {
                    self.server.shutdown(Shutdown::Both)?;
                    return self.client.shutdown(Shutdown::Both);
                };
                *left = rest;
            }
        }
    }

    fn answers(&self) -> std::io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = read(&self.server, &mut buffer)?;
            let bytes = &mut buffer[..length];
            if bytes.is_empty() {
                return Ok(());
            }
            self.shared.received.fetch_add(length as u64, Ordering::SeqCst);
            if self.corrupt.load(Ordering::SeqCst) {
                let body = body_of(bytes);
                if let Some(byte) = body.get_mut(body.len() / 2) {
                    *byte ^= 0x40;
                    self.corrupt.store(false, Ordering::SeqCst);
                }
            }
            (&self.client).write_all(bytes)?;
        }
    }
}

impl Shared {
    /// Remembers a request, and says what is to be done to it.
    fn note(&self, line: &str) -> Option<Fault> {
        lock(&self.requests).push(line.to_owned());
        lock(&self.rule).as_ref().filter(|(which, _)| which(line)).map(|(_, fault)| *fault)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("sent", &self.sent)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

fn read(mut stream: &TcpStream, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// The first line of the request that begins with these bytes, if one does.
fn request_line(bytes: &[u8]) -> Option<&str> {
    const METHODS: [&str; 6] = ["GET /", "HEAD /", "POST /", "PUT /", "PATCH /", "DELETE /"];
    if !METHODS.iter().any(|method| bytes.starts_with(method.as_bytes())) {
        return None;
    }
    std::str::from_utf8(bytes.split(|byte| *byte == b'\r').next()?).ok()
}

/// What is not the head of an answer.
fn body_of(bytes: &mut [u8]) -> &mut [u8] {
    if !bytes.starts_with(b"HTTP/1.1 ") {
        return bytes;
    }
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    &mut bytes[end..]
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that failed while it held the lock has said so already.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers every read with the same 64 bytes of body.
    fn server() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut buffer = [0; 1024];
                while stream.read(&mut buffer).is_ok_and(|length| length > 0) {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n").unwrap();
                    stream.write_all(&[7; 64]).unwrap();
                }
            }
        });
        address
    }

    fn ask(stream: &mut TcpStream, path: &str) -> Vec<u8> {
        stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"0\r\n\r\n") && answer.len() < 39 + 64 {
            let mut buffer = [0; 1024];
            let length = stream.read(&mut buffer).unwrap();
            assert!(length > 0, "closed after {} bytes", answer.len());
            answer.extend_from_slice(&buffer[..length]);
        }
        answer
    }

    #[test]
    fn it_counts_remembers_and_breaks_only_what_it_is_told() {
        let relay = Relay::to(server());
        let mut stream = TcpStream::connect(relay.address()).unwrap();
        let good = ask(&mut stream, "/a");
        assert_eq!(relay.traffic(), Traffic { sent: 19, received: good.len() as u64 });

        relay.breaks(Fault::Corrupt, |line| line.contains("/b"));
        assert_eq!(ask(&mut stream, "/a"), good);
        let bad = ask(&mut stream, "/b");
        assert_eq!(bad.iter().zip(&good).filter(|(bad, good)| bad != good).count(), 1);
        assert_eq!(bad[..39], good[..39], "the head stays as it is");

        relay.breaks(Fault::Refuse, |line| line.contains("/c"));
        assert_eq!(ask(&mut stream, "/c"), REFUSAL);
        relay.mends();
        assert_eq!(ask(&mut stream, "/c"), good);
        assert_eq!(relay.requests().len(), 5);
        assert_eq!(relay.requests()[2], "GET /b HTTP/1.1");

        relay.breaks(Fault::Cut(30), |line| line.contains("/d"));
        stream.write_all(b"PUT /d HTTP/1.1\r\n\r\n").unwrap();
        let mut buffer = [0; 1024];
        assert!(stream.read(&mut buffer).unwrap() > 0, "the head alone is short enough");
        let _ = stream.write_all(&[0; 100]);
        while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
    }
}
