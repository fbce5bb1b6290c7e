//! Robots: secrets for programs. Each has a name, scopes and an end; only the hash of its secret is kept.
//!
//! A secret is random and long, so that a fast hash is as good as a slow one: there is nothing to guess.

use std::collections::BTreeMap;
use std::sync::Arc;

use deltaport_oci::Digest;
use serde_json::json;
use subtle::ConstantTimeEq as _;

use super::{ScopeError, Scopes};
use crate::signatures::json::{self, Fields};

/// The most robots.
pub const MAX_ROBOTS: usize = 1000;
/// The most bytes of the stored list.
pub const MAX_ROBOTS_LEN: usize = 4 << 20;
/// How many random bytes a secret is made from.
pub const SECRET_RANDOM_LEN: usize = 32;
/// What every secret begins with, so that people and scanners know one when they see it.
pub const SECRET_PREFIX: &str = "dpr_";

/// The most bytes of a robot's name.
const MAX_NAME_LEN: usize = 64;
/// What the users that robots are begin with. No password file has a colon in a name, so that none can be taken for one.
const USER_PREFIX: &str = "robot:";

/// One robot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Robot {
    /// Its name: what it logs in as.
    pub name: String,
    /// What it may do. Rules about users grant it nothing.
    pub scopes: Arc<Scopes>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// When it ends, likewise; `None` is never.
    pub expires: Option<u64>,
    /// SHA-256 of the secret.
    hash: Digest,
}

/// Why a robot cannot be made, or a list not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RobotError {
    /// The name is none.
    #[error(
        "{0:?} is not a name for a token; it has 1 to {MAX_NAME_LEN} small letters, digits, dots, hyphens and underscores"
    )]
    Name(String),
    /// There is one already.
    #[error("there is a token {0:?} already; revoke it first, or take another name")]
    Exists(String),
    /// There is none.
    #[error("there is no token {0:?}; `deltaport token list` shows those that there are")]
    Unknown(String),
    /// More than [`MAX_ROBOTS`].
    #[error("there are {MAX_ROBOTS} tokens, and no more are possible; revoke those that are not needed")]
    TooMany,
    /// It would have no rights.
    #[error("a token without a scope may do nothing; give it one, such as repository:team/app:pull")]
    Nothing,
    /// A scope is none.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// The stored list is damaged.
    #[error("the list of tokens is damaged")]
    Damaged,
}

/// Every robot, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Robots {
    robots: BTreeMap<String, Robot>,
}

impl Robots {
    /// Reads what [`Robots::to_bytes`] wrote.
    pub fn read(bytes: &[u8]) -> Result<Self, RobotError> {
        let damaged = |_| RobotError::Damaged;
        let value = json::read(bytes, MAX_ROBOTS_LEN).map_err(damaged)?;
        let mut fields = value.object("it").map_err(damaged)?;
        let list = fields.need("robots").and_then(|list| list.array("robots")).map_err(damaged)?;
        let mut robots = Self::default();
        for value in list {
            let robot = value.object("robot").ok().and_then(Robot::read).ok_or(RobotError::Damaged)?;
            robots.insert(robot)?;
        }
        Ok(robots)
    }

    /// The list as bytes. There are no secrets in it, but who may do what.
    pub fn to_bytes(&self) -> Vec<u8> {
        let robots: Vec<_> = self.robots.values().map(Robot::to_json).collect();
        let text = serde_json::to_vec_pretty(&json!({ "robots": robots }));
        // Texts and numbers have a JSON form.
        text.unwrap_or_default()
    }

    /// Makes a robot from random bytes and returns its secret, which is not kept. Times are in seconds since 1970.
    pub fn create(
        &mut self,
        name: &str,
        scopes: Scopes,
        expires: Option<u64>,
        now: u64,
        random: [u8; SECRET_RANDOM_LEN],
    ) -> Result<String, RobotError> {
        if scopes.iter().next().is_none() {
            return Err(RobotError::Nothing);
        }
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let secret = format!("{SECRET_PREFIX}{hex}");
        let hash = Digest::sha256(secret.as_bytes());
        self.insert(Robot { name: name.to_owned(), scopes: scopes.into(), created: now, expires, hash })?;
        Ok(secret)
    }

    fn insert(&mut self, robot: Robot) -> Result<(), RobotError> {
        let possible = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
        };
        if !(1..=MAX_NAME_LEN).contains(&robot.name.len()) || !robot.name.bytes().all(possible) {
            return Err(RobotError::Name(robot.name));
        }
        if self.robots.contains_key(&robot.name) {
            return Err(RobotError::Exists(robot.name));
        }
        if self.robots.len() >= MAX_ROBOTS {
            return Err(RobotError::TooMany);
        }
        self.robots.insert(robot.name.clone(), robot);
        Ok(())
    }

    /// Takes a robot away.
    pub fn revoke(&mut self, name: &str) -> Result<(), RobotError> {
        self.robots.remove(name).map(|_| ()).ok_or_else(|| RobotError::Unknown(name.to_owned()))
    }

    /// The robot that `secret` belongs to, if it has not ended at `now`, in seconds since 1970.
    pub fn with_secret(&self, secret: &str, now: u64) -> Option<&Robot> {
        if !looks_like_secret(secret) {
            return None;
        }
        let hash = Digest::sha256(secret.as_bytes()).hex();
        let is_its = |robot: &&Robot| bool::from(robot.hash.hex().as_bytes().ct_eq(hash.as_bytes()));
        self.robots.values().find(is_its).filter(|robot| robot.is_valid(now))
    }

    /// The robot that is known as `user`, if it has not ended at `now`, in seconds since 1970.
    pub fn user(&self, user: &str, now: u64) -> Option<&Robot> {
        self.robots.get(user.strip_prefix(USER_PREFIX)?).filter(|robot| robot.is_valid(now))
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Robot> {
        self.robots.values()
    }
}

