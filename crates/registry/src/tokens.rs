//! Tokens, kept: the keys that access tokens are signed with, and the list of robots.
//!
//! Whether a token is right is decided by [`deltaport_trust::tokens`]; here are the files, the clock and the random
//! numbers that it wants.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use deltaport_store::{PrivateFile, Stamp};
use deltaport_trust::tokens::{Grant, Ring, Robot, RobotError, Robots, SEED_LEN, TokenError};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether a new key is due.
const ROTATION_CHECK: Duration = Duration::from_secs(600);
/// How long the list of robots is believed without looking whether its file has changed: how long a revoked one may
/// still come in, at most.
const ROBOTS_RECHECK: Duration = Duration::from_millis(100);

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What issues access tokens and knows them again. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessTokens(Arc<Keys>);

#[derive(Debug)]
struct Keys {
    service: Box<str>,
    file: PrivateFile,
    ring: ArcSwap<Ring>,
}

impl AccessTokens {
    /// Reads the keys of the data directory `root`, and makes one if a new one is due. `service` is what tokens say that
    /// they are issued by and for.
    ///
    /// Keys that cannot be read or written are no reason not to serve: clients take new tokens by themselves.
    pub fn open(root: &Path, service: &str) -> Self {
        let file = PrivateFile::new(root, "token-keys");
        let ring = match file.read().map(|content| content.as_deref().map(Ring::read)) {
            Ok(None) => Ring::default(),
            Ok(Some(Ok(ring))) => ring,
            Ok(Some(Err(error))) => {
                tracing::warn!(file = %file.path().display(), %error, "making new keys for tokens");
                Ring::default()
            }
            Err(error) => {
                tracing::warn!(file = %file.path().display(), %error, "the keys for tokens cannot be read; making new ones");
                Ring::default()
            }
        };
        let tokens =
            Self(Arc::new(Keys { service: service.into(), file, ring: ArcSwap::from_pointee(ring) }));
        tokens.rotate_if_due();
        tokens
    }

    /// What tokens are issued by and for.
    pub fn service(&self) -> &str {
        &self.0.service
    }

    /// A new token; `None` when there is no key to sign it with, because the system has no random numbers.
    pub fn issue(&self, grant: &Grant) -> Option<String> {
        self.0.ring.load().issue(grant, &self.0.service, now())
    }

    /// What a token says, if it is one of ours and still valid.
    pub fn verify(&self, token: &str) -> Result<Grant, TokenError> {
        self.0.ring.load().verify(token, &self.0.service, now())
    }

    /// Makes new keys when they are due, until `stop`.
    pub async fn rotate(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(ROTATION_CHECK)).await.is_some() {
            let this = self.clone();
            // A panic there would be a bug that the next look would meet again; there is nothing to clean up.
            let _rotated = tokio::task::spawn_blocking(move || this.rotate_if_due()).await;
        }
    }

    fn rotate_if_due(&self) {
        let (now, ring) = (now(), self.0.ring.load_full());
        if !ring.is_due(now) {
            return;
        }
        let mut seed = [0; SEED_LEN];
        if let Err(error) = getrandom::fill(&mut seed) {
            tracing::error!(%error, "no new key for tokens: the system has no random numbers");
            return;
        }
        let Ok(ring) = ring.rotated(seed, now) else { return };
        // Written first: a token that a restart does not know again would be refused within its life.
        if let Err(error) = self.0.file.replace(&ring.to_bytes()) {
            tracing::warn!(file = %self.0.file.path().display(), %error, "the new key for tokens lasts until a restart only");
        }
        self.0.ring.store(Arc::new(ring));
        tracing::info!("a new key signs access tokens");
    }
}

/// The list of robots of a data directory, as it is now. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RobotTokens(Arc<List>);

#[derive(Debug)]
struct List {
    file: PrivateFile,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    robots: Arc<Robots>,
    stamp: Stamp,
    looked: Option<Instant>,
}

