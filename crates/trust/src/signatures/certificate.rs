//! Certificates of signers: whether one chains to an authority of the policy, at which time, and for whom it was issued.
//!
//! Chains are built and verified by webpki. Where podman leaves to chance what Go's standard library does, this is
//! stricter: a root that has expired vouches for nobody.

use std::time::SystemTime;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage};

use super::calendar::Period;
use super::der::{self, Certificate};
use super::key::{KeyError, PublicKey};
use super::trusted_root::TrustedRoot;

/// The most bytes of PEM that certificates are read from.
pub const MAX_PEM_LEN: usize = 256 << 10;
/// The most certificates in one file of the policy.
pub const MAX_AUTHORITIES: usize = 64;
/// The most certificates that may come with a signature, beside the signer's.
pub const MAX_CHAIN: usize = 8;

/// `id-kp-codeSigning`, 1.3.6.1.5.5.7.3.3.
const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];
/// Fulcio's issuer as plain bytes, 1.3.6.1.4.1.57264.1.1.
const ISSUER_V1: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x01];
/// The same as a UTF8String, 1.3.6.1.4.1.57264.1.8.
const ISSUER_V2: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x08];

/// What is wrong with a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// There is none, or more than there may be.
    #[error("there are {found} certificates; {wanted}")]
    Count {
        /// How many there are.
        found: usize,
        /// How many there may be.
        wanted: &'static str,
    },
    /// More than [`MAX_PEM_LEN`] bytes.
    #[error("the certificates have more than {MAX_PEM_LEN} bytes")]
    TooLong,
    /// It cannot be read.
    #[error("the certificate is damaged")]
    Damaged,
    /// It chains to no authority of the policy.
    #[error("the certificate was not issued by an authority that the policy names")]
    UnknownIssuer,
    /// It was no longer valid, or one above it was not.
    #[error("the certificate, or one above it, had expired ({at})")]
    Expired {
        /// Which time counted.
        at: &'static str,
    },
    /// It was not valid yet, or one above it was not.
    #[error("the certificate, or one above it, was not valid yet ({at})")]
    NotYetValid {
        /// Which time counted.
        at: &'static str,
    },
    /// Too many certificates between the signer's and the authority's, or too much work to find a way.
    #[error("the chain of certificates is too long")]
    ChainTooLong,
    /// It, or one above it, is not for signing code.
    #[error("the certificate is not for code signing")]
    Usage,
    /// It is an authority's.
    #[error("the certificate is that of an authority, not of a signer")]
    Authority,
    /// It was not issued for this address.
    #[error("the certificate was not issued for the e-mail address {0:?}")]
    Email(String),
    /// It was not issued for this host.
    #[error("the certificate was not issued for the host {0:?}")]
    Hostname(String),
    /// Another identity provider vouched for the signer, or it is not told which.
    #[error("the certificate does not say that {0:?} vouched for the signer")]
    Issuer(String),
    /// Its key is not of a supported kind.
    #[error("the key of the certificate: {0}")]
    Key(KeyError),
    /// webpki found something else, such as an unknown critical extension or a name constraint that is not met.
    #[error("the certificate is not acceptable: {0}")]
    Other(String),
}

/// The time that certificates have to be valid at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) time: SystemTime,
    /// Which time it is, for messages.
    pub(crate) called: &'static str,
}

/// Authorities, and intermediates that lead to them.
#[derive(Debug, Default)]
pub(crate) struct Anchors {
    anchors: Vec<TrustAnchor<'static>>,
    /// When each anchor's own certificate is valid and the authority was in use, which webpki leaves to its caller.
    periods: Vec<Period>,
    intermediates: Vec<CertificateDer<'static>>,
}

