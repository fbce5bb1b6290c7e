//! What the store is told about a PostgreSQL in which its names are.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::error::{Error, Result};

/// How long a connection may take to come about, until it can be used.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After how long a silence the kernel asks whether the server is still there, how often it asks, and between.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
/// How long what was sent may stay without the server's kernel having it.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// A PostgreSQL in which names are.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user@host:port/database`. Besides what libpq knows of, `schema` in its query names a schema for the
    /// tables, which is made if need be. `sslmode` is `disable`, `prefer`, or `require`, which `verify-full` is another
    /// word for: a certificate is always verified.
    pub url: String,
    /// In place of one in `url`.
    pub password: Option<String>,
    /// How TLS is spoken; `None` when it is not, whatever `url` says.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// How many connections this replica opens at most.
    pub connections: usize,
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An address may hold a password.
        f.debug_struct("PostgresOptions").field("connections", &self.connections).finish_non_exhaustive()
    }
}

/// Where to connect to, out of the options.
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) schema: Option<String>,
    /// For people: host and database.
    pub(super) text: String,
}

impl Address {
    /// Fails with [`Error::Unusable`] when the address is none.
    pub(super) fn new(options: &PostgresOptions) -> Result<Self> {
        let (url, schema) = without_schema(&options.url);
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            Error::Unusable(format!("the address of PostgreSQL: {}", super::sentence(&error)))
        })?;
        if let Some(password) = &options.password {
            config.password(password);
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(Error::Unusable("the address of PostgreSQL names no host".to_owned()));
        }
        match (&options.tls, config.get_ssl_mode()) {
            (None, SslMode::Require) => {
                return Err(Error::Unusable(
                    "PostgreSQL is to be asked over TLS, for which nothing is set".to_owned(),
                ));
            }
            (None, _) => {
                config.ssl_mode(SslMode::Disable);
            }
            _ => {}
        }
        if config.get_application_name().is_none() {
            config.application_name("deltaport");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        config
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(UNACKNOWLEDGED);
        let text = words(&config);
        Ok(Self { config, schema, text })
    }
}

/// Takes `schema` out of the query of an address, and says `sslmode` in the words of the client.
fn without_schema(url: &str) -> (String, Option<String>) {
    let Some((before, query)) = url.split_once('?') else { return (url.to_owned(), None) };
    let mut schema = None;
    let mut kept = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("schema", name)) => schema = Some(name.to_owned()).filter(|name| !name.is_empty()),
            Some(("sslmode", "verify-full" | "verify-ca")) => kept.push("sslmode=require"),
            _ => kept.push(pair),
        }
    }
    let url = if kept.is_empty() { before.to_owned() } else { format!("{before}?{}", kept.join("&")) };
    (url, schema)
}

/// Host and database, for people.
fn words(config: &Config) -> String {
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(at, host)| {
            let port = config.get_ports().get(at).or(config.get_ports().first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(host) => format!("{host}:{port}"),
                Host::Unix(path) => path.display().to_string(),
            }
        })
        .collect();
    format!("{}/{}", hosts.join(","), config.get_dbname().or(config.get_user()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> PostgresOptions {
        PostgresOptions { url: url.to_owned(), password: None, tls: None, connections: 1 }
    }

    #[test]
    fn an_address_may_name_a_schema() {
        let address =
            Address::new(&options("postgres://u:secret@h:1/d?schema=a&application_name=x")).unwrap();
        assert_eq!(address.schema.as_deref(), Some("a"));
        assert_eq!(address.config.get_application_name(), Some("x"));
        assert_eq!(address.text, "h:1/d");
        assert_eq!(Address::new(&options("postgres://h/d?schema=a")).unwrap().text, "h:5432/d");
    }

    #[test]
    fn an_address_that_is_none_is_told_without_its_password() {
        for (url, text) in [
            ("postgres://u:secret@h/d?what=x", "unknown option"),
            ("postgres:///d", "no host"),
            ("postgres://u:secret@h/d?sslmode=verify-full", "TLS"),
        ] {
            let error = Address::new(&options(url)).err().expect("an error").to_string();
            assert!(error.contains(text) && !error.contains("secret"), "{error}");
        }
        let debug = format!("{:?}", options("postgres://u:secret@h/d"));
        assert!(!debug.contains("secret"), "{debug}");
    }
}
