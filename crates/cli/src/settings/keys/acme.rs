//! `[acme]`: a certificate that is asked for.

use crate::settings::key::{Default, Key, Slot};
use crate::settings::{AcmeChallenge, Settings};

/// The longest name in the DNS (RFC 1035, section 2.3.4), without the root.
const MAX_NAME: usize = 253;

/// The keys of `[acme]`.
pub(super) const KEYS: &[Key<Settings>] = &[
    Key {
        name: "acme.names",
        slot: Slot::Texts("names of this machine, without wildcards", |s, text| {
            match is_dns_name(text) {
                true => s.acme.names.push(text.to_ascii_lowercase()),
                false => return Err("that is no name in the DNS such as registry.example".to_owned()),
            }
            Ok(())
        }),
        default: Default::Unset { example: "[\"registry.example\"]", means: "no certificate is asked for" },
        about: "Instead of [tls]: the names that a certificate is asked for from an authority that speaks ACME (RFC 8555), \
                and asked for again when a third of its life is left. Whoever sets it agrees to the authority's terms of \
                service. The certificate is kept in the data directory, under `acme`.",
    },
    Key {
        name: "acme.directory",
        slot: Slot::Text("the address of an ACME directory, with https", |s, text| {
            text.clone_into(&mut s.acme.directory);
            let uri = text.parse::<http::Uri>().ok().filter(|uri| uri.scheme_str() == Some("https"));
            uri.and_then(|uri| uri.host().map(drop))
                .ok_or_else(|| "it begins with https:// and a host".to_owned())
        }),
        default: Default::Value("\"https://acme-v02.api.letsencrypt.org/directory\""),
        about: "The authority.",
    },
    Key {
        name: "acme.challenge",
        slot: Slot::Choice(&["tls-alpn-01", "http-01"], |s, word| {
            s.acme.challenge =
                if word == "http-01" { AcmeChallenge::Http01 } else { AcmeChallenge::TlsAlpn01 };
        }),
        default: Default::Value("\"tls-alpn-01\""),
        about: "How the authority finds out that the names are ours: \"tls-alpn-01\" connects to port 443 of each name, which \
                must lead to `listen`; \"http-01\" to port 80, which must lead to `acme.listen`.",
    },
    Key {
        name: "acme.listen",
        slot: Slot::Text("an address with a port", |s, text| {
            s.acme.listen =
                Some(text.parse().map_err(|_| "such as \"0.0.0.0:80\" or \"[::]:80\"".to_owned())?);
            Ok(())
        }),
        default: Default::Value("\"0.0.0.0:80\""),
        about: "Where the authority is answered with \"http-01\". Nobody else is told anything there.",
    },
    Key {
        name: "acme.contact",
        slot: Slot::Text("an address such as \"mailto:ops@example.com\"", |s, text| {
            s.acme.contact = Some(text.to_owned());
            if text.contains(':') { Ok(()) } else { Err("it begins with mailto:".to_owned()) }
        }),
        default: Default::Unset { example: "\"mailto:ops@example.com\"", means: "none" },
        about: "Where the authority may write to.",
    },
    Key {
        name: "acme.ca",
        slot: Slot::Path(|s| &mut s.acme.ca),
        default: Default::Unset {
            example: "\"/etc/deltaport/authority.pem\"",
            means: "those of the system only",
        },
        about: "PEM file with the certificates of those who vouch for the authority's own server, such as one of your own.",
    },
];

/// Labels of letters, digits and hyphens with dots between them, not an address.
fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() <= MAX_NAME && text.split('.').all(label) && text.parse::<std::net::IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_what_no_authority_certifies() {
        for good in ["registry.example", "a-1.b.example", "localhost", "X.example"] {
            assert!(is_dns_name(good), "{good}");
        }
        let long = format!("{}.example", "a".repeat(64));
        for bad in [
            "",
            "*.example",
            "a..b",
            "-a.example",
            "10.0.0.1",
            "::1",
            "a_b.example",
            "a.example.",
            long.as_str(),
        ] {
            assert!(!is_dns_name(bad), "{bad}");
        }
    }
}