/// Why the list of robots cannot be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RobotsError {
    /// The file cannot be read or written.
    #[error("cannot use the list of tokens: {0}")]
    File(#[from] std::io::Error),
    /// What is wanted makes no sense.
    #[error(transparent)]
    Robot(#[from] RobotError),
}

impl RobotTokens {
    /// The robots of the data directory `root`. Nothing is read yet.
    pub fn new(root: &Path) -> Self {
        let seen = Seen { robots: Arc::default(), stamp: None, looked: None };
        Self(Arc::new(List { file: PrivateFile::new(root, "robots"), seen: Mutex::new(seen) }))
    }

    /// The robot that has this secret and has not ended.
    pub fn with_secret(&self, secret: &str) -> Option<Robot> {
        self.current().with_secret(secret, now()).cloned()
    }

    /// The robot that is known as this user and has not ended.
    pub fn user(&self, user: &str) -> Option<Robot> {
        self.current().user(user, now()).cloned()
    }

    /// Reads the list now. Fails when it is damaged.
    pub fn read(&self) -> Result<Robots, RobotsError> {
        Ok(self.0.file.read()?.as_deref().map(Robots::read).transpose()?.unwrap_or_default())
    }

    /// Changes the list. Servers on the same data directory know within a moment.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Robots) -> Result<T, RobotError>,
    ) -> Result<T, RobotsError> {
        let mut outcome = None;
        self.0.file.update(|old| {
            let mut robots = old.as_deref().map(Robots::read).transpose()?.unwrap_or_default();
            outcome = Some(change(&mut robots)?);
            Ok::<_, RobotsError>(robots.to_bytes())
        })?;
        outcome.ok_or_else(|| RobotsError::File(std::io::Error::other("it was not changed")))
    }

    /// The list as it is now, or was a moment ago. One that cannot be read changes nothing.
    fn current(&self) -> Arc<Robots> {
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.looked.is_some_and(|looked| looked.elapsed() < ROBOTS_RECHECK) {
            return Arc::clone(&seen.robots);
        }
        let (stamp, first) = (self.0.file.stamp(), seen.looked.is_none());
        seen.looked = Some(Instant::now());
        if first || stamp != seen.stamp {
            seen.stamp = stamp;
            match self.read() {
                Ok(robots) => seen.robots = Arc::new(robots),
                Err(error) => {
                    tracing::warn!(file = %self.0.file.path().display(), %error, "the tokens stay as they were");
                }
            }
        }
        Arc::clone(&seen.robots)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use deltaport_trust::tokens::{SECRET_RANDOM_LEN, Scopes};

    use super::*;

    fn grant() -> Grant {
        Grant { user: Some("anna".into()), scopes: Scopes::requested(["repository:a:pull"]).unwrap() }
    }

    #[test]
    fn tokens_survive_a_restart_and_only_their_own_service_takes_them() {
        let home = tempfile::tempdir().unwrap();
        let token = AccessTokens::open(home.path(), "one").issue(&grant()).unwrap();
        assert_eq!(AccessTokens::open(home.path(), "one").verify(&token), Ok(grant()));
        assert_eq!(AccessTokens::open(home.path(), "two").verify(&token), Err(TokenError::Issuer));
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(AccessTokens::open(elsewhere.path(), "one").verify(&token), Err(TokenError::Key));
        let mode = home.path().join("private/token-keys").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn damaged_keys_are_made_anew() {
        let home = tempfile::tempdir().unwrap();
        let token = AccessTokens::open(home.path(), "one").issue(&grant()).unwrap();
        std::fs::write(home.path().join("private/token-keys"), "{").unwrap();
        let tokens = AccessTokens::open(home.path(), "one");
        assert_eq!(tokens.verify(&token), Err(TokenError::Key));
        assert_eq!(tokens.verify(&tokens.issue(&grant()).unwrap()), Ok(grant()));
    }

    #[test]
    fn what_one_process_revokes_another_refuses_at_once() {
        let home = tempfile::tempdir().unwrap();
        let (command, server) = (RobotTokens::new(home.path()), RobotTokens::new(home.path()));
        assert!(server.user("robot:ci").is_none());
        let scopes = Scopes::parse(["repository:a:pull"]).unwrap();
        let secret =
            command.change(|robots| robots.create("ci", scopes, None, 0, [7; SECRET_RANDOM_LEN])).unwrap();
        std::thread::sleep(2 * ROBOTS_RECHECK);
        assert!(server.with_secret(&secret).is_some() && server.user("robot:ci").is_some());
        std::fs::write(home.path().join("private/robots"), "{").unwrap();
        std::thread::sleep(2 * ROBOTS_RECHECK);
        assert!(server.with_secret(&secret).is_some(), "a damaged list changes nothing");
        std::fs::remove_file(home.path().join("private/robots")).unwrap();
        std::thread::sleep(2 * ROBOTS_RECHECK);
        assert!(server.with_secret(&secret).is_none());
        assert!(command.change(|robots| robots.revoke("ci")).is_err());
    }
}
