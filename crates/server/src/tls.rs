//! The certificate: read from PEM files, replaced while connections go on when the files change.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::challenges::{ACME_TLS, Challenges};
use crate::options::Tls;
use crate::reload::{ReloadError, Watched};

/// What a client may choose to speak inside TLS, best first; the last is for certificate authorities only.
const ALPN: [&[u8]; 3] = [b"h2", b"http/1.1", ACME_TLS];

/// The certificate that new connections get.
#[derive(Debug)]
pub(crate) struct Certificates {
    config: ArcSwap<ServerConfig>,
    files: Mutex<Files>,
    challenges: Challenges,
}

#[derive(Debug)]
struct Files {
    certificate: Watched,
    key: Watched,
    /// The contents that `config` was made of; `None` when there are none yet.
    loaded: Option<(Vec<u8>, Vec<u8>)>,
    /// Whether somebody is about to write them.
    awaited: bool,
    /// The last complaint, so that it is not repeated every few seconds.
    complaint: Option<String>,
}

impl Certificates {
    /// Reads certificate and key. Certificate authorities are shown `challenges`.
    pub(crate) fn load(tls: &Tls, challenges: Challenges) -> Result<Self, ReloadError> {
        let (certificate, key) = (Watched::new(&tls.certificate), Watched::new(&tls.key));
        let mut files = Files { certificate, key, loaded: None, awaited: tls.awaited, complaint: None };
        let config = match files.are_missing() {
            true => files.config(None, &challenges)?,
            false => {
                let content = files.read()?;
                let config = files.config(Some(&content), &challenges)?;
                files.loaded = Some(content);
                config
            }
        };
        Ok(Self { config: ArcSwap::new(config), files: Mutex::new(files), challenges })
    }

    /// What accepts the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }

    /// Looks at the files every `interval` until `stop`.
    pub(crate) async fn watch(self: Arc<Self>, interval: Duration, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
            let this = Arc::clone(&self);
            // A panic there would be a bug that the next look would meet again; there is nothing to clean up.
            let _looked = tokio::task::spawn_blocking(move || this.look()).await;
        }
    }

    fn look(&self) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.are_missing() || !files.certificate.may_have_changed() && !files.key.may_have_changed() {
            return;
        }
        match files.reload(&self.challenges) {
            Ok(Some(config)) => {
                self.config.store(config);
                files.complaint = None;
                tracing::info!(certificate = %files.certificate.path().display(), "the certificate was reloaded");
            }
            Ok(None) => files.complaint = None,
            Err(error) => {
                // Certificate and key are two files: between the two writes they do not fit. Try again.
                files.certificate.forget();
                let complaint = Some(error.to_string());
                if files.complaint != complaint {
                    tracing::warn!(%error, "the certificate changed and cannot be used; the old one stays");
                    files.complaint = complaint;
                }
            }
        }
    }
}

impl Files {
    /// Whether there is no certificate yet, and somebody is about to get one.
    fn are_missing(&self) -> bool {
        self.awaited && self.loaded.is_none() && !self.certificate.path().exists()
    }

    fn read(&mut self) -> Result<(Vec<u8>, Vec<u8>), ReloadError> {
        Ok((self.certificate.read()?, self.key.read()?))
    }

    fn reload(&mut self, challenges: &Challenges) -> Result<Option<Arc<ServerConfig>>, ReloadError> {
        let now = self.read()?;
        if self.loaded.as_ref() == Some(&now) {
            return Ok(None);
        }
        let config = self.config(Some(&now), challenges)?;
        self.loaded = Some(now);
        Ok(Some(config))
    }

    fn config(
        &self,
        content: Option<&(Vec<u8>, Vec<u8>)>,
        challenges: &Challenges,
    ) -> Result<Arc<ServerConfig>, ReloadError> {
        let own = content.map(|content| self.certified(content)).transpose()?.map(Arc::new);
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| ReloadError::new(self.certificate.path(), error))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shown { own, challenges: challenges.clone() }));
        config.alpn_protocols = ALPN.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }

    fn certified(&self, content: &(Vec<u8>, Vec<u8>)) -> Result<CertifiedKey, ReloadError> {
        let chain = CertificateDer::pem_slice_iter(&content.0)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| ReloadError::new(self.certificate.path(), error))?;
        let secret = PrivateKeyDer::from_pem_slice(&content.1)
            .map_err(|error| ReloadError::new(self.key.path(), error))?;
        CertifiedKey::from_der(chain, secret, &aws_lc_rs::default_provider())
            .map_err(|error| ReloadError::new(self.certificate.path(), error))
    }
}

/// The certificate that a client is shown.
#[derive(Debug)]
struct Shown {
    /// Ours. Without one, handshakes fail.
    own: Option<Arc<CertifiedKey>>,
    challenges: Challenges,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // An authority speaks nothing else (RFC 8737, section 3).
        match hello.alpn().is_some_and(|protocols| protocols.eq([ACME_TLS])) {
            true => self.challenges.certificate(&hello.server_name()?.to_ascii_lowercase()),
            false => self.own.as_ref().map(Arc::clone),
        }
    }
}
