//! The certificate, and whose certificates clients may show: read from PEM files, replaced while connections go on when
//! the files change.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
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
    client_ca: Option<Watched>,
    /// The contents that `config` was made of; `None` when there are none yet.
    loaded: Option<Contents>,
    /// Whether somebody is about to write certificate and key.
    awaited: bool,
    /// The last complaint, so that it is not repeated every few seconds.
    complaint: Option<String>,
}

/// What is in the files.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Certificates {
    /// Reads certificate, key and authorities. Certificate authorities that look for ours are shown `challenges`.
    pub(crate) fn load(tls: &Tls, challenges: Challenges) -> Result<Self, ReloadError> {
        let mut files = Files {
            certificate: Watched::new(&tls.certificate),
            key: Watched::new(&tls.key),
            client_ca: tls.client_ca.as_deref().map(Watched::new),
            loaded: None,
            awaited: tls.awaited,
            complaint: None,
        };
        let config = match files.are_missing() {
            true => files.config(None, &challenges)?,
            false => {
                let contents = files.read()?;
                let config = files.config(Some(&contents), &challenges)?;
                files.loaded = Some(contents);
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
        if files.are_missing() || !files.may_have_changed() {
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

    fn may_have_changed(&self) -> bool {
        let all = [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()];
        all.into_iter().flatten().any(Watched::may_have_changed)
    }

    fn read(&mut self) -> Result<Contents, ReloadError> {
        Ok(Contents {
            certificate: self.certificate.read()?,
            key: self.key.read()?,
            client_ca: self.client_ca.as_mut().map(Watched::read).transpose()?,
        })
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
        contents: Option<&Contents>,
        challenges: &Challenges,
    ) -> Result<Arc<ServerConfig>, ReloadError> {
        let own = contents.map(|contents| self.certified(contents)).transpose()?.map(Arc::new);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| ReloadError::new(self.certificate.path(), error))?;
        let authorities = contents.and_then(|contents| contents.client_ca.as_ref());
        let builder = match self.client_ca.as_ref().zip(authorities) {
            Some((file, pem)) => builder.with_client_cert_verifier(clients(file, pem, provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Shown { own, challenges: challenges.clone() }));
        config.alpn_protocols = ALPN.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }

    fn certified(&self, contents: &Contents) -> Result<CertifiedKey, ReloadError> {
        let chain = CertificateDer::pem_slice_iter(&contents.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| ReloadError::new(self.certificate.path(), error))?;
        let secret = PrivateKeyDer::from_pem_slice(&contents.key)
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

/// What verifies the certificates of clients. Who shows none is let in and has to log in otherwise.
fn clients(
    file: &Watched,
    pem: &[u8],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, ReloadError> {
    let refuse = |error: &dyn std::fmt::Display| ReloadError::new(file.path(), error);
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| refuse(&error))?;
        authorities.add(certificate).map_err(|error| refuse(&error))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| refuse(&error))
}
