//! Passwords of users, in the format of Apache's `htpasswd`: lines of `user:hash`.
//!
//! Only hashes that are slow on purpose are accepted, bcrypt and argon2id. The other formats that `htpasswd` can write
//! (MD5, SHA-1, crypt, plain text) are refused when the file is read, because a file of them that leaks is a list of
//! passwords.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use argon2::password_hash::PasswordHasher as _;
use argon2::password_hash::PasswordVerifier as _;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, Version};
use subtle::{Choice, ConstantTimeEq as _};

/// The most bytes that a password file may have.
pub const MAX_FILE_LEN: usize = 8 << 20;
/// The most users that a password file may have.
pub const MAX_USERS: usize = 10_000;
/// The most bytes that a line of a password file may have.
pub const MAX_LINE_LEN: usize = 1024;
/// The most bytes that a user's name may have.
pub const MAX_USER_LEN: usize = 255;
/// The most bytes of a password; a longer one is wrong without being looked at.
pub const MAX_PASSWORD_LEN: usize = 1024;
/// The highest cost of a bcrypt hash. Checking one takes some seconds; each step more doubles it.
pub const MAX_BCRYPT_COST: u32 = 16;
/// The most memory that checking an argon2id hash may take, in KiB.
pub const MAX_ARGON2_MEMORY: u32 = 256 << 10;
/// The most passes over that memory.
pub const MAX_ARGON2_PASSES: u32 = 16;
/// The most lanes of an argon2id hash.
pub const MAX_ARGON2_LANES: u32 = 16;
/// How many random bytes [`line()`] wants as salt.
pub const SALT_LEN: usize = 16;

/// Why a password file was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct PasswordError {
    /// Which line, counted from 1.
    pub line: usize,
    /// What is wrong with it, and what to do.
    pub reason: Reason,
}

/// What is wrong with a line of a password file. No message shows what stands behind the colon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// There is no colon.
    #[error("not a user and a hash with a colon between them; make such a line with `deltaport passwd USER`")]
    Form,
    /// The name is empty, too long, or has characters that cannot be typed into a log-in.
    #[error("not a user name; it has 1 to {MAX_USER_LEN} bytes and no control characters")]
    User,
    /// The user was on an earlier line.
    #[error("the user {user:?} is also on line {earlier}; keep one of them")]
    Twice {
        /// Who.
        user: String,
        /// The earlier line.
        earlier: usize,
    },
    /// The hash is of a kind that is too easy to reverse, or none at all.
    #[error(
        "the password of {user:?} is stored as {kind}, which is not accepted; make the line again with `deltaport passwd \
         USER` or `htpasswd -nB USER`"
    )]
    Kind {
        /// Whose password.
        user: String,
        /// How it is stored.
        kind: &'static str,
    },
    /// The hash is of an accepted kind but damaged.
    #[error(
        "the hash of {user:?} is damaged; make the line again with `deltaport passwd USER` or `htpasswd -nB USER`"
    )]
    Damaged {
        /// Whose hash.
        user: String,
    },
    /// Checking the hash would take too much time or memory.
    #[error(
        "checking the password of {user:?} would take too long or too much memory; at most bcrypt with cost \
         {MAX_BCRYPT_COST}, or argon2id with {} MiB, {MAX_ARGON2_PASSES} passes and {MAX_ARGON2_LANES} lanes is accepted",
        MAX_ARGON2_MEMORY >> 10
    )]
    Expensive {
        /// Whose hash.
        user: String,
    },
    /// The line or the file is too long.
    #[error(
        "too much: a password file has at most {MAX_USERS} users, and a line at most {MAX_LINE_LEN} bytes"
    )]
    TooMuch,
}

/// A parsed password file: who the users are and whether a password is theirs.
#[derive(Clone, Default)]
pub struct Passwords {
    /// Where each user's hash is in `hashes`.
    users: BTreeMap<Box<str>, usize>,
    hashes: Vec<Stored>,
}

/// A hash and the line it was on.
#[derive(Clone)]
struct Stored {
    line: usize,
    hash: Hash,
}

#[derive(Clone)]
enum Hash {
    Bcrypt(Box<str>),
    Argon2id(Box<PasswordHash>),
}

