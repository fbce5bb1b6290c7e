//! The certificate: read from PEM files, replaced while connections go on when the files change.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::options::Tls;
use crate::reload::{ReloadError, Watched};

/// What a client may choose to speak inside TLS, best first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The certificate that new connections get.
#[derive(Debug)]
pub(crate) struct Certificates {
    config: ArcSwap<ServerConfig>,
    files: Mutex<Files>,
}

#[derive(Debug)]
struct Files {
    certificate: Watched,
    key: Watched,
    /// The contents that `config` was made of.
    loaded: (Vec<u8>, Vec<u8>),
    /// The last complaint, so that it is not repeated every few seconds.
    complaint: Option<String>,
}

impl Certificates {
    /// Reads certificate and key.
    pub(crate) fn load(tls: &Tls) -> Result<Self, ReloadError> {
        let (mut certificate, mut key) = (Watched::new(&tls.certificate), Watched::new(&tls.key));
        let loaded = (certificate.read()?, key.read()?);
        let config = config(&certificate, &key, &loaded)?;
        let files = Files { certificate, key, loaded, complaint: None };
        Ok(Self { config: ArcSwap::new(config), files: Mutex::new(files) })
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
        if !files.certificate.may_have_changed() && !files.key.may_have_changed() {
            return;
        }
        match files.reload() {
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
    fn reload(&mut self) -> Result<Option<Arc<ServerConfig>>, ReloadError> {
        let now = (self.certificate.read()?, self.key.read()?);
        if now == self.loaded {
            return Ok(None);
        }
        let config = config(&self.certificate, &self.key, &now)?;
        self.loaded = now;
        Ok(Some(config))
    }
}

fn config(
    certificate: &Watched,
    key: &Watched,
    content: &(Vec<u8>, Vec<u8>),
) -> Result<Arc<ServerConfig>, ReloadError> {
    let chain = CertificateDer::pem_slice_iter(&content.0)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| ReloadError::new(certificate.path(), error))?;
    let secret =
        PrivateKeyDer::from_pem_slice(&content.1).map_err(|error| ReloadError::new(key.path(), error))?;
    let refuse = |error: rustls::Error| ReloadError::new(certificate.path(), error);
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(refuse)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(refuse)?;
    config.alpn_protocols = ALPN.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}
