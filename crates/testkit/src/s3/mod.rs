//! An S3 server in this process: buckets in memory, requests checked and counted, faults on purpose.
//!
//! The protocol (signatures, presigned URLs, XML) is that of the crate `s3s`; what objects, parts and conditions mean is
//! written here, by the documentation of S3 and stricter than its servers are where they differ: an upload that was
//! completed is unknown afterwards, parts are at least 5 MiB, and the region must be right.
//!
//! ```
//! # fn example() {
//! use deltaport_testkit::s3::{Fault, Kind, Server};
//!
//! let server = Server::start();
//! let bucket = server.bucket();
//! // The answers of two requests get lost after they were done.
//! server.breaks_times(2, Fault::LoseAnswer, |asked| asked.kind == Kind::Complete);
//! # drop((server, bucket));
//! # }
//! ```

mod front;
mod memory;
pub mod service;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::tls::Certificates;
use front::Front;
use memory::Memory;

/// The one access key that there is.
pub const ACCESS_KEY: &str = "AKTESTKIT";
/// Its secret.
pub const SECRET_KEY: &str = "a secret of the test kit";
/// The region that requests must be signed for.
pub const REGION: &str = "test-1";

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The bytes of an object, or a range of them.
    Get,
    /// What an object is like.
    Head,
    /// An object at once.
    Put,
    /// The beginning of an object in parts.
    Create,
    /// A part.
    Part,
    /// The end of an object in parts.
    Complete,
    /// An object in parts is given up.
    Abort,
    /// One object is removed.
    Delete,
    /// Many objects are removed.
    DeleteMany,
    /// Objects, parts or uploads are listed.
    List,
    /// An object is made of another, or a part.
    Copy,
    /// Anything else, such as what a bucket is like.
    Other,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Get,
        Self::Head,
        Self::Put,
        Self::Create,
        Self::Part,
        Self::Complete,
        Self::Abort,
        Self::Delete,
        Self::DeleteMany,
        Self::List,
        Self::Copy,
        Self::Other,
    ];
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What it does.
    pub kind: Kind,
    /// The method.
    pub method: String,
    /// The path: bucket and key, as it came.
    pub path: String,
    /// The query, as it came; empty without one.
    pub query: String,
    /// The value of `Range`.
    pub range: Option<String>,
    /// The length of its body as it was announced.
    pub length: u64,
}

/// How many requests of each kind arrived, those included that were broken.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts([u64; Kind::ALL.len()]);

impl Counts {
    /// Those of one kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    fn add(&mut self, kind: Kind) {
        self.0[kind as usize] += 1;
    }
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self(std::array::from_fn(|kind| self.0[kind] - earlier.0[kind]))
    }
}

/// The kinds of which there were any.
impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = Kind::ALL.into_iter().filter(|kind| self.of(*kind) > 0);
        f.debug_map().entries(some.map(|kind| (kind, self.of(kind)))).finish()
    }
}

/// What is done to a request instead of answering it well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status and the code that S3 has for it, and not done.
    Status(u16),
    /// It is answered 403 `AccessDenied`, and not done.
    Denied,
    /// It is answered 403 `RequestTimeTooSkewed`, as if the clocks were apart, and not done.
    Skewed,
    /// It is done after this time.
    Slow(Duration),
    /// The connection breaks when so many bytes of its body have arrived, and it is not done.
    CutRequest(u64),
    /// It is done, and the connection breaks after so many bytes of the answer's body.
    CutAnswer(u64),
    /// It is done, and the connection breaks without an answer: a client will send it again.
    LoseAnswer,
    /// It is done twice, as a proxy may do; the second answer is given.
    Twice,
    /// One bit of the answer's body is another.
    Corrupt,
    /// It is done, and the answer's body stops after so many bytes while the connection stays.
    Stall(u64),
}

/// A running server. It ends with this, and what it has goes with it.
#[derive(Debug)]
pub struct Server {
    front: Arc<Front>,
    address: SocketAddr,
    running: Mutex<Option<Running>>,
    certificates: Option<Certificates>,
}