impl Passwords {
    /// Reads a password file. Empty lines and lines that begin with `#` are skipped.
    ///
    /// Fails at the first line that it cannot accept: a user who silently could not log in would be worse.
    pub fn parse(text: &str) -> Result<Self, PasswordError> {
        if text.len() > MAX_FILE_LEN {
            return Err(PasswordError { line: 1, reason: Reason::TooMuch });
        }
        let mut passwords = Self::default();
        for (index, text) in text.lines().enumerate() {
            let line = index + 1;
            let refuse = |reason| PasswordError { line, reason };
            if text.len() > MAX_LINE_LEN || passwords.len() >= MAX_USERS {
                return Err(refuse(Reason::TooMuch));
            }
            if text.trim().is_empty() || text.starts_with('#') {
                continue;
            }
            let (user, hash) = text.split_once(':').ok_or_else(|| refuse(Reason::Form))?;
            if !is_user(user) {
                return Err(refuse(Reason::User));
            }
            if let Some(Stored { line: earlier, .. }) = passwords.stored(user) {
                return Err(refuse(Reason::Twice { user: user.to_owned(), earlier: *earlier }));
            }
            let hash = Hash::parse(user, hash.trim_end()).map_err(refuse)?;
            passwords.users.insert(user.into(), passwords.hashes.len());
            passwords.hashes.push(Stored { line, hash });
        }
        Ok(passwords)
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is a user of this name.
    pub fn contains(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// Whether there are no users.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether `password` is the password of `user`.
    ///
    /// Takes as long as the hash asks for, tens of milliseconds or more on a whole core, so that it belongs on a
    /// blocking thread. A name that nobody has takes as long as one that somebody has: it is checked against another
    /// user's hash, always the same one for the same name, so that neither one measurement nor many tell them apart.
    pub fn verify(&self, user: &str, password: &str) -> bool {
        if password.len() > MAX_PASSWORD_LEN {
            return false;
        }
        let (known, stored) = match self.stored(user) {
            Some(stored) => (Choice::from(1), stored),
            None => match self.stand_in(user) {
                Some(stored) => (Choice::from(0), stored),
                None => return false,
            },
        };
        (known & stored.hash.verify(password)).into()
    }

    fn stored(&self, user: &str) -> Option<&Stored> {
        self.hashes.get(*self.users.get(user)?)
    }

    /// Whose hash is checked when nobody has the name.
    fn stand_in(&self, user: &str) -> Option<&Stored> {
        let mut hasher = DefaultHasher::new();
        user.hash(&mut hasher);
        let count = u64::try_from(self.hashes.len()).ok()?;
        let index = usize::try_from(hasher.finish().checked_rem(count)?).ok()?;
        self.hashes.get(index)
    }
}

impl fmt::Debug for Passwords {
    /// Shows how many there are and nothing of them: hashes do not belong into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

impl Hash {
    fn parse(user: &str, text: &str) -> Result<Self, Reason> {
        let owner = || user.to_owned();
        if ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| text.starts_with(prefix)) {
            let parts: bcrypt::HashParts = text.parse().map_err(|_| Reason::Damaged { user: owner() })?;
            return match parts.get_cost() {
                4..=MAX_BCRYPT_COST => Ok(Self::Bcrypt(text.into())),
                0..4 => Err(Reason::Damaged { user: owner() }),
                _ => Err(Reason::Expensive { user: owner() }),
            };
        }
        if text.starts_with("$argon2id$") {
            return parse_argon2id(text, owner);
        }
        Err(Reason::Kind { user: owner(), kind: kind(text) })
    }

    fn verify(&self, password: &str) -> Choice {
        match self {
            Self::Bcrypt(hash) => u8::from(bcrypt::verify(password, hash).unwrap_or(false)).ct_eq(&1),
            Self::Argon2id(hash) => {
                let right = Argon2::default().verify_password(password.as_bytes(), &**hash).is_ok();
                u8::from(right).ct_eq(&1)
            }
        }
    }
}

fn parse_argon2id(text: &str, owner: impl Fn() -> String) -> Result<Hash, Reason> {
    let damaged = || Reason::Damaged { user: owner() };
    let hash = PasswordHash::new(text).map_err(|_| damaged())?;
    let params = Params::try_from(&hash).map_err(|_| damaged())?;
    let current = hash.version == Some(u32::from(Version::V0x13));
    if !current || hash.salt.is_none() || hash.hash.is_none() {
        return Err(damaged());
    }
    if params.m_cost() > MAX_ARGON2_MEMORY
        || params.t_cost() > MAX_ARGON2_PASSES
        || params.p_cost() > MAX_ARGON2_LANES
    {
        return Err(Reason::Expensive { user: owner() });
    }
    Ok(Hash::Argon2id(Box::new(hash)))
}

/// The line of a password file for `user`: an argon2id hash that takes 19 MiB and two passes to check, which is what
/// OWASP recommends at least and a small machine can still do for some log-ins at once. `salt` has to be random.
///
/// Fails when the name or the password is not one that [`Passwords`] accepts.
pub fn line(user: &str, password: &str, salt: [u8; SALT_LEN]) -> Result<String, LineError> {
    if !is_user(user) {
        return Err(LineError::User);
    }
    if password.is_empty() || password.len() > MAX_PASSWORD_LEN {
        return Err(LineError::Password);
    }
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT);
    let hash = argon2.hash_password_with_salt(password.as_bytes(), &salt).map_err(|_| LineError::Password)?;
    Ok(format!("{user}:{hash}"))
}

/// Why no line could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The name could not be read back.
    #[error(
        "not a user name; it has 1 to {MAX_USER_LEN} bytes, no colon, no control characters and no # at the start"
    )]
    User,
    /// The password is empty or too long.
    #[error("a password has 1 to {MAX_PASSWORD_LEN} bytes")]
    Password,
}

/// Whether a name can stand in front of a colon and be sent by a client. A `#` would make the line a comment.
fn is_user(name: &str) -> bool {
    (1..=MAX_USER_LEN).contains(&name.len())
        && !name.starts_with('#')
        && !name.contains(|c: char| c == ':' || c.is_control())
}

/// What the text behind the colon is, for the message that refuses it.
fn kind(text: &str) -> &'static str {
    const KINDS: [(&str, &str); 10] = [
        ("$apr1$", "MD5 ($apr1$)"),
        ("$1$", "MD5 ($1$)"),
        ("{SHA}", "SHA-1 ({SHA})"),
        ("{SSHA}", "SHA-1 ({SSHA})"),
        ("$5$", "SHA-256 crypt ($5$)"),
        ("$6$", "SHA-512 crypt ($6$)"),
        ("$2x$", "a faulty kind of bcrypt ($2x$)"),
        ("$argon2i$", "argon2i instead of argon2id"),
        ("$argon2d$", "argon2d instead of argon2id"),
        ("$", "a hash of an unknown kind"),
    ];
    KINDS.iter().find(|(prefix, _)| text.starts_with(prefix)).map_or("plain text or crypt", |(_, kind)| kind)
}
