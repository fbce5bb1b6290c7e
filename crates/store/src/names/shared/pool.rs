//! The connections that one replica has with PostgreSQL.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};

use super::options::{Address, CONNECT_TIMEOUT, PostgresOptions};
use super::tls::Tls;
use crate::error::{Error, Result};
use crate::names::schema::postgres as schema;
use crate::names::sql::postgres::{STATEMENT_TIMEOUT, away, failure, sentence};
use crate::names::sql::{Connection, Session};

/// How long one waits for a connection while all are in use.
const WAIT: Duration = Duration::from_secs(10);
/// One in so many connections is not for changes: those may wait for each other, and pulls go on meanwhile.
const KEPT_FOR_READS: usize = 4;
/// How long after a connection could not be made nobody tries again. What is remembered is served without waiting for
/// each attempt, and a server that comes up is not met by everybody at once.
const REST: Duration = Duration::from_millis(500);
/// How long the server keeps a transaction whose client says nothing: its locks would hold up others.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(60);

/// Connections, as many as may be, made when they are needed.
pub(super) struct Pool {
    config: Config,
    schema: Option<String>,
    tls: Option<Tls>,
    /// For people: where it is.
    pub(super) address: String,
    runtime: Handle,
    permits: Arc<Semaphore>,
    /// Those who change something need one of these, too.
    change_permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
    /// Why a connection could not be made, if that is how the last attempt ended.
    failed: Mutex<Option<Failure>>,
    /// How many statements were sent.
    sent: Arc<AtomicU64>,
}

/// How the last attempt at a connection failed.
struct Failure {
    at: Instant,
    reason: String,
    /// Whether somebody tries again now. Nobody else does: an attempt at a server that says nothing takes long, and what is
    /// remembered is served meanwhile.
    tried_again: bool,
}

impl Pool {
    pub(super) fn new(options: &PostgresOptions, runtime: Handle) -> Result<Self> {
        let Address { config, schema, text } = Address::new(options)?;
        let connections = options.connections.max(1);
        Ok(Self {
            config,
            schema,
            tls: options.tls.clone().map(Tls),
            address: text,
            runtime,
            permits: Arc::new(Semaphore::new(connections)),
            change_permits: Arc::new(Semaphore::new(connections - connections / KEPT_FOR_READS)),
            idle: Mutex::default(),
            failed: Mutex::default(),
            sent: Arc::default(),
        })
    }

    /// How many statements were sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The right to use one connection.
    pub(super) async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        self.wait_for(&self.permits).await
    }

    /// The right to change something with one connection.
    pub(super) async fn permit_to_change(&self) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        Ok((self.wait_for(&self.change_permits).await?, self.permit().await?))
    }

    async fn wait_for(&self, permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
        match tokio::time::timeout(WAIT, Arc::clone(permits).acquire_owned()).await {
            Ok(permit) => permit.map_err(|_| Error::closed()),
            Err(_) => Err(away(format!("{}: every connection is in use", self.address))),
        }
    }

    /// A connection, which must be given back or dropped while the permit is held. Blocks.
    pub(super) fn take(&self) -> Result<Connection> {
        while let Some(connection) = locked(&self.idle).pop() {
            if matches!(&connection, Connection::Postgres(session) if !session.is_closed()) {
                return Ok(connection);
            }
        }
        self.connect()
    }

    /// Gives a connection back that may be used again.
    pub(super) fn give(&self, connection: Connection) {
        if !self.permits.is_closed() {
            locked(&self.idle).push(connection);
        }
    }

    /// Drops every connection that nobody uses: one was found to be broken, and so are they most likely.
    pub(super) fn drain(&self) {
        locked(&self.idle).clear();
    }

    /// Gives no more permits.
    pub(super) fn close(&self) {
        self.change_permits.close();
        self.permits.close();
        self.drain();
    }

    /// A new connection. Blocks.
    pub(super) fn connect(&self) -> Result<Connection> {
        if let Some(failure) = &mut *locked(&self.failed) {
            if failure.tried_again || failure.at.elapsed() < REST {
                return Err(away(failure.reason.clone()));
            }
            failure.tried_again = true;
        }
        let connected = self.client().and_then(|client| self.prepare(client));
        let reason = match &connected {
            Err(Error::Unavailable { .. }) => Some(format!("{} cannot be reached", self.address)),
            _ => None,
        };
        *locked(&self.failed) =
            reason.map(|reason| Failure { at: Instant::now(), reason, tried_again: false });
        connected
    }

    /// Makes the schema of the address, if it names one that is not there. Blocks.
    pub(super) fn create_schema(&self) -> Result<()> {
        let Some(schema) = &self.schema else { return Ok(()) };
        let client = self.client()?;
        schema::create(&Session::new(client, self.runtime.clone(), Arc::clone(&self.sent)), schema)
    }

    fn client(&self) -> Result<Client> {
        // Made within, since a timeout needs the runtime.
        let client = async { tokio::time::timeout(CONNECT_TIMEOUT, self.establish()).await };
        let late = |_| Err(away(format!("{}: it does not answer", self.address)));
        self.runtime.block_on(client).unwrap_or_else(late)
    }

    async fn establish(&self) -> Result<Client> {
        let told = |error: tokio_postgres::Error| self.refused(&error);
        match &self.tls {
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await.map_err(told)?;
                self.runtime.spawn(drive(connection));
                Ok(client)
            }
            None => {
                let (client, connection) = self.config.connect(tokio_postgres::NoTls).await.map_err(told)?;
                self.runtime.spawn(drive(connection));
                Ok(client)
            }
        }
    }

    /// Says to a new session how long it may take, and where it works. Every statement has its index; a plan that was made
    /// while a table was small must not go through all of it when it is large, and in a transaction that conflicts with
    /// every write.
    fn prepare(&self, client: Client) -> Result<Connection> {
        let session = Session::new(client, self.runtime.clone(), Arc::clone(&self.sent));
        session.batch(&format!(
            "SET statement_timeout = {}; SET idle_in_transaction_session_timeout = {};
             SET client_min_messages = 'warning'; SET enable_seqscan = off; SET jit = off",
            STATEMENT_TIMEOUT.as_millis(),
            IDLE_IN_TRANSACTION.as_millis()
        ))?;
        if let Some(schema) = &self.schema {
            schema::enter(&session, schema)?;
        }
        Ok(Connection::Postgres(session))
    }

    /// Why there is no connection. What nobody but the operator can change is said as such.
    fn refused(&self, error: &tokio_postgres::Error) -> Error {
        let operators = [
            &SqlState::INVALID_PASSWORD,
            &SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            &SqlState::INVALID_CATALOG_NAME,
            &SqlState::INSUFFICIENT_PRIVILEGE,
        ];
        let text = format!("{}: {}", self.address, sentence(error));
        match error.code() {
            Some(code) if operators.contains(&code) => Error::Unusable(format!("PostgreSQL at {text}")),
            Some(_) => failure(error),
            None => away(text),
        }
    }
}

/// Moves what is said and answered over the wire, until the session ends.
async fn drive<S, T>(connection: tokio_postgres::Connection<S, T>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    if let Err(error) = connection.await {
        // Whoever uses the session hears of it.
        tracing::debug!(error = sentence(&error), "a connection to PostgreSQL has ended");
    }
}

/// Nothing under these locks can panic half-way, so a poisoned one is as good as any.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
