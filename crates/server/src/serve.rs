//! The server itself: it binds, accepts, and drains when it is asked to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use deltaport_registry::Registry;
use deltaport_registry::issuers::Issuers;
use deltaport_registry::tokens::AccessTokens;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::challenges::Challenges;
use crate::connection;
use crate::forwarded::TrustedProxies;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::passwords::Users;
use crate::peer::Shared;
use crate::realm::Realm;
use crate::reload::ReloadError;
use crate::throttle::Throttle;
use crate::tls::Certificates;

/// How long to wait when the system refuses a connection for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A server that listens, and serves once it is [run](Server::run).
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
    certificates: Option<Arc<Certificates>>,
    challenges: Challenges,
    /// Where authorities ask for tokens.
    tokens: Option<TcpListener>,
    shared: Arc<Shared>,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Plain HTTP would be spoken beyond this machine, and nobody said that it may be.
    #[error(
        "{0} is reachable from other machines and there is no certificate; passwords and images would travel in the clear"
    )]
    PlainHttp(SocketAddr),
    /// The certificate, its key or the password file cannot be used.
    #[error(transparent)]
    File(#[from] ReloadError),
}

impl Server {
    /// Reads the certificate and the password file, if there are any, and listens.
    pub async fn bind(options: Options, registry: Registry) -> Result<Self, BindError> {
        if options.tls.is_none() && !options.insecure_http && !options.listen.ip().is_loopback() {
            return Err(BindError::PlainHttp(options.listen));
        }
        let challenges = Challenges::default();
        let load = |tls| Certificates::load(tls, challenges.clone());
        let certificates = options.tls.as_ref().map(load).transpose()?.map(Arc::new);
        let users = options.passwords.as_ref().map(|path| Users::load(path, &options.limits)).transpose()?;
        let listener = listen(options.listen).await?;
        let local_addr =
            listener.local_addr().map_err(|source| BindError::Listen { address: options.listen, source })?;
        let tokens = match options.challenges {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let service = options.access_tokens.as_ref().map(AccessTokens::service);
        let of_issuers = options.issuers.iter().flat_map(Issuers::users);
        let without_password = options.certificates.iter().map(|one| &one.user).chain(of_issuers);
        let without_password = without_password.cloned().collect();
        let shared = Shared {
            metrics: Metrics::new(&registry, options.counted_users),
            registry,
            redirect: options.redirect,
            proxies: TrustedProxies::new(options.trusted_proxies),
            realm: Realm::new(options.url.as_deref(), certificates.is_some(), service),
            identity: Identity {
                users: users.map(Arc::new),
                access_tokens: options.access_tokens,
                robots: options.robots,
                without_password,
                issuers: options.issuers,
                throttle: Throttle::default(),
            },
            audit: options.audit,
            certificates: options.certificates,
            limits: options.limits,
        };
        Ok(Self { listener, local_addr, certificates, challenges, tokens, shared: Arc::new(shared) })
    }

    /// Where it listens, with the port that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What is shown to certificate authorities.
    pub fn challenges(&self) -> Challenges {
        self.challenges.clone()
    }

    /// Whether it speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.certificates.is_some()
    }

    /// Serves until `stop`; then accepts no more, lets requests that have begun end for at most
    /// [`Limits::shutdown_grace`](crate::Limits::shutdown_grace), and returns. `true` when all of them ended.
    pub async fn run(mut self, stop: CancellationToken) -> bool {
        let connections = TaskTracker::new();
        let abort = CancellationToken::new();
        let _reloading = abort.clone().drop_guard();
        self.watch_files(&abort);
        if let Some(tokens) = self.tokens.take() {
            tokio::spawn(self.challenges.clone().serve(tokens, stop.clone()));
        }
        self.accept(&stop, &abort, &connections).await;

        let grace = self.shared.limits.shutdown_grace;
        drop(self.listener);
        connections.close();
        let drained = tokio::time::timeout(grace, connections.wait()).await.is_ok();
        if !drained {
            tracing::warn!(
                open = connections.len(),
                ?grace,
                "closing connections whose requests did not end in time"
            );
            abort.cancel();
            connections.wait().await;
        }
        if let Some(audit) = self.shared.audit.clone() {
            let _closed = tokio::task::spawn_blocking(move || audit.close()).await;
        }
        drained
    }

    async fn accept(&self, stop: &CancellationToken, abort: &CancellationToken, connections: &TaskTracker) {
        let places = Arc::new(Semaphore::new(self.shared.limits.connections));
        let next = async || {
            // A place first, then a connection: those that find none wait in the system's queue, not here.
            let place = Arc::clone(&places).acquire_owned().await;
            (place, self.listener.accept().await)
        };
        while let Some((place, accepted)) = stop.run_until_cancelled(next()).await {
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let tls = self.certificates.as_ref().map(|certificates| certificates.acceptor());
            let (shared, stop, abort) = (Arc::clone(&self.shared), stop.clone(), abort.clone());
            connections.spawn(async move {
                let _place = place;
                abort.run_until_cancelled(connection::serve(stream, peer, tls, shared, stop)).await;
            });
        }
    }

    /// Starts looking at the files that are read again when they change.
    fn watch_files(&self, stop: &CancellationToken) {
        let interval = self.shared.limits.reload_interval;
        if let Some(certificates) = &self.certificates {
            tokio::spawn(Arc::clone(certificates).watch(interval, stop.clone()));
        }
        if let Some(users) = &self.shared.identity.users {
            tokio::spawn(Arc::clone(users).watch(interval, stop.clone()));
        }
        if let Some(issuers) = &self.shared.identity.issuers {
            tokio::spawn(issuers.clone().refresh(stop.clone()));
        }
        if let Some(tokens) = &self.shared.identity.access_tokens {
            tokio::spawn(tokens.clone().rotate(stop.clone()));
        }
        if let Some(robots) = &self.shared.identity.robots {
            tokio::spawn(robots.clone().watch(stop.clone()));
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError::Listen { address, source })
}
