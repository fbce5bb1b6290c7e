//! JSON Web Signatures in their compact form (RFC 7515, section 7.1), as far as tokens need it: one signature, a header
//! that says which key, and no header that brings a key along.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::TokenError;
use crate::signatures::json::{self, Fields, Value};

/// The most bytes of a token's header, decoded.
const MAX_HEADER_LEN: usize = 1024;
/// Headers that name a key, or change how the token is read: none of them has a place in a token that is to be believed
/// because of keys that were known before it came.
const REFUSED: [&str; 8] = ["jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"];

/// A token that was taken apart. Nothing in it is to be believed before its signature was verified.
#[derive(Debug)]
pub(super) struct Jws<'a> {
    pub(super) algorithm: String,
    pub(super) key: Option<String>,
    pub(super) kind: Option<String>,
    /// What the signature is over.
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
    payload: Vec<u8>,
}

impl<'a> Jws<'a> {
    /// Takes a token of at most `limit` bytes apart.
    pub(super) fn parse(token: &'a str, limit: usize) -> Result<Self, TokenError> {
        if token.len() > limit {
            return Err(TokenError::TooLong);
        }
        let parts = token.rsplit_once('.').and_then(|(signed, signature)| {
            let (header, payload) = signed.split_once('.')?;
            (!payload.contains('.')).then_some((header, payload, signed, signature))
        });
        let (header, payload, signed, signature) = parts.ok_or(TokenError::Form("it has not three parts"))?;
        let decode =
            |part| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Form("a part is not base64url"));
        let mut header = fields(&decode(header)?, MAX_HEADER_LEN)?;
        if REFUSED.iter().any(|name| header.take(name).is_some()) {
            return Err(TokenError::Form("its header brings a key along, or changes what it means"));
        }
        let wrong = |_| TokenError::Form("its header is not what it has to be");
        Ok(Self {
            algorithm: header.string("alg").map_err(wrong)?,
            key: header.optional_string("kid").map_err(wrong)?,
            kind: header.optional_string("typ").map_err(wrong)?,
            signed: signed.as_bytes(),
            signature: decode(signature)?,
            payload: decode(payload)?,
        })
    }

    /// What the token says. Call it once the signature was verified.
    pub(super) fn claims(&self) -> Result<Fields, TokenError> {
        fields(&self.payload, self.payload.len())
    }
}

/// The beginning of a token: header and claims, to be signed.
pub(super) fn signing_input(header: &serde_json::Value, claims: &serde_json::Value) -> String {
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// The whole token.
pub(super) fn with_signature(input: String, signature: &[u8]) -> String {
    input + "." + &URL_SAFE_NO_PAD.encode(signature)
}

/// Whom a token of at most `limit` bytes says that it was issued by: only to choose whose keys it is to be verified
/// with, which then say whether that is true.
pub fn unverified_issuer(token: &str, limit: usize) -> Option<String> {
    Jws::parse(token, limit).ok()?.claims().ok()?.string("iss").ok()
}

/// A time, in whole seconds since 1970; a fraction of a second is cut.
pub(super) fn time(claims: &mut Fields, name: &'static str) -> Result<Option<u64>, TokenError> {
    let wrong = || TokenError::Claim(name.to_owned());
    match claims.take(name) {
        None => Ok(None),
        Some(Value::Integer(seconds)) => u64::try_from(seconds).map(Some).map_err(|_| wrong()),
        Some(_) => Err(wrong()),
    }
}

fn fields(text: &[u8], limit: usize) -> Result<Fields, TokenError> {
    let wrong = |_| TokenError::Form("a part is not a JSON object");
    json::read(text, limit).and_then(|value| value.object("it")).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(header: &str, claims: &str) -> String {
        [header, claims, "x"].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
    }

    #[test]
    fn a_token_is_three_parts_in_one_spelling() {
        let good = token(r#"{"alg":"EdDSA","kid":"a"}"#, "{}");
        let parsed = Jws::parse(&good, 100).unwrap();
        assert_eq!((parsed.algorithm.as_str(), parsed.key.as_deref()), ("EdDSA", Some("a")));
        assert!(parsed.claims().is_ok());
        assert_eq!(Jws::parse(&good, good.len() - 1).err(), Some(TokenError::TooLong));
        let parts: Vec<&str> = good.split('.').collect();
        for bad in [
            String::new(),
            "..".to_owned(),
            parts[..2].join("."),
            format!("{good}.x"),
            format!("{good}="),
            format!("{good} "),
            // The last character has bits to spare: another spelling of the same bytes.
            format!("{}.{}.eB", parts[0], parts[1]),
            token(r#"{"alg":"EdDSA","alg":"none"}"#, "{}"),
            token(r#"["alg"]"#, "{}"),
            token("{}", "{}"),
            token(r#"{"alg":7}"#, "{}"),
        ] {
            assert!(Jws::parse(&bad, 1000).is_err(), "{bad}");
        }
        for name in REFUSED {
            let header = format!(r#"{{"alg":"EdDSA","{name}":"x"}}"#);
            assert!(Jws::parse(&token(&header, "{}"), 1000).is_err(), "{name}");
        }
        let long = token(&format!(r#"{{"alg":"EdDSA","x":"{}"}}"#, "x".repeat(MAX_HEADER_LEN)), "{}");
        assert!(Jws::parse(&long, 10_000).is_err());
        assert!(Jws::parse(&token(r#"{"alg":"x"}"#, r#"{"a":1,"a":2}"#), 1000).unwrap().claims().is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}", parts in proptest::collection::vec("[A-Za-z0-9_-]{0,20}", 0..5)) {
            let _ = Jws::parse(&text, 200);
            let _ = unverified_issuer(&parts.join("."), 200);
        }
    }
}
