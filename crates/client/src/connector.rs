//! How connections are made: whom we trust, what we show of ourselves, and to whom.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use reqwest::Url;

use crate::address::Resolver;
use crate::credentials::read;
use crate::error::ErrorKind;
use crate::idle;
use crate::options::{ClientCertificate, Options};
use crate::transport::chain;

/// How often an idle connection is looked after. On links that die without a word, a request that is sent over a dead
/// connection costs the whole wait for its answer.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long a certificate is shown without looking whether its file has changed.
const RECHECK: Duration = Duration::from_secs(2);

type Result<T> = std::result::Result<T, ErrorKind>;

/// What all connections of an upstream have in common.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    authorities: Vec<reqwest::Certificate>,
    timeout: Duration,
    resolver: Resolver,
    /// Whether the upstream speaks plain text.
    plain: bool,
}

impl Connector {
    /// Fails when the authorities are no PEM.
    pub(crate) fn new(options: &Options, home: &Url, resolver: Resolver) -> Result<Self> {
        let authorities = options.ca.as_deref().map_or(Ok(Vec::new()), reqwest::Certificate::from_pem_bundle);
        Ok(Self {
            authorities: authorities.map_err(|error| broken(&error))?,
            timeout: options.timeouts.connect,
            resolver,
            plain: home.scheme() == "http",
        })
    }

    /// Connections that show `identity`, or nothing of us.
    pub(crate) fn build(&self, identity: Option<&reqwest::Identity>) -> Result<reqwest::Client> {
        let builder = || {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("deltaport/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .no_proxy()
                .connect_timeout(self.timeout)
                .tcp_keepalive(KEEPALIVE)
                .pool_idle_timeout(idle::LIFE)
                .dns_resolver(self.resolver.clone());
            match identity {
                Some(identity) => builder.identity(identity.clone()),
                None => builder,
            }
        };
        let built = match builder().tls_certs_merge(self.authorities.clone()).build() {
            // A machine without any certificate authorities can still talk to an upstream in plain text.
            Err(_) if self.plain => builder().tls_certs_only([]).build(),
            other => other,
        };
        built.map_err(|error| broken(&error))
    }
}

/// Connections that show our certificate, made anew when its files change: certificates of machines are short-lived.
#[derive(Debug)]
pub(crate) struct Identified {
    connector: Connector,
    files: ClientCertificate,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    client: reqwest::Client,
    stamp: Stamp,
    checked: Instant,
}

/// When the two files were changed last, as far as that can be told.
type Stamp = [Option<SystemTime>; 2];

impl Identified {
    /// Fails when the certificate or the key cannot be read.
    pub(crate) fn new(connector: Connector, files: ClientCertificate) -> Result<Self> {
        // In this order: a file that changes meanwhile is then read again.
        let stamp = stamp(&files);
        let client = connector.build(Some(&identity(&files)?))?;
        let current = Mutex::new(Current { client, stamp, checked: Instant::now() });
        Ok(Self { connector, files, current })
    }

    /// The connections to use now. Who finds that the files have changed makes new ones; others go on with the old
    /// meanwhile, and so does everybody if the new files cannot be used.
    pub(crate) async fn client(self: &Arc<Self>) -> reqwest::Client {
        {
            let mut current = self.current();
            if current.checked.elapsed() < RECHECK {
                return current.client.clone();
            }
            current.checked = Instant::now();
        }
        let this = Arc::clone(self);
        match tokio::task::spawn_blocking(move || this.reload()).await {
            Ok(Err(error)) => tracing::warn!(%error, "a client certificate has changed and cannot be used"),
            Ok(Ok(true)) => {
                tracing::info!(file = %self.files.chain.display(), "a new client certificate is in use")
            }
            Ok(Ok(false)) | Err(_) => {}
        }
        self.current().client.clone()
    }

    /// Returns whether there was something new.
    fn reload(&self) -> Result<bool> {
        let stamp = stamp(&self.files);
        if stamp == self.current().stamp {
            return Ok(false);
        }
        let client = self.connector.build(Some(&identity(&self.files)?))?;
        let mut current = self.current();
        (current.client, current.stamp) = (client, stamp);
        Ok(true)
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(files: &ClientCertificate) -> Stamp {
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    [changed(&files.chain), changed(&files.key)]
}

/// Our certificate and its key, as the TLS library wants them: one behind the other.
fn identity(files: &ClientCertificate) -> Result<reqwest::Identity> {
    let pem = |path| read(path).map_err(|why| ErrorKind::Protocol(format!("cannot be set up: {why}")));
    let both = [pem(&files.key)?, b"\n".to_vec(), pem(&files.chain)?].concat();
    // What is wrong is not quoted: it may be the key.
    reqwest::Identity::from_pem(&both).map_err(|_| {
        let (chain, key) = (files.chain.display(), files.key.display());
        ErrorKind::Protocol(format!("cannot be set up: {chain} and {key} are no client certificate and key"))
    })
}

fn broken(error: &reqwest::Error) -> ErrorKind {
    ErrorKind::Protocol(format!("cannot be set up: {}", chain(error)))
}
