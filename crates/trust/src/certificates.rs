//! Certificates of clients: which user comes with one.
//!
//! That a certificate is one of ours, and still valid, is decided in the TLS handshake; here its names are looked up.

use std::sync::Arc;

use crate::signatures::der::{Certificate, DNS_NAME, RFC822_NAME, URI_NAME};

/// The most identities that a configuration may have: every one is compared for every connection.
pub const MAX_IDENTITIES: usize = 1024;

/// A name in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// The common name of the subject. A certificate with several has none that counts.
    Common(String),
    /// A host among the alternative names.
    Dns(String),
    /// An e-mail address among them.
    Email(String),
    /// An address such as `spiffe://site.example/7` among them.
    Uri(String),
}

/// A certificate with this name is this user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name.
    pub name: Name,
    /// The user.
    pub user: Arc<str>,
}

/// The user that comes with the certificate `der`: that of the first identity which has one of its names, to the letter
/// but for the case of hosts. `None` when there is none, or the certificate cannot be read.
pub fn user(identities: &[Identity], der: &[u8]) -> Option<Arc<str>> {
    let certificate = Certificate::read(der)?;
    let common = certificate.common_names()?;
    let [dns, emails, uris] =
        [DNS_NAME, RFC822_NAME, URI_NAME].map(|kind| certificate.alternative_names(kind));
    let (dns, emails, uris) = (dns?, emails?, uris?);
    let has = |name: &Name| match name {
        Name::Common(name) => common == [name.as_str()],
        Name::Dns(name) => dns.iter().any(|found| found.eq_ignore_ascii_case(name)),
        Name::Email(name) => emails.contains(&name.as_str()),
        Name::Uri(name) => uris.contains(&name.as_str()),
    };
    identities.iter().find(|identity| has(&identity.name)).map(|identity| Arc::clone(&identity.user))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common: &[&str], names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Sites");
        for name in common {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.subject_alt_names = names;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_name_is_one_users() {
        let identity = |name, user: &str| Identity { name, user: user.into() };
        let identities = [
            identity(Name::Common("site 7".to_owned()), "site7"),
            identity(Name::Dns("site8.example".to_owned()), "site8"),
            identity(Name::Uri("spiffe://example/9".to_owned()), "site9"),
            identity(Name::Email("ops@example.org".to_owned()), "ops"),
        ];
        let who = |der: &[u8]| user(&identities, der).map(|user| user.to_string());
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let uri = |name: &str| SanType::URI(name.try_into().unwrap());
        let email = |name: &str| SanType::Rfc822Name(name.try_into().unwrap());
        assert_eq!(who(&certificate(&["site 7"], vec![])).as_deref(), Some("site7"));
        assert_eq!(who(&certificate(&[], vec![dns("SITE8.example")])).as_deref(), Some("site8"));
        assert_eq!(
            who(&certificate(&["x"], vec![dns("a.example"), uri("spiffe://example/9")])).as_deref(),
            Some("site9")
        );
        assert_eq!(who(&certificate(&[], vec![email("ops@example.org")])).as_deref(), Some("ops"));
        // A name of another kind is another name.
        for names in [vec![uri("site8.example")], vec![email("site8.example")], vec![dns("example")], vec![]]
        {
            assert_eq!(who(&certificate(&["site8.example"], names)), None);
        }
        assert_eq!(who(&certificate(&["SITE 7"], vec![])), None);
        assert_eq!(who(b"no certificate"), None);
    }
}