impl Anchors {
    /// Reads a PEM file with 1 to [`MAX_AUTHORITIES`] certificates.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        let certificates = certificates(pem, MAX_AUTHORITIES, "1 to 64 are possible")?;
        if certificates.is_empty() {
            return Err(CertificateError::Count { found: 0, wanted: "1 to 64 are possible" });
        }
        let mut anchors = Self::default();
        for der in &certificates {
            anchors.add(der, Period::default())?;
        }
        Ok(anchors)
    }

    /// Takes the authorities of a trusted root.
    pub(crate) fn from_trusted_root(root: TrustedRoot) -> Result<Self, CertificateError> {
        let mut anchors = Self::default();
        for mut authority in root.authorities {
            if let Some(der) = authority.certificates.pop() {
                anchors.add(&der.into(), authority.period)?;
                anchors.intermediates.extend(authority.certificates.into_iter().map(CertificateDer::from));
            }
        }
        let found = anchors.intermediates.len() + anchors.anchors.len();
        if anchors.anchors.is_empty() || found > MAX_AUTHORITIES {
            return Err(CertificateError::Count { found, wanted: "1 to 64 are possible" });
        }
        Ok(anchors)
    }

    /// Adds an authority that was in use for a period.
    fn add(&mut self, der: &CertificateDer<'_>, period: Period) -> Result<(), CertificateError> {
        let valid = Certificate::read(der).ok_or(CertificateError::Damaged)?.valid;
        let anchor = webpki::anchor_from_trusted_cert(der).map_err(|_| CertificateError::Damaged)?;
        self.anchors.push(anchor.to_owned());
        self.periods.push(valid.and(period));
        Ok(())
    }

    /// Adds intermediates from a PEM file.
    pub(crate) fn add_intermediates(&mut self, pem: &[u8]) -> Result<(), CertificateError> {
        self.intermediates = certificates(pem, MAX_AUTHORITIES, "at most 64 are possible")?;
        Ok(())
    }

    /// Verifies that `signer`, with the help of `chain`, leads to one of the authorities and is for signing code.
    pub(crate) fn verify<'a>(
        &self,
        signer: &'a Signer,
        at: Moment,
    ) -> Result<Verified<'a>, CertificateError> {
        let Moment { time, called } = at;
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let end_entity = EndEntityCert::try_from(&signer.leaf).map_err(|error| explain(error, called))?;
        let chain: Vec<_> = self.intermediates.iter().chain(&signer.chain).cloned().collect();
        let path = end_entity
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &self.anchors,
                &chain,
                UnixTime::since_unix_epoch(since),
                KeyUsage::required_if_present(CODE_SIGNING),
                None,
                None,
            )
            .map_err(|error| explain(error, called))?;
        // An authority may be there for several periods.
        let periods = || {
            let all = self.anchors.iter().zip(&self.periods);
            all.filter(|(anchor, _)| *anchor == path.anchor()).map(|(_, period)| period)
        };
        if periods().any(|period| period.has_begun(time) && !period.is_over(time)) {
            Verified::new(&signer.leaf)
        } else if periods().any(|period| period.is_over(time)) {
            Err(CertificateError::Expired { at: called })
        } else {
            Err(CertificateError::NotYetValid { at: called })
        }
    }
}

/// The certificate that came with a signature, and those that came to lead to an authority. Nothing is verified yet.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    pub(crate) leaf: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
}

impl Signer {
    /// Reads the annotations of a signature: one certificate, and optionally others.
    pub(crate) fn from_pem(leaf: &[u8], chain: Option<&[u8]>) -> Result<Self, CertificateError> {
        const ONE: &str = "a signature has exactly one of its signer";
        let mut leaves = certificates(leaf, MAX_CHAIN, ONE)?;
        match (leaves.pop(), leaves.is_empty()) {
            (Some(leaf), true) => {
                let chain = chain.map_or(Ok(Vec::new()), |pem| certificates(pem, MAX_CHAIN, ""));
                let too_long = |error| match error {
                    CertificateError::Count { .. } => CertificateError::ChainTooLong,
                    other => other,
                };
                Ok(Self { leaf, chain: chain.map_err(too_long)? })
            }
            (leaf, _) => {
                let found = leaves.len() + usize::from(leaf.is_some());
                Err(CertificateError::Count { found, wanted: ONE })
            }
        }
    }

