//! What proves to a certificate authority that this machine answers for a name: certificates of a special kind for who
//! connects with `acme-tls/1` (RFC 8737), and tokens on a port of their own (RFC 8555, section 8.3).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What an authority chooses to speak when it looks at a certificate.
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";
/// Where an authority asks for a token.
const PATH: &str = "/.well-known/acme-challenge/";
/// How many proofs of one kind are shown at a time: one for each name of a certificate.
const MAX_SHOWN: usize = 100;
/// How many connections the port for tokens has at a time; others wait to be accepted.
const CONNECTIONS: usize = 32;
/// How long a connection to it may last.
const LIFE: Duration = Duration::from_secs(10);
/// How long to wait when the system refuses a connection for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The proofs that are shown now. A clone shows the same.
#[derive(Clone, Debug, Default)]
pub struct Challenges(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    certificates: BTreeMap<String, Arc<CertifiedKey>>,
    tokens: BTreeMap<String, String>,
}

impl Challenges {
    /// Nothing under this lock can stop half-way, so a poisoned one is as good as any.
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, who connects for `name` with the protocol `acme-tls/1` is shown this certificate; it and its PKCS #8
    /// key are DER. Fails when the key cannot be used, and beyond 100 names.
    pub fn show_certificate(&self, name: &str, certificate: Vec<u8>, key: Vec<u8>) -> Result<(), String> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
        let chain = vec![CertificateDer::from(certificate)];
        let key = aws_lc_rs::default_provider().key_provider.load_private_key(key);
        // It is not looked at whether they fit: the certificate has a critical extension that is of no use elsewhere, for
        // which it would be refused (RFC 8737, section 3).
        let certified = CertifiedKey::new(chain, key.map_err(|error| error.to_string())?);
        let mut shown = self.shown();
        if shown.certificates.len() >= MAX_SHOWN {
            return Err(format!("{MAX_SHOWN} names are being proven already"));
        }
        shown.certificates.insert(name.to_ascii_lowercase(), Arc::new(certified));
        Ok(())
    }

    /// From now on, who asks for this token is told `authorization`; beyond 100 tokens, nobody is.
    pub fn show_token(&self, token: &str, authorization: &str) {
        let mut shown = self.shown();
        if shown.tokens.len() < MAX_SHOWN {
            shown.tokens.insert(token.to_owned(), authorization.to_owned());
        }
    }

    /// Shows nothing any more.
    pub fn clear(&self) {
        *self.shown() = Shown::default();
    }

    /// What is shown to who connects for `name`.
    pub(crate) fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.shown().certificates.get(name).map(Arc::clone)
    }

    /// Answers who asks for tokens, until `stop`.
    pub(crate) async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let next = async || {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        while let Some((place, accepted)) = stop.run_until_cancelled(next()).await {
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for a certificate's challenge");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let challenges = self.clone();
            tokio::spawn(async move {
                let _place = place;
                // Whoever is slow is no authority.
                let _slow = tokio::time::timeout(LIFE, challenges.answer(stream)).await;
            });
        }
    }

    async fn answer(self, stream: TcpStream) {
        let service = service_fn(move |request| {
            let answer = self.answer_to(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = served.await {
            tracing::debug!(%error, "a connection for a certificate's challenge ended early");
        }
    }

    fn answer_to(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let token = request.uri().path().strip_prefix(PATH);
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let told = token.filter(|_| reads).and_then(|token| self.shown().tokens.get(token).cloned());
        let (status, text) = match told {
            Some(authorization) => (StatusCode::OK, authorization),
            None => (StatusCode::NOT_FOUND, "Only certificate authorities are answered here.\n".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response
    }
}
