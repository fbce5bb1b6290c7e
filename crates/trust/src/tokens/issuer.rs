//! Identity tokens of CI systems (OpenID Connect): who issued them, for whom, and which of their jobs is which user.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::jws::{Jws, time};
use super::{KeySet, LEEWAY, TokenError};
use crate::signatures::json::{Fields, Value};

/// The most bytes of an identity token.
pub const MAX_IDENTITY_TOKEN_LEN: usize = 16 << 10;
/// The most claims that an [`Issuer`] may want.
pub const MAX_CLAIMS: usize = 32;

/// Whose tokens are believed, and who comes with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The issuer, as it stands in `iss`, to the letter.
    pub issuer: String,
    /// What the tokens have to be for, as it stands in `aud`.
    pub audience: String,
    /// What claims have to be: for each name the values of which it has to have one. A value that ends in `*` stands for
    /// everything that begins like it.
    pub claims: BTreeMap<String, BTreeSet<String>>,
    /// Who comes with such a token.
    pub user: Arc<str>,
}

impl Issuer {
    /// The user that comes with `token`, if `keys`, which are the issuer's, say that it is real, and it is for us, valid
    /// at `now` (in seconds since 1970) and has the claims.
    pub fn verify(&self, keys: &KeySet, token: &str, now: u64) -> Result<Arc<str>, TokenError> {
        let jws = Jws::parse(token, MAX_IDENTITY_TOKEN_LEN)?;
        keys.verify(&jws)?;
        let mut claims = jws.claims()?;
        let claim = |name: &str| TokenError::Claim(name.to_owned());
        if claims.string("iss").map_err(|_| claim("iss"))? != self.issuer {
            return Err(TokenError::Issuer);
        }
        let audience = claims.need("aud").map_err(|_| claim("aud"))?;
        if !texts(&audience).any(|audience| audience == self.audience) {
            return Err(TokenError::Audience);
        }
        self.check_time(&mut claims, now)?;
        for (name, wanted) in &self.claims {
            // Those that were read above are wanted rarely, and then by their other names here.
            let value = match name.as_str() {
                "aud" => Some(audience.clone()),
                name => claims.take(name),
            };
            let fits = value.is_some_and(|value| {
                texts(&value).any(|text| wanted.iter().any(|wanted| fits(wanted, &text)))
            });
            if !fits {
                return Err(claim(name));
            }
        }
        Ok(Arc::clone(&self.user))
    }

    fn check_time(&self, claims: &mut Fields, now: u64) -> Result<(), TokenError> {
        let ends = time(claims, "exp")?.ok_or_else(|| TokenError::Claim("exp".to_owned()))?;
        if now >= ends.saturating_add(LEEWAY) {
            return Err(TokenError::Expired);
        }
        for name in ["nbf", "iat"] {
            if time(claims, name)?.is_some_and(|begins| now.saturating_add(LEEWAY) < begins) {
                return Err(TokenError::NotYet);
            }
        }
        Ok(())
    }
}

/// The texts that a claim has: its own, or those of its list. Flags and numbers are written out.
fn texts(value: &Value) -> impl Iterator<Item = String> {
    let one = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Integer(number) => Some(number.to_string()),
        _ => None,
    };
    let texts: Vec<String> = match value {
        Value::Array(values) => values.iter().filter_map(one).collect(),
        value => one(value).into_iter().collect(),
    };
    texts.into_iter()
}

fn fits(wanted: &str, text: &str) -> bool {
    wanted.strip_suffix('*').map_or(wanted == text, |beginning| text.starts_with(beginning))
}
