//! Conditional requests (RFC 9110, section 13). Content that has a digest has a strong entity tag: the digest.

use deltaport_oci::Digest;
use http::HeaderMap;
use http::header::{IF_NONE_MATCH, IF_RANGE, RANGE};

/// The entity tag of content.
pub(crate) fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether the client has the content already.
pub(crate) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let listed = |value: &http::HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        text.split(',')
            .map(str::trim)
            .any(|entry| entry == "*" || entry.strip_prefix("W/").unwrap_or(entry) == etag)
    };
    headers.get_all(IF_NONE_MATCH).iter().any(listed)
}

/// The ranges that the client asks for, unless it wants them only of content that this is not. A date never matches:
/// content has none.
pub(crate) fn range<'a>(headers: &'a HeaderMap, etag: &str) -> Option<&'a str> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    headers.get(IF_RANGE).is_none_or(|condition| condition.as_bytes() == etag.as_bytes()).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .collect()
    }

    #[test]
    fn a_tag_is_found_in_a_list_and_when_it_is_weak() {
        for value in ["\"a\"", "*", "W/\"a\"", "\"b\", \"a\"", "\"b\" ,W/\"a\""] {
            assert!(is_known(&headers(&[("if-none-match", value)]), "\"a\""), "{value}");
        }
        for value in ["", "a", "\"b\"", "\"A\""] {
            assert!(!is_known(&headers(&[("if-none-match", value)]), "\"a\""), "{value}");
        }
        assert!(!is_known(&HeaderMap::new(), "\"a\""));
    }

    #[test]
    fn a_range_counts_only_for_the_same_content() {
        let asked = |condition: Option<&'static str>| {
            let mut pairs = vec![("range", "bytes=0-1")];
            pairs.extend(condition.map(|condition| ("if-range", condition)));
            range(&headers(&pairs), "\"a\"").is_some()
        };
        assert!(asked(None));
        assert!(asked(Some("\"a\"")));
        for other in ["\"b\"", "W/\"a\"", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert!(!asked(Some(other)), "{other}");
        }
        assert_eq!(range(&HeaderMap::new(), "\"a\""), None);
    }
}
