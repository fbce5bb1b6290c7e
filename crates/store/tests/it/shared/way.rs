//! A way to PostgreSQL that breaks where a test wants it to.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Where it breaks next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    Nowhere,
    /// Before the server hears of a commit.
    BeforeCommit,
    /// After the server has answered to a commit, before the client hears of it.
    AfterCommit,
    /// As soon as the server was told to commit.
    DuringCommit,
    /// After so many bytes more, in either direction.
    After(u64),
    /// Nowhere; but nothing arrives any more, as when a cable is pulled out.
    Silence,
}

/// A relay on loopback.
pub(super) struct Way {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    next: Mutex<Break>,
    breaks: AtomicU64,
}

impl Way {
    pub(super) fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { to, next: Mutex::new(Break::Nowhere), breaks: AtomicU64::new(0) });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                serving.relay(client);
            }
        });
        Self { address, shared }
    }

    pub(super) fn breaks_at(&self, next: Break) {
        *self.shared.next.lock().unwrap() = next;
    }

    /// How often it has broken.
    pub(super) fn breaks(&self) -> u64 {
        self.shared.breaks.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn relay(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.to) else { return };
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
        }
        let answered = Arc::new(Mutex::new(false));
        let directions =
            [(client.try_clone().unwrap(), server.try_clone().unwrap(), true), (server, client, false)];
        for (from, to, is_request) in directions {
            let (shared, answered) = (Arc::clone(self), Arc::clone(&answered));
            thread::spawn(move || shared.copy(from, to, is_request, &answered));
        }
    }

    /// Copies one direction. `swallow` says that the next answer is that to a commit and must not arrive.
    fn copy(&self, mut from: TcpStream, mut to: TcpStream, is_request: bool, swallow: &Mutex<bool>) {
        let mut buffer = [0; 16 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let bytes = &buffer[..read];
            let commits = is_request && bytes.windows(7).any(|window| window == b"COMMIT\0");
            while *self.next.lock().unwrap() == Break::Silence {
                thread::sleep(std::time::Duration::from_millis(20));
            }
            let breaks = {
                let mut next = self.next.lock().unwrap();
                match *next {
                    Break::BeforeCommit if commits => {
                        *next = Break::Nowhere;
                        true
                    }
                    Break::DuringCommit if commits => {
                        *next = Break::Nowhere;
                        let _ = to.write_all(bytes);
                        true
                    }
                    Break::AfterCommit if commits => {
                        *next = Break::Nowhere;
                        *swallow.lock().unwrap() = true;
                        false
                    }
                    Break::After(left) => {
                        let left = left.saturating_sub(read as u64);
                        *next = if left == 0 { Break::Nowhere } else { Break::After(left) };
                        left == 0
                    }
                    _ => false,
                }
            };
            let swallowed = !is_request && *swallow.lock().unwrap();
            if breaks || swallowed || to.write_all(bytes).is_err() {
                if breaks || swallowed {
                    self.breaks.fetch_add(1, Ordering::SeqCst);
                }
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
