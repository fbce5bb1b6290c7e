//! Tokens: proofs of who somebody is that last for a while, and may do less than who holds them.
//!
//! Three kinds, told apart by their form and never by what they say of themselves alone:
//!
//! - **Access tokens** are what clients exchange a password for (the token flow of docker's registry). deltaport signs
//!   them itself, with the keys of a [`Ring`].
//! - **Robots** are secrets for programs, with [`Scopes`] of their own and an end; only their hashes are kept
//!   ([`Robots`]).
//! - **Identity tokens** are what a CI system gives to a job, signed by that system ([`Issuer`]).
//!
//! Whatever a token says, the key that is used decides on the algorithm, and only keys that were there before the token
//! came are used: headers that bring a key along, or say where to fetch one, have the token refused.

mod access_token;
mod issuer;
mod jwk;
mod jws;
mod ring;
mod robots;
mod scope;

pub use access_token::{ACCESS_TOKEN_LIFE, Grant, MAX_ACCESS_TOKEN_LEN};
pub use issuer::{Issuer, MAX_CLAIMS, MAX_IDENTITY_TOKEN_LEN};
pub use jwk::{JwksError, KeySet, MAX_JWKS_LEN, MAX_KEYS as MAX_JWKS_KEYS};
pub use jws::unverified_issuer;
pub use ring::{KEY_LIFE, MAX_RING_KEYS, MAX_RING_LEN, Ring, RingError, SEED_LEN};
pub use robots::{
    MAX_ROBOTS, MAX_ROBOTS_LEN, Robot, RobotError, Robots, SECRET_PREFIX, SECRET_RANDOM_LEN,
    looks_like_secret,
};
pub use scope::{MAX_SCOPES, Scope, ScopeError, Scopes};

/// How far the clocks of two machines may be apart, in seconds.
pub const LEEWAY: u64 = 60;

/// Why a token is not accepted. It is for the log: who sent the token is told only that it is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It has more bytes than tokens have.
    #[error("the token is too long")]
    TooLong,
    /// It is not three parts in base64url with JSON in the first two, or a header has what must not be there.
    #[error("not a token: {0}")]
    Form(&'static str),
    /// Its algorithm is not that of the key.
    #[error("the token's algorithm is not that of the key it names")]
    Algorithm,
    /// It names a key that is not known.
    #[error("the token names a key that is not known")]
    Key,
    /// The signature is not that of the key.
    #[error("the signature of the token is wrong")]
    Signature,
    /// It was issued by somebody else.
    #[error("the token was issued by somebody else")]
    Issuer,
    /// It is for another service.
    #[error("the token is for another service")]
    Audience,
    /// It is no longer valid.
    #[error("the token has expired")]
    Expired,
    /// It is not valid yet.
    #[error("the token is not valid yet")]
    NotYet,
    /// A claim is missing or is not what it has to be.
    #[error("the claim {0} is missing or wrong")]
    Claim(String),
}
