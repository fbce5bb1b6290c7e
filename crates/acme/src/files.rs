//! What is kept: the account at the authority, and the certificate with its key in one file, so that they always fit.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use instant_acme::AccountCredentials;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::schedule::Certified;

/// The file with the certificate, its chain and its key, PEM, in the directory for the state.
const CERTIFICATE: &str = "certificate.pem";
/// The file with the account.
const ACCOUNT: &str = "account.json";

/// Where the certificate, its chain and its key are found, in one PEM file, in the directory `state`. Until one was
/// issued, there is no such file.
pub fn certificate(state: &Path) -> PathBuf {
    state.join(CERTIFICATE)
}

/// The files in the directory for the state.
#[derive(Debug)]
pub(crate) struct Files {
    state: PathBuf,
}

/// An account is one of an authority.
#[derive(Deserialize)]
struct Account {
    directory: String,
    credentials: AccountCredentials,
}

#[derive(Serialize)]
struct NewAccount<'a> {
    directory: &'a str,
    credentials: &'a AccountCredentials,
}

impl Files {
    pub(crate) fn new(state: &Path) -> Self {
        Self { state: state.to_owned() }
    }

    /// The account at this authority; one that cannot be read is none.
    pub(crate) fn account(&self, directory: &str) -> Option<AccountCredentials> {
        let text = fs::read(self.state.join(ACCOUNT)).ok()?;
        let account: Account = serde_json::from_slice(&text).ok()?;
        (account.directory == directory).then_some(account.credentials)
    }

    pub(crate) fn keep_account(&self, directory: &str, credentials: &AccountCredentials) -> io::Result<()> {
        let text = serde_json::to_vec(&NewAccount { directory, credentials })?;
        self.write(ACCOUNT, &text)
    }

    pub(crate) fn keep_certificate(&self, chain: &str, key: &str) -> io::Result<()> {
        self.write(CERTIFICATE, format!("{}\n{key}", chain.trim_end()).as_bytes())
    }

    /// What the certificate says that is there; one that cannot be read is none.
    pub(crate) fn certified(&self) -> Option<Certified> {
        let text = fs::read(certificate(&self.state)).ok()?;
        let der = CertificateDer::pem_slice_iter(&text).next()?.ok()?;
        certified(&der)
    }

    /// Writes a file that only we may read, whole or not at all.
    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.state)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.state)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(self.state.join(name))?;
        fs::File::open(&self.state)?.sync_all()
    }
}

/// What a certificate says.
pub(crate) fn certified(der: &[u8]) -> Option<Certified> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??.value.general_names.iter();
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let time = |seconds: i64| {
        u64::try_from(seconds).ok().map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    };
    let validity = certificate.validity();
    Some(Certified {
        names: names.collect(),
        from: time(validity.not_before.timestamp())?,
        until: time(validity.not_after.timestamp())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_certificate_is_kept_with_its_key_for_us_alone_and_read_again() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::new(&home.path().join("acme"));
        assert_eq!(files.certified(), None);
        let names = ["b.example".to_owned(), "A.example".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        files.keep_certificate(&made.cert.pem(), &made.signing_key.serialize_pem()).unwrap();
        let certified = files.certified().unwrap();
        assert_eq!(certified.names, ["a.example", "b.example"].map(str::to_owned).into());
        assert!(certified.from < certified.until);
        let path = certificate(&home.path().join("acme"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("BEGIN CERTIFICATE") && text.contains("BEGIN PRIVATE KEY"));
        fs::write(&path, "nonsense").unwrap();
        assert_eq!(files.certified(), None, "as good as none");
    }
}
