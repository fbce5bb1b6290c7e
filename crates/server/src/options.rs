//! What a server is told. Settings are data: every limit has its name here and its key in the configuration.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use deltaport_registry::issuers::Issuers;
use deltaport_registry::tokens::{AccessTokens, RobotTokens};
use deltaport_trust::certificates::Identity;

use crate::audit::AuditLog;
use crate::network::Network;

/// What a [`Server`](crate::Server) is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens. Port 0 lets the system choose one.
    pub listen: SocketAddr,
    /// Certificate and key; without them it speaks plain HTTP.
    pub tls: Option<Tls>,
    /// Where certificate authorities that look for tokens are answered, and nobody else; usually port 80.
    pub challenges: Option<SocketAddr>,
    /// The proxies that are believed whom they speak for (`X-Forwarded-For`). Nobody else is.
    pub trusted_proxies: Vec<Network>,
    /// Whether plain HTTP may be spoken beyond this machine.
    pub insecure_http: bool,
    /// The htpasswd file with the users who may log in. Read again when it changes.
    pub passwords: Option<PathBuf>,
    /// What issues access tokens; without it nobody is asked for one.
    pub access_tokens: Option<AccessTokens>,
    /// The programs that may log in, or come with their secret as a token.
    pub robots: Option<RobotTokens>,
    /// The CI systems whose identity tokens are believed.
    pub issuers: Option<Issuers>,
    /// Where clients find the token endpoint, `https://host[:port]`; without it, where they found us.
    pub url: Option<String>,
    /// Whose certificates are whose. Counts with [`Tls::client_ca`] only.
    pub certificates: Vec<Identity>,
    /// The users whose requests and bytes are counted by name.
    pub counted_users: BTreeSet<String>,
    /// Where it is written who changed what and who was refused.
    pub audit: Option<AuditLog>,
    /// Who is sent to a bucket for the bytes of blobs; without it all get them from here.
    pub redirect: Option<Redirect>,
    /// How much clients may ask for.
    pub limits: Limits,
}

impl Options {
    /// Plain HTTP at `listen`, where nobody can log in.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            tls: None,
            challenges: None,
            trusted_proxies: Vec::new(),
            insecure_http: false,
            passwords: None,
            access_tokens: None,
            robots: None,
            issuers: None,
            url: None,
            certificates: Vec::new(),
            counted_users: BTreeSet::new(),
            audit: None,
            redirect: None,
            limits: Limits::DEFAULT,
        }
    }
}

/// Clients that get the bytes of blobs from the bucket that they are in, when they are in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Where those clients are that can reach the bucket. Of one behind a proxy that is not among
    /// [`Options::trusted_proxies`] it is the proxy's address that counts.
    pub networks: Vec<Network>,
    /// How long an address that a client is sent to is good. Whoever knows it can read the blob.
    pub life: Duration,
}

/// Where the certificate and its key are. All of them are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// A PEM file with the certificate, then those that lead to its root.
    pub certificate: PathBuf,
    /// A PEM file with the private key. It may be the same file.
    pub key: PathBuf,
    /// Whether the files may be missing at first, because somebody is about to write them. Until then, handshakes fail.
    pub awaited: bool,
    /// A PEM file with the authorities whose certificates clients may show; without it none is asked for.
    pub client_ca: Option<PathBuf>,
}

/// How much clients may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest head of a request, in bytes.
    pub header_bytes: usize,
    /// How many connections may be open; others wait to be accepted.
    pub connections: usize,
    /// How long a TLS handshake, and how long the head of a request may take.
    pub header_timeout: Duration,
    /// How long a connection is kept on which nothing is asked.
    pub idle_timeout: Duration,
    /// Over which time a transfer that waits for the client must move [`Limits::progress_bytes`].
    pub progress_interval: Duration,
    /// How many bytes must move in that time, or the connection is closed.
    pub progress_bytes: u64,
    /// How long requests that have begun may take to end after shutdown was asked for.
    pub shutdown_grace: Duration,
    /// How many passwords are checked at the same time, each on a whole core.
    pub password_checks: usize,
    /// How long a password that was right is taken as right without another check.
    pub password_memory: Duration,
    /// How often certificate, key and password file are looked at.
    pub reload_interval: Duration,
}

impl Limits {
    /// What the configuration begins with.
    pub const DEFAULT: Self = Self {
        header_bytes: 64 << 10,
        connections: 1024,
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(75),
        progress_interval: Duration::from_secs(30),
        progress_bytes: 4 << 10,
        shutdown_grace: Duration::from_secs(30),
        password_checks: 2,
        password_memory: Duration::from_secs(60),
        reload_interval: Duration::from_secs(2),
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