/// The thread that serves, and what ends it.
#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Starts one on a free port of loopback.
    pub fn start() -> Self {
        Self::launch(None)
    }

    /// Starts one that speaks TLS with this certificate.
    pub fn start_tls(certificates: &Certificates) -> Self {
        Self::launch(Some(certificates.clone()))
    }

    fn launch(certificates: Option<Certificates>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let front = Arc::new(Front::new(Memory::default()));
        let server = Self { front, address, running: Mutex::new(None), certificates };
        server.serve(listener);
        server
    }

    fn serve(&self, listener: TcpListener) {
        let (stop, stopped) = oneshot::channel();
        let (front, tls) = (Arc::clone(&self.front), self.certificates.as_ref().map(Certificates::server));
        let thread = std::thread::spawn(move || front::run(listener, &front, tls, stopped));
        *front::lock(&self.running) = Some(Running { stop, thread });
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`, or `https://…`. Buckets are part of the path.
    pub fn endpoint(&self) -> String {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Makes a bucket and returns its name.
    pub fn bucket(&self) -> String {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("bucket-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.front.memory().make_bucket(&name);
        name
    }

    /// Stops listening and breaks every connection. What is stored stays.
    pub fn stop(&self) {
        if let Some(Running { stop, thread }) = front::lock(&self.running).take() {
            // It may have ended already.
            let _ = stop.send(());
            let _ = thread.join();
        }
    }

    /// Listens again on the same port, after [`Server::stop`].
    pub fn start_again(&self) {
        self.serve(TcpListener::bind(self.address).expect("our port is still free"));
    }

    /// What has been asked until now.
    pub fn counts(&self) -> Counts {
        self.front.counts()
    }

    /// Every request until now.
    pub fn asked(&self) -> Vec<Asked> {
        self.front.asked()
    }

    /// From now on does `fault` to the requests for which `which` holds, until [`Server::mends`]. Of several such orders
    /// the first that holds counts.
    pub fn breaks(&self, fault: Fault, which: impl FnMut(&Asked) -> bool + Send + 'static) {
        self.front.breaks(None, fault, Box::new(which));
    }

    /// Like [`Server::breaks`], but only so many times.
    pub fn breaks_times(&self, times: u64, fault: Fault, which: impl FnMut(&Asked) -> bool + Send + 'static) {
        self.front.breaks(Some(times), fault, Box::new(which));
    }

    /// Breaks one request out of `one_in`, by chance, with one of the faults, by chance. What `seed` says depends on the
    /// order in which requests arrive.
    pub fn breaks_by_chance(&self, seed: u64, one_in: u64, faults: &[Fault]) {
        let mut dice = Dice(seed);
        let chosen: Vec<_> = faults.to_vec();
        self.front.breaks_with(
            None,
            Box::new(move |_| {
                (dice.roll(one_in) == 0)
                    .then(|| chosen[usize::try_from(dice.roll(chosen.len() as u64)).unwrap_or(0)].clone())
            }),
        );
    }

    /// From now on breaks nothing.
    pub fn mends(&self) {
        self.front.mends();
    }

    /// The keys in a bucket and the lengths of their objects.
    pub fn objects(&self, bucket: &str) -> Vec<(String, u64)> {
        self.front.memory().objects(bucket)
    }

    /// The bytes of an object.
    pub fn object(&self, bucket: &str, key: &str) -> Option<Bytes> {
        self.front.memory().bytes(bucket, key)
    }

    /// How many uploads in parts have neither been completed nor given up.
    pub fn unfinished(&self, bucket: &str) -> usize {
        self.front.memory().unfinished(bucket)
    }

    /// Takes an object away behind everybody's back, and says whether there was one.
    pub fn lose(&self, bucket: &str, key: &str) -> bool {
        self.front.memory().lose(bucket, key)
    }

    /// Flips a bit in the middle of an object, and says whether there was one with any bytes.
    pub fn rot(&self, bucket: &str, key: &str) -> bool {
        self.front.memory().rot(bucket, key)
    }

    /// Makes everything that is stored older: what looks for leftovers goes by the times that the server says.
    pub fn age(&self, by: Duration) {
        self.front.memory().age(by);
    }

    /// Lists have so many entries from now on, in place of 1,000.
    pub fn page(&self, entries: usize) {
        self.front.memory().set_page(entries);
    }

    /// Takes parts of any size from now on, in place of at least 5 MiB for all but the last.
    pub fn take_small_parts(&self) {
        self.front.memory().take_small_parts();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Chance that can be replayed (xorshift64*).
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        let mut x = self.0.max(1);
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0 = x;
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % sides.max(1)
    }
}
