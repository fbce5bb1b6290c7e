//! A bad link on loopback: a TCP relay that carries only so many bytes a second, takes its time, breaks connections, and
//! counts what crosses it.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Sub;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How much is carried at once, in bytes: 13 ms of 10 Mbit/s.
const PARCEL: usize = 16 << 10;
/// How many parcels of a connection may be under way: 16 MiB, more than any link here holds.
const UNDER_WAY: usize = 1024;

/// What a link is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Bytes a second in each direction, all connections together.
    pub(super) rate: u64,
    /// How long a byte and its answer take at least.
    pub(super) round_trip: Duration,
    /// After how many bytes from the far end a connection is reset, if at all.
    pub(super) reset_every: Option<u64>,
}

/// Payload of TCP that has crossed a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    /// From the side that connects, in bytes.
    pub(super) sent: u64,
    /// To it, in bytes.
    pub(super) received: u64,
    /// Connections that were reset.
    pub(super) resets: u64,
}

impl Traffic {
    /// Bytes in both directions.
    pub(super) fn total(self) -> u64 {
        self.sent + self.received
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            sent: self.sent - earlier.sent,
            received: self.received - earlier.received,
            resets: self.resets - earlier.resets,
        }
    }
}

/// A link to one server. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Shared {
    terms: Terms,
    /// Whether the terms are in force.
    shaped: AtomicBool,
    out: Lane,
    back: Lane,
    resets: AtomicU64,
}

/// One direction, which all connections share.
#[derive(Debug, Default)]
struct Lane {
    carried: AtomicU64,
    /// When everything has left that was accepted.
    free: Mutex<Option<Instant>>,
}

/// The link broke on purpose.
struct Reset;

impl Link {
    /// A link to `server`, as good as loopback until [`Link::shape`].
    pub(super) async fn to(server: SocketAddr, terms: Terms) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            terms,
            shaped: AtomicBool::new(false),
            out: Lane::default(),
            back: Lane::default(),
            resets: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept(listener, server, Arc::clone(&shared))));
        Ok(Self { address, shared, _stop: stop.drop_guard() })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts the terms in force, for connections that are open too.
    pub(super) fn shape(&self) {
        self.shared.shaped.store(true, Ordering::Relaxed);
    }

    /// What has crossed it until now.
    pub(super) fn traffic(&self) -> Traffic {
        Traffic {
            sent: self.shared.out.carried.load(Ordering::Relaxed),
            received: self.shared.back.carried.load(Ordering::Relaxed),
            resets: self.shared.resets.load(Ordering::Relaxed),
        }
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    // A socket that cannot be accepted is one for the client to miss.
    while let Ok((client, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // Connecting takes a round trip before the first byte can leave.
            tokio::time::sleep(shared.round_trip()).await;
            if let Ok(server) = TcpStream::connect(server).await {
                connection(client, server, &shared).await;
            }
        });
    }
}

/// Carries one connection until both ends have closed it, or the link breaks it.
async fn connection(mut client: TcpStream, mut server: TcpStream, shared: &Shared) {
    let broken = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let out = carry(shared, &shared.out, from_client, to_server, None);
        let back = carry(shared, &shared.back, from_server, to_client, shared.terms.reset_every);
        tokio::try_join!(out, back).is_err()
    };
    if broken {
        shared.resets.fetch_add(1, Ordering::Relaxed);
        // Both ends are to see a reset and not an end.
        let _unlikely = client.set_zero_linger().and_then(|()| server.set_zero_linger());
    }
}

/// Carries one direction of a connection to its end.
async fn carry(
    shared: &Shared,
    lane: &Lane,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    reset_every: Option<u64>,
) -> Result<(), Reset> {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let departing = async move {
        let mut carried = 0;
        loop {
            let mut parcel = vec![0; PARCEL];
            let Ok(count @ 1..) = from.read(&mut parcel).await else { return Ok(()) };
            parcel.truncate(count);
            carried += if shared.is_shaped() { count as u64 } else { 0 };
            if reset_every.is_some_and(|limit| carried > limit) {
                return Err(Reset);
            }
            let left = lane.depart(shared, count as u64);
            sleep_until(left).await;
            if sender.send((left + shared.round_trip() / 2, parcel)).await.is_err() {
                return Ok(());
            }
        }
    };
    let arriving = async {
        while let Some((at, parcel)) = receiver.recv().await {
            sleep_until(at).await;
            if to.write_all(&parcel).await.is_err() {
                return Ok(());
            }
            lane.carried.fetch_add(parcel.len() as u64, Ordering::Relaxed);
        }
        let _gone_already = to.shutdown().await;
        Ok(())
    };
    tokio::try_join!(departing, arriving).map(drop)
}

impl Shared {
    fn is_shaped(&self) -> bool {
        self.shaped.load(Ordering::Relaxed)
    }

    fn round_trip(&self) -> Duration {
        if self.is_shaped() { self.terms.round_trip } else { Duration::ZERO }
    }
}

impl Lane {
    /// When the last of `bytes` that were handed in now has left.
    fn depart(&self, shared: &Shared, bytes: u64) -> Instant {
        let now = Instant::now();
        if !shared.is_shaped() {
            return now;
        }
        let time = Duration::from_secs_f64(bytes as f64 / shared.terms.rate.max(1) as f64);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let left = free.map_or(now, |free| free.max(now)) + time;
        *free = Some(left);
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers one byte with `length` bytes.
    async fn server(length: usize) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut asked = [0];
                    while stream.read_exact(&mut asked).await.is_ok() {
                        if stream.write_all(&vec![7; length]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        address
    }

    async fn ask(link: &Link, length: usize) -> std::io::Result<Duration> {
        let begin = Instant::now();
        let mut stream = TcpStream::connect(link.address()).await?;
        stream.write_all(&[1]).await?;
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).await?;
        assert_eq!(answer, vec![7; length]);
        Ok(begin.elapsed())
    }

    #[tokio::test]
    async fn bytes_take_their_time_and_are_counted() {
        const LENGTH: usize = 100_000;
        let terms =
            Terms { rate: 400_000, round_trip: Duration::from_millis(100), reset_every: Some(150_000) };
        let link = Link::to(server(LENGTH).await, terms).await.unwrap();
        ask(&link, LENGTH).await.unwrap();
        assert_eq!(link.traffic(), Traffic { sent: 1, received: LENGTH as u64, resets: 0 });

        link.shape();
        let before = link.traffic();
        // Connecting, asking, and a quarter of a second for the bytes: a link is never faster than its terms.
        let took = ask(&link, LENGTH).await.unwrap();
        assert!(took >= Duration::from_millis(450), "{took:?}");
        assert_eq!((link.traffic() - before).total(), 1 + LENGTH as u64);
    }

    #[tokio::test]
    async fn connections_break_after_so_many_bytes() {
        let terms = Terms { rate: 1 << 30, round_trip: Duration::ZERO, reset_every: Some(150_000) };
        let link = Link::to(server(200_000).await, terms).await.unwrap();
        link.shape();
        assert!(ask(&link, 200_000).await.is_err());
        assert_eq!(link.traffic().resets, 1);
        let link = Link::to(server(140_000).await, terms).await.unwrap();
        link.shape();
        ask(&link, 140_000).await.unwrap();
        ask(&link, 140_000).await.unwrap();
        assert_eq!(link.traffic().resets, 0, "every connection counts for itself");
    }
}
