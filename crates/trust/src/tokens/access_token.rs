//! Access tokens: what a password is exchanged for, by the token flow of docker's registry. Signed by a [`Ring`], short-lived, and for
//! certain repositories.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::jws::{Jws, signing_input, time, with_signature};
use super::{LEEWAY, Ring, Scopes, TokenError};
use crate::signatures::json::Value;

/// How long an access token may be used, in seconds. Clients take a new one by themselves.
pub const ACCESS_TOKEN_LIFE: u64 = 300;
/// The most bytes of an access token: with [`MAX_SCOPES`](super::MAX_SCOPES) long names it has less.
pub const MAX_ACCESS_TOKEN_LEN: usize = 48 << 10;

/// The only algorithm of our tokens (RFC 8037): there is nothing to choose, hence nothing to confuse.
const ALGORITHM: &str = "EdDSA";
/// What our tokens are called (RFC 9068), so that no other kind that these keys might sign one day is taken for one.
const KIND: &str = "at+jwt";

/// What an access token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who asked for it; `None` is an anonymous caller.
    pub user: Option<Arc<str>>,
    /// What it is for.
    pub scopes: Scopes,
}

impl Ring {
    /// Makes a token that `service` issues and that is for itself. `now` is in seconds since 1970.
    ///
    /// `None` when the ring has no key that may sign.
    pub fn issue(&self, grant: &Grant, service: &str, now: u64) -> Option<String> {
        let key = self.current()?;
        let access: Vec<Json> = grant
            .scopes
            .iter()
            .map(|scope| {
                let actions: Vec<&str> = scope.actions.iter().map(|action| action.as_str()).collect();
                json!({ "type": "repository", "name": scope.repositories.as_str(), "actions": actions })
            })
            .chain(
                grant
                    .scopes
                    .permit_catalog()
                    .then(|| json!({ "type": "registry", "name": "catalog", "actions": ["*"] })),
            )
            .collect();
        let claims = json!({
            "iss": service,
            "aud": service,
            "sub": grant.user.as_deref().unwrap_or_default(),
            "iat": now,
            "nbf": now,
            "exp": now.saturating_add(ACCESS_TOKEN_LIFE),
            "access": access,
        });
        let header = json!({ "alg": ALGORITHM, "kid": key.id(), "typ": KIND });
        let input = signing_input(&header, &claims);
        let signature = key.sign(input.as_bytes());
        Some(with_signature(input, &signature))
    }

    /// What a token says that `service` issued for itself and that is valid at `now`, in seconds since 1970.
    pub fn verify(&self, token: &str, service: &str, now: u64) -> Result<Grant, TokenError> {
        let jws = Jws::parse(token, MAX_ACCESS_TOKEN_LEN)?;
        if jws.algorithm != ALGORITHM || jws.kind.as_deref() != Some(KIND) {
            return Err(TokenError::Algorithm);
        }
        let key = jws.key.as_deref().and_then(|id| self.find(id)).ok_or(TokenError::Key)?;
        if !key.verifies(jws.signed, &jws.signature) {
            return Err(TokenError::Signature);
        }
        let mut claims = jws.claims()?;
        let claim = |name: &'static str| TokenError::Claim(name.to_owned());
        if claims.string("iss").map_err(|_| claim("iss"))? != service {
            return Err(TokenError::Issuer);
        }
        if claims.string("aud").map_err(|_| claim("aud"))? != service {
            return Err(TokenError::Audience);
        }
        let begins = time(&mut claims, "nbf")?.ok_or_else(|| claim("nbf"))?;
        let ends = time(&mut claims, "exp")?.ok_or_else(|| claim("exp"))?;
        if now.saturating_add(LEEWAY) < begins {
            return Err(TokenError::NotYet);
        }
        if now >= ends.saturating_add(LEEWAY) {
            return Err(TokenError::Expired);
        }
        let user = claims.string("sub").map_err(|_| claim("sub"))?;
        let access = claims.need("access").and_then(|access| access.array("access"));
        let scopes = scopes(access.map_err(|_| claim("access"))?).ok_or_else(|| claim("access"))?;
        Ok(Grant { user: Some(user).filter(|user| !user.is_empty()).map(Into::into), scopes })
    }
}

/// The claim `access` as [`Ring::issue`] writes it.
fn scopes(access: Vec<Value>) -> Option<Scopes> {
    let (mut texts, mut catalog) = (Vec::new(), false);
    for entry in access {
        let mut entry = entry.object("access").ok()?;
        let (kind, name) = (entry.string("type").ok()?, entry.string("name").ok()?);
        let actions = entry.need("actions").and_then(|actions| actions.array("actions")).ok()?;
        let actions: Option<Vec<String>> =
            actions.into_iter().map(|action| action.string("actions").ok()).collect();
        match kind.as_str() {
            "registry" if name == "catalog" => catalog = true,
            "repository" => texts.push(format!("repository:{name}:{}", actions?.join(","))),
            _ => return None,
        }
    }
    Some(Scopes::parse(texts.iter().map(String::as_str)).ok()?.with_catalog(catalog))
}
