//! Certificates for servers on loopback, and for their clients, made for each test.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

/// The common name in the certificate for a client.
pub const CLIENT_NAME: &str = "a client";

/// A certificate authority and a certificate that it issued for 127.0.0.1, ::1 and localhost.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The authority's certificate, PEM: what a client has to trust.
    pub authority_pem: String,
    /// The server's certificate, PEM.
    pub certificate_pem: String,
    /// The server's private key, PEM.
    pub key_pem: String,
    /// A certificate for a client, PEM.
    pub client_pem: String,
    /// The client's private key, PEM.
    pub client_key_pem: String,
    authority: CertificateDer<'static>,
}

impl Certificates {
    /// Makes new ones.
    pub fn new() -> Self {
        let authority_key = KeyPair::generate().expect("a key");
        let mut authority = CertificateParams::new(Vec::new()).expect("no names");
        // Without a name of its own it has that of the server, whose certificate OpenSSL then takes for self-signed.
        authority.distinguished_name.push(DnType::CommonName, "an authority for tests");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority_certificate = authority.self_signed(&authority_key).expect("a certificate");
        let issuer = Issuer::new(authority, authority_key);

        let key = KeyPair::generate().expect("a key");
        let names = ["127.0.0.1", "::1", "localhost"].map(str::to_owned);
        let server = CertificateParams::new(names).expect("names of this machine");
        let certificate = server.signed_by(&key, &issuer).expect("a certificate");

        let client_key = KeyPair::generate().expect("a key");
        let mut client = CertificateParams::new(Vec::new()).expect("no names");
        client.distinguished_name.push(DnType::CommonName, CLIENT_NAME);
        let client = client.signed_by(&client_key, &issuer).expect("a certificate");
        Self {
            client_pem: client.pem(),
            client_key_pem: client_key.serialize_pem(),
            authority_pem: authority_certificate.pem(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            authority: authority_certificate.der().clone(),
        }
    }

    /// Writes `ca.crt`, `server.crt` and `server.key` into `directory`.
    pub fn write(&self, directory: &Path) {
        for (name, pem) in [
            ("ca.crt", &self.authority_pem),
            ("server.crt", &self.certificate_pem),
            ("server.key", &self.key_pem),
        ] {
            std::fs::write(directory.join(name), pem).expect("a directory to write to");
        }
    }

    /// How a server on loopback takes connections. It asks clients for a certificate and takes those without one too.
    pub fn server(&self) -> Arc<rustls::ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), Arc::clone(&provider));
        let clients = clients.allow_unauthenticated().build().expect("there is an authority");
        let certificate = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).expect("made here");
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("made here");
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the protocols' algorithms")
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate], key)
            .expect("a certificate and its key");
        Arc::new(config)
    }

    fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.clone()).expect("a certificate that was made here");
        roots
    }

    /// How a client connects that trusts this authority and no other, and shows the certificate for a client, whose
    /// common name is [`CLIENT_NAME`].
    pub fn client_with_certificate(&self) -> Arc<rustls::ClientConfig> {
        let certificate = CertificateDer::from_pem_slice(self.client_pem.as_bytes()).expect("made here");
        let key = PrivateKeyDer::from_pem_slice(self.client_key_pem.as_bytes()).expect("made here");
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has the protocols' algorithms")
            .with_root_certificates(self.roots())
            .with_client_auth_cert(vec![certificate], key)
            .expect("a certificate and its key");
        Arc::new(config)
    }

    /// How a client connects that trusts this authority and no other.
    pub fn client(&self) -> Arc<rustls::ClientConfig> {
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has the protocols' algorithms")
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        Arc::new(config)
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}
