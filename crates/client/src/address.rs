//! Which addresses may be dialled: those of hosts that the configuration names, and public ones.
//!
//! A registry may redirect to hosts that nobody configured (its storage, a CDN). Were such a host allowed to stand
//! for a private address, a hostile upstream could make us ask the inside of our own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// A name that stands for private addresses only, though the configuration does not know it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{host}, which has no public address and is not in the configuration")]
pub(crate) struct Forbidden {
    host: Box<str>,
}

/// Resolves names, and hides private addresses of names that the configuration does not know.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    configured: Arc<[String]>,
}

impl Resolver {
    /// `configured` are the hosts that may have any address.
    pub(crate) fn new(configured: impl IntoIterator<Item = String>) -> Self {
        Self { configured: configured.into_iter().map(|host| host.to_ascii_lowercase()).collect() }
    }

    /// Whether `url` may be dialled as far as can be told before names are resolved: addresses that stand in it
    /// literally never reach the resolver.
    pub(crate) fn permits(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse();
        self.is_configured(host) || literal.map_or(true, is_public)
    }

    fn is_configured(&self, host: &str) -> bool {
        self.configured.iter().any(|known| known.eq_ignore_ascii_case(host))
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let any = self.is_configured(name.as_str());
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|at| any || is_public(at.ip())).collect();
            if allowed.is_empty() {
                return Err(Forbidden { host: name.as_str().into() }.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Whether an address belongs to the public internet (the special-purpose registries of IANA, RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || (a == 100 && b & 0xc0 == 64)
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && b & 0xfe == 18)
        || a >= 240;
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        // IPv4-mapped, NAT64 and 6to4: what counts is the IPv4 address inside.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Only 2000::/3 is given out. 2001::/23 is for protocols (2001::/32 tunnels to anywhere), 2001:db8::/32 and
        // 3fff::/20 are for documentation.
        [0x2001, 0xdb8 | 0..=0x1ff, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_in_every_disguise() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "198.18.0.1",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "::127.0.0.1",
            "ff02::1",
            "2001:db8::1",
            "2001:0:7f00:1::",
            "2001:20::1",
            "3fff::1",
            "64:ff9b:1::1",
            "192.0.2.1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in ["1.1.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn literals_are_judged_as_the_url_spells_them() {
        let resolver = Resolver::new(["10.0.0.1".to_owned()]);
        for (url, permitted) in [
            ("http://10.0.0.1/", true),
            ("http://10.0.0.2/", false),
            ("http://0x7f.1/", false),
            ("http://2130706433/", false),
            ("http://[::1]/", false),
            ("https://cdn.example/", true),
        ] {
            assert_eq!(resolver.permits(&Url::parse(url).unwrap()), permitted, "{url}");
        }
    }

    #[tokio::test]
    async fn names_of_private_addresses_need_the_configuration() {
        let name = || "localhost".parse::<Name>().unwrap();
        assert!(Resolver::new([]).resolve(name()).await.is_err());
        assert!(Resolver::new(["LocalHost".to_owned()]).resolve(name()).await.is_ok());
    }
}
