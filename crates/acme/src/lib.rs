//! Who issues our certificate: an authority that speaks ACME (RFC 8555) is asked for one, and asked again before it
//! expires.
//!
//! This crate knows how to ask and what to keep; it serves nothing. What proves to the authority that this machine
//! answers for a name is shown by whoever listens ([`Proofs`]): a certificate for TLS-ALPN-01 (RFC 8737), a token for
//! HTTP-01 (RFC 8555, section 8.3). The certificate ends in a file, which the server reads again when it changes.

mod files;
mod http;
mod order;
mod schedule;

use std::path::PathBuf;
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

pub use files::certificate;
pub use order::Error;

use files::Files;
use schedule::{Attempts, LOOK, is_due};

/// From whom to get which certificate.
#[derive(Clone, Debug)]
pub struct Options {
    /// The authority's directory (RFC 8555, section 7.1.1).
    pub directory: String,
    /// The names that the certificate is for, at least one. No wildcards: neither challenge can prove them.
    pub names: Vec<String>,
    /// Where the authority may write to, such as `mailto:ops@example.com`.
    pub contact: Option<String>,
    /// What proves that a name is ours.
    pub challenge: Challenge,
    /// PEM certificates of those who vouch for the authority's own server, besides the system's.
    pub ca: Option<Vec<u8>>,
    /// The directory for the account and the certificate, with their keys. It is made if it is missing.
    pub state: PathBuf,
}

/// What proves that a name is ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Challenge {
    /// A certificate of a special kind on port 443 (RFC 8737).
    #[default]
    TlsAlpn01,
    /// A token on port 80 (RFC 8555, section 8.3).
    Http01,
}

/// Where what proves that a name is ours is shown, for as long as the authority looks at it.
pub trait Proofs: Send + Sync {
    /// From now on, who connects for `name` with the protocol `acme-tls/1` is shown this certificate; certificate and
    /// PKCS #8 key are DER.
    fn show_certificate(&self, name: &str, certificate: Vec<u8>, key: Vec<u8>) -> Result<(), String>;
    /// From now on, who asks for `/.well-known/acme-challenge/TOKEN` is told this.
    fn show_token(&self, token: &str, authorization: &str);
    /// Shows nothing any more.
    fn clear(&self);
}

/// Sees to it that there is a certificate, until `stop`: at once, and again when a third of its life is left, when the
/// names are others, and some time after every failure. What goes wrong is logged; the certificate that is there stays.
pub async fn keep(options: Options, proofs: &dyn Proofs, stop: CancellationToken) {
    let files = Files::new(&options.state);
    let mut attempts = Attempts::default();
    loop {
        let wait = match files.is_due(&options.names) {
            false => LOOK,
            true => match stop.run_until_cancelled(order::order(&options, &files, proofs)).await {
                None => return,
                Some(Ok(())) => {
                    tracing::info!(names = ?options.names, directory = options.directory, "there is a new certificate");
                    attempts = Attempts::default();
                    LOOK
                }
                Some(Err(error)) => {
                    let wait = attempts.next();
                    tracing::error!(%error, names = ?options.names, directory = options.directory, again_in = ?wait,
                        "no certificate was issued");
                    wait
                }
            },
        };
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

impl Files {
    /// Whether a certificate has to be asked for now.
    fn is_due(&self, names: &[String]) -> bool {
        self.certified().is_none_or(|certified| is_due(&certified, names, SystemTime::now()))
    }
}
