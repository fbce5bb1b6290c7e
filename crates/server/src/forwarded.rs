//! Whom a proxy speaks for: the client's address, as far as somebody who is trusted says it.
//!
//! A proxy adds the address that it is asked from to the end of `X-Forwarded-For`, behind whatever it was sent, and that
//! anybody can have made up. So the header is read from its end, for as long as the address read last is a proxy's that is
//! trusted to have told the truth.
//!
//! `Forwarded` (RFC 7239) says the same and is not read. A proxy that adds to one of the two passes the other on as it came,
//! so whoever believed both would let clients choose; and what stands before registries adds to `X-Forwarded-For`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::{HeaderMap, HeaderName};

use crate::network::Network;

/// Header: the addresses that a request has come by, one added by each proxy.
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// How many addresses are read of it. More proxies than this are none behind each other, but made up.
const MAX_HOPS: usize = 16;

/// The networks of the proxies whose word is taken.
#[derive(Debug)]
pub(crate) struct TrustedProxies(Vec<Network>);

impl TrustedProxies {
    pub(crate) fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// The address of the client whose request came from `peer` with `headers`: the last one on the way back that is not a
    /// trusted proxy's. Where the way back is lost, because what follows is missing, unreadable or too far away, it is the
    /// address where it was lost, and never one that nobody trusted vouches for.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let lines = headers.get_all(&X_FORWARDED_FOR).into_iter().rev();
        let mut before = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')).take(MAX_HOPS);
        let mut client = peer.to_canonical();
        while self.trusts(client)
            && let Some(address) = before.next().and_then(address)
        {
            client = address;
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

/// An address as proxies write it: alone, in brackets, or with a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim_ascii();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let address = text.parse().ok().or_else(with_port).or_else(in_brackets)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Who asks, when `peer` sends these lines to a server that trusts 10.0.0.0/8 and 2001:db8:1::/48.
    fn client(peer: &str, lines: &[&[u8]]) -> String {
        let proxies = ["10.0.0.0/8", "2001:db8:1::/48"].map(|network| network.parse().expect("a network"));
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(line).expect("a value"));
        }
        TrustedProxies::new(proxies.into()).client(peer.parse().expect("an address"), &headers).to_string()
    }

    #[test]
    fn the_last_address_that_is_no_trusted_proxy_is_the_client() {
        for (peer, lines, expected) in [
            ("192.0.2.1", &[][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            // Nobody trusted says it.
            ("192.0.2.1", &["198.51.100.1"], "192.0.2.1"),
            ("2001:db8:2::1", &["198.51.100.1"], "2001:db8:2::1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("2001:db8:1::1", &["198.51.100.1"], "198.51.100.1"),
            // What the client sent is before what the proxy added.
            ("10.0.0.1", &["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["10.0.0.9,198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
            // Several proxies, in one line and in several.
            ("10.0.0.1", &["203.0.113.9, 198.51.100.1, 10.0.0.3, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.9, 198.51.100.1", "10.0.0.3", "10.0.0.2"], "198.51.100.1"),
            ("2001:db8:1::1", &["198.51.100.1, 10.0.0.3", "2001:db8:1::2"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.9, 198.51.100.1, 192.0.2.7, 10.0.0.2"], "192.0.2.7"),
            // A client on the network of the proxies.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // Ways to write an address.
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &["\t 198.51.100.1 "], "198.51.100.1"),
            ("10.0.0.1", &["2001:db8:2::1"], "2001:db8:2::1"),
            ("10.0.0.1", &["[2001:db8:2::1]"], "2001:db8:2::1"),
            ("10.0.0.1", &["[2001:db8:2::1]:4711"], "2001:db8:2::1"),
            ("10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1, ::ffff:10.0.0.2"], "198.51.100.1"),
            // What is no address ends the way back where it was lost.
            ("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, _hidden, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.1,"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1", ""], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, unix:"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, \u{e9}\u{ff}"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, 198.51.100.1:99999"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, [198.51.100.2]"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, 0300.51.100.1"], "10.0.0.1"),
            ("10.0.0.1", &["\"198.51.100.1\""], "10.0.0.1"),
            ("10.0.0.1", &["for=198.51.100.1"], "10.0.0.1"),
        ] {
            let bytes: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
            assert_eq!(client(peer, &bytes), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn a_way_without_end_is_not_followed() {
        let way =
            |hops: u8| (1..=hops).rev().map(|hop| format!("10.0.0.{hop}")).collect::<Vec<_>>().join(",");
        let text = format!("198.51.100.1,{}", way(15));
        assert_eq!(client("10.1.0.0", &[text.as_bytes()]), "198.51.100.1");
        let text = format!("198.51.100.1,{}", way(16));
        assert_eq!(client("10.1.0.0", &[text.as_bytes()]), "10.0.0.16");
    }

    proptest! {
        #[test]
        fn nothing_a_client_sends_makes_it_another(
            sent in vec(vec(prop_oneof![
                Just(b",".to_vec()),
                Just(b"10.0.0.9".to_vec()),
                Just(b"[::1]:1".to_vec()),
                vec(prop_oneof![32..=126_u8, 128..=255_u8], 0..9),
            ], 0..12), 0..6),
            real: u16,
        ) {
            // 198.18.0.0/16 is not trusted.
            let real = format!("198.18.{}.{}", real >> 8, real & 255);
            let lines: Vec<_> = sent.iter().map(|parts| parts.concat()).collect();
            let mut lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(client(&real, &lines), &*real);
            let last = lines.pop().unwrap_or_default();
            let added = [last, b", ", real.as_bytes()].concat();
            lines.push(&added);
            prop_assert_eq!(client("10.0.0.1", &lines), &*real);
            lines.pop();
            lines.extend([last, real.as_bytes(), b"10.0.0.3"]);
            prop_assert_eq!(client("10.0.0.2", &lines), &*real);
        }
    }
}
