//! A real PostgreSQL: Debian's, on a free port of loopback, with data that vanish afterwards.
//!
//! Setting a server up takes more than a second, a database in it a fifth of that. So tests share a server, also across
//! processes, and each has a database of its own ([`Database::new`]). A test that stops its server, or wants it to speak
//! TLS, has one to itself ([`Server::start`]).
//!
//! A server outlives a process that is killed by some seconds at most: who uses one holds a lock, and a small shell
//! beside it ends the server and removes its data when nobody holds that lock any more.
//!
//! PostgreSQL refuses to run as root, and then runs as the user that its package brings. A server that is not installed
//! fails the test that wants it, with the package to install; nothing is skipped.

mod cluster;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use crate::tls::Certificates;
use cluster::{Cluster, Shared, guard, programs, use_it};

/// The role that may do everything. It needs no password; every other role does.
pub const ROOT: &str = "postgres";

/// How a server of a test's own is to be set up.
#[derive(Debug, Default)]
pub struct Setup {
    certificates: Option<Certificates>,
    durable: bool,
    settings: Vec<(String, String)>,
}

impl Setup {
    /// As fast as it goes: nothing is synced, so what is committed outlives the server, but not the machine. No TLS.
    pub fn new() -> Self {
        Self::default()
    }

    /// Syncs what it commits, as in production: for measurements.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Offers TLS with this certificate, and refuses connections of roles other than [`ROOT`] without it.
    #[must_use]
    pub fn tls(mut self, certificates: &Certificates) -> Self {
        self.certificates = Some(certificates.clone());
        self
    }

    /// Sets a parameter of the server, such as `max_connections`.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the server up and starts it.
    ///
    /// # Panics
    ///
    /// When PostgreSQL is not installed or does not start, with what it says.
    pub fn start(self) -> Server {
        let home = TempDir::with_prefix("deltaport-postgres-").expect("a temporary directory");
        let lock = home.path().join("used");
        let used = use_it(&lock);
        guard(home.path(), &lock);
        let mut cluster = Cluster::create(home.path(), &self);
        cluster.start();
        Server { cluster: Mutex::new(cluster), _home: home, _used: used }
    }
}

/// A server of a test's own. It ends with this.
#[derive(Debug)]
pub struct Server {
    // In this order: the server ends before its directory goes.
    cluster: Mutex<Cluster>,
    _home: TempDir,
    /// As long as it is held, the server is not ended by others.
    _used: File,
}

impl Server {
    /// Sets one up as [`Setup::new`] has it.
    pub fn start() -> Self {
        Setup::new().start()
    }

    /// Where it listens; the same after it was started again.
    pub fn address(&self) -> SocketAddr {
        self.cluster().address()
    }

    /// A fresh, empty database in it.
    pub fn database(&self) -> Database {
        let mut database = Database::create(self.address());
        // It goes with its server.
        database.drop = false;
        database
    }

    /// Ends it as a crash would: every connection breaks, nothing is written any more.
    pub fn stop(&self) {
        self.cluster().stop();
    }

    /// Starts it after [`Server::stop`], on the same port and data, and waits until it takes connections.
    pub fn start_again(&self) {
        self.cluster().start();
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        self.cluster().log()
    }

    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        // A test that failed while it held the lock has said so already.
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An empty database of its own, encoded in UTF-8 and ordered by bytes. It is dropped with this.
#[derive(Debug)]
pub struct Database {
    address: SocketAddr,
    name: String,
    /// Whether it must be dropped because its server goes on.
    drop: bool,
}

impl Database {
    /// A database in the server that the tests share.
    ///
    /// # Panics
    ///
    /// When PostgreSQL is not installed or does not start, with what it says.
    #[expect(clippy::new_without_default, reason = "it starts a server")]
    pub fn new() -> Self {
        Self::create(Shared::address())
    }

    fn create(address: SocketAddr) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let maintenance = Self { address, name: ROOT.to_owned(), drop: false };
        // A process of this number may have been killed before.
        maintenance.execute(&format!("DROP DATABASE IF EXISTS {name}"));
        maintenance.execute(&format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'"));
        Self { address, name, drop: true }
    }

    /// `postgres://postgres@127.0.0.1:PORT/NAME`.
    pub fn url(&self) -> String {
        self.url_of(ROOT)
    }

    /// The same for another role. A password does not belong there.
    pub fn url_of(&self, role: &str) -> String {
        format!("postgres://{role}@{}/{}", self.address, self.name)
    }

    /// The same over another way, such as a relay in front of the server.
    pub fn url_through(&self, relay: SocketAddr) -> String {
        format!("postgres://{ROOT}@{relay}/{}", self.name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes a role that may do everything in this database, and must say the password. The name is made of
    /// `prefix` and the database's: roles belong to the server.
    pub fn role(&self, prefix: &str, password: &str) -> String {
        let role = format!("{prefix}_{}", self.name);
        self.execute(&format!("DROP ROLE IF EXISTS {role}"));
        self.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD '{password}'"));
        self.execute(&format!("GRANT ALL ON DATABASE {} TO {role}", self.name));
        self.execute(&format!("GRANT ALL ON SCHEMA public TO {role}"));
        role
    }

    /// Runs statements as [`ROOT`] and returns the rows, a line each, columns separated by `|`.
    ///
    /// # Panics
    ///
    /// When a statement fails, with what the server says.
    pub fn execute(&self, sql: &str) -> String {
        let mut command = Command::new(programs().join("psql"));
        command.env_clear().env("PGCONNECT_TIMEOUT", "20");
        command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"]);
        let output = command.args(["--dbname", &self.url(), "--command", sql]).output();
        let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(output.status.success(), "{sql}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Ends every connection to it but one's own, as an administrator would.
    pub fn disconnect_everybody(&self) {
        let name = &self.name;
        self.execute(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()"
        ));
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.drop {
            let maintenance = Self { address: self.address, name: ROOT.to_owned(), drop: false };
            let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
            // A panic here while the test panics would hide the test's.
            let _ = std::panic::catch_unwind(|| maintenance.execute(&sql));
        }
    }
}

/// Loopback, where every server listens.
fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