impl Robot {
    /// What it is called in rules, logs and uploads.
    pub fn user(&self) -> Arc<str> {
        format!("{USER_PREFIX}{}", self.name).into()
    }

    /// Whether it has not ended at `now`, in seconds since 1970.
    pub fn is_valid(&self, now: u64) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    fn read(mut fields: Fields) -> Option<Self> {
        let seconds =
            |value: json::Value| value.integer("time").ok().and_then(|time| u64::try_from(time).ok());
        let scopes = fields.need("scopes").and_then(|scopes| scopes.array("scopes")).ok()?;
        let scopes: Option<Vec<String>> =
            scopes.into_iter().map(|scope| scope.string("scope").ok()).collect();
        let expires = match fields.take("expires") {
            None | Some(json::Value::Null) => None,
            Some(value) => Some(seconds(value)?),
        };
        Some(Self {
            name: fields.string("name").ok()?,
            scopes: Scopes::parse(scopes?.iter().map(String::as_str)).ok()?.into(),
            created: seconds(fields.need("created").ok()?)?,
            expires,
            hash: fields.string("hash").ok()?.parse().ok()?,
        })
    }

    fn to_json(&self) -> serde_json::Value {
        let scopes: Vec<String> = self.scopes.iter().map(ToString::to_string).collect();
        json!({
            "name": self.name,
            "scopes": scopes,
            "created": self.created,
            "expires": self.expires,
            "hash": self.hash.to_string(),
        })
    }
}

/// Whether a text has the form of a robot's secret, so that it need not be taken for a password.
pub fn looks_like_secret(text: &str) -> bool {
    text.strip_prefix(SECRET_PREFIX).is_some_and(|hex| {
        hex.len() == 2 * SECRET_RANDOM_LEN
            && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Action;

    #[test]
    fn a_robot_is_known_by_its_secret_until_it_ends_or_is_revoked() {
        let scopes = || Scopes::parse(["repository:team/app:pull,push"]).unwrap();
        let mut robots = Robots::default();
        let ci = robots.create("ci", scopes(), Some(200), 100, [1; 32]).unwrap();
        let backup = robots.create("backup", scopes(), None, 100, [2; 32]).unwrap();
        assert!(looks_like_secret(&ci) && ci != backup);
        let stored = robots.to_bytes();
        assert!(!String::from_utf8_lossy(&stored).contains(&ci[SECRET_PREFIX.len()..]), "a secret is stored");
        let mut robots = Robots::read(&stored).unwrap();

        let robot = robots.with_secret(&ci, 199).unwrap();
        assert_eq!((robot.name.as_str(), &*robot.user()), ("ci", "robot:ci"));
        assert!(robot.scopes.permit(Action::Push, &"team/app".parse().unwrap()));
        assert!(robots.user("robot:ci", 199).is_some() && robots.user("ci", 199).is_none());
        assert!(
            robots.with_secret(&ci, 200).is_none() && robots.user("robot:ci", 200).is_none(),
            "it has ended"
        );
        assert!(robots.with_secret(&backup, u64::MAX).is_some());
        for other in ["", "dpr_", &ci[..ci.len() - 1], &ci.to_uppercase(), &format!("{ci}0")] {
            assert!(robots.with_secret(other, 100).is_none(), "{other}");
        }
        robots.revoke("ci").unwrap();
        assert!(robots.with_secret(&ci, 100).is_none());
        assert_eq!(robots.revoke("ci"), Err(RobotError::Unknown("ci".to_owned())));
    }

    #[test]
    fn what_makes_no_robot() {
        let scopes = || Scopes::parse(["repository:a:pull"]).unwrap();
        let mut robots = Robots::default();
        for name in ["", "A", "a b", "robot:a", "a/b", &"a".repeat(65)] {
            let made = robots.create(name, scopes(), None, 0, [0; 32]);
            assert_eq!(made, Err(RobotError::Name(name.to_owned())));
        }
        assert_eq!(robots.create("a", Scopes::default(), None, 0, [0; 32]), Err(RobotError::Nothing));
        robots.create("a", scopes(), None, 0, [0; 32]).unwrap();
        assert_eq!(robots.create("a", scopes(), None, 0, [1; 32]), Err(RobotError::Exists("a".to_owned())));
        for text in ["", "{}", r#"{"robots":[{}]}"#, r#"{"robots":[],"robots":[]}"#] {
            assert_eq!(Robots::read(text.as_bytes()), Err(RobotError::Damaged), "{text}");
        }
    }
}