    /// The certificate of a bundle.
    pub(crate) fn from_der(leaf: Vec<u8>) -> Self {
        Self { leaf: leaf.into(), chain: Vec::new() }
    }
}

/// A certificate whose chain was verified.
#[derive(Debug)]
pub(crate) struct Verified<'a> {
    leaf: &'a CertificateDer<'static>,
    certificate: Certificate<'a>,
    pub(crate) key: PublicKey,
}

impl<'a> Verified<'a> {
    fn new(leaf: &'a CertificateDer<'static>) -> Result<Self, CertificateError> {
        let certificate = Certificate::read(leaf).ok_or(CertificateError::Damaged)?;
        let end_entity = EndEntityCert::try_from(leaf).map_err(|_| CertificateError::Damaged)?;
        let key =
            PublicKey::from_spki(&end_entity.subject_public_key_info()).map_err(CertificateError::Key)?;
        Ok(Self { leaf, certificate, key })
    }

    /// Fails unless it was issued for an e-mail address, letter by letter.
    pub(crate) fn is_for_email(&self, email: &str) -> Result<(), CertificateError> {
        let emails = self.certificate.emails().ok_or(CertificateError::Damaged)?;
        if emails.contains(&email) { Ok(()) } else { Err(CertificateError::Email(email.to_owned())) }
    }

    /// Fails unless it was issued for a host.
    pub(crate) fn is_for_host(&self, hostname: &str) -> Result<(), CertificateError> {
        let wrong = || CertificateError::Hostname(hostname.to_owned());
        let name = ServerName::try_from(hostname).map_err(|_| wrong())?;
        let end_entity = EndEntityCert::try_from(self.leaf).map_err(|_| CertificateError::Damaged)?;
        end_entity.verify_is_valid_for_subject_name(&name).map_err(|_| wrong())
    }

    /// Fails unless Fulcio wrote into it that `issuer` vouched for the signer.
    pub(crate) fn is_vouched_for_by(&self, issuer: &str) -> Result<(), CertificateError> {
        let first = self.certificate.extension(ISSUER_V1);
        let second = match self.certificate.extension(ISSUER_V2) {
            Some(value) => Some(der::only(value, der::UTF8_STRING).ok_or(CertificateError::Damaged)?),
            None => None,
        };
        let same = |found: Option<&[u8]>| found.is_none_or(|found| found == issuer.as_bytes());
        if (first.is_some() || second.is_some()) && same(first) && same(second) {
            Ok(())
        } else {
            Err(CertificateError::Issuer(issuer.to_owned()))
        }
    }
}

/// Reads at most `limit` certificates of PEM.
fn certificates(
    pem: &[u8],
    limit: usize,
    wanted: &'static str,
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    if pem.len() > MAX_PEM_LEN {
        return Err(CertificateError::TooLong);
    }
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        if certificates.len() == limit {
            return Err(CertificateError::Count { found: limit + 1, wanted });
        }
        certificates.push(certificate.map_err(|_| CertificateError::Damaged)?);
    }
    Ok(certificates)
}

fn explain(error: Error, at: &'static str) -> CertificateError {
    match error {
        Error::CertExpired { .. } => CertificateError::Expired { at },
        Error::CertNotValidYet { .. } => CertificateError::NotYetValid { at },
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => CertificateError::UnknownIssuer,
        Error::MaximumPathBuildCallsExceeded
        | Error::MaximumPathDepthExceeded
        | Error::MaximumSignatureChecksExceeded
        | Error::MaximumNameConstraintComparisonsExceeded
        | Error::PathLenConstraintViolated => CertificateError::ChainTooLong,
        Error::RequiredEkuNotFoundContext(_) => CertificateError::Usage,
        Error::CaUsedAsEndEntity => CertificateError::Authority,
        Error::BadDer
        | Error::BadDerTime
        | Error::InvalidCertValidity
        | Error::ExtensionValueInvalid
        | Error::MalformedExtensions
        | Error::TrailingData(_) => CertificateError::Damaged,
        other => CertificateError::Other(other.to_string()),
    }
}
