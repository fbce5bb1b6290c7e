//! What an upstream is told. Plain data; the configuration reference has the meaning and the defaults.

use std::path::PathBuf;
use std::time::Duration;

use crate::credentials::CredentialSource;

/// How to reach one registry.
#[derive(Clone, Debug)]
pub struct Options {
    /// The host that images are named after, such as `docker.io`. It stands in logs and metrics; nothing dials it.
    pub host: String,
    /// Where it really is: `https://host[:port]`, without a path.
    pub url: String,
    /// Who we are there; `None` asks anonymously.
    pub credentials: Option<CredentialSource>,
    /// What is shown to the registry and to its token service, and to nobody that they redirect to.
    pub certificate: Option<ClientCertificate>,
    /// Certificate authorities to trust besides the system's, as PEM.
    pub ca: Option<Vec<u8>>,
    /// Hosts besides the registry's own whose token service may be asked, and given the credentials.
    pub token_hosts: Vec<String>,
    /// Hosts that the registry may redirect to although their address is private.
    pub redirect_hosts: Vec<String>,
    /// How long things may take.
    pub timeouts: Timeouts,
}

impl Options {
    /// A registry that is asked anonymously, with default timeouts.
    pub fn new(host: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            url: url.into(),
            credentials: None,
            certificate: None,
            ca: None,
            token_hosts: Vec::new(),
            redirect_hosts: Vec::new(),
            timeouts: Timeouts::default(),
        }
    }
}

/// How long parts of a request may take. There is no limit on a whole transfer: a slow link is no error.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until the connection stands, TLS included.
    pub connect: Duration,
    /// From sending a request to the header of its answer.
    pub header: Duration,
    /// Without a single byte in the middle of a body.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            header: Duration::from_secs(30),
            stall: Duration::from_secs(30),
        }
    }
}

/// What shows an upstream who we are before any request (mutual TLS). The files are read again when they change.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The PEM file with our certificate, and those between it and its authority.
    pub chain: PathBuf,
    /// The PEM file with the private key.
    pub key: PathBuf,
}
