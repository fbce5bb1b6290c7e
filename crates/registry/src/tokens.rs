//! Tokens, kept: the keys that access tokens are signed with, and the list of robots.
//!
//! Whether a token is right is decided by [`deltaport_trust::tokens`]; here are the secrets, the clock and the random
//! numbers that it wants. A token of one replica is good at every other, since they share the secrets.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use deltaport_store::{Secret, Secrets, Stamp};
use deltaport_trust::tokens::{Grant, Ring, Robot, RobotError, Robots, SEED_LEN, TokenError};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether a new key is due.
const ROTATION_CHECK: Duration = Duration::from_secs(600);
/// How long the list of robots is believed without looking whether its file has changed: how long a revoked one may
/// still come in, at most.
const ROBOTS_RECHECK: Duration = Duration::from_millis(100);
/// How often it is looked whether another replica has changed what all of them share; the same for those.
const SHARED_RECHECK: Duration = Duration::from_millis(500);
/// For how long a new key of replicas is known before it signs: until then each of them has looked.
const KNOWN_FIRST: Duration = Duration::from_secs(5);

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
    secret: Secret,
    /// Those that tokens are known by.
    ring: ArcSwap<Ring>,
    /// Those of which the newest signs. With replicas they come a while after `ring`.
    signing: ArcSwap<Ring>,
    seen: Mutex<KeysSeen>,
}

/// The keys that tokens are signed with.
const TOKEN_KEYS: &str = "token-keys";
/// The programs that may log in.
const ROBOTS: &str = "robots";

/// Takes over the secrets of another place: tokens that were good there are good here. Blocks, as [`Secret`] does.
pub fn copy_secrets(from: &Secrets, to: &Secrets) -> std::io::Result<()> {
    for name in [TOKEN_KEYS, ROBOTS] {
        if let Some(content) = from.secret(name).read()? {
            to.secret(name).update(|_| Ok::<_, std::io::Error>((Some(content.clone()), ())))?;
        }
    }
    Ok(())
}

/// What was seen of keys that replicas share.
#[derive(Debug, Default)]
struct KeysSeen {
    stamp: Stamp,
    /// When the newest key of `ring` may sign.
    signs: Option<Instant>,
}

impl AccessTokens {
    /// Reads the keys that are among `secrets`, and makes one if a new one is due. `service` is what tokens say that they
    /// are issued by and for. Blocks; where replicas share secrets, it must not be called by a task of a runtime.
    ///
    /// Keys that cannot be read or written are no reason not to serve: clients take new tokens by themselves.
    pub fn open(secrets: &Secrets, service: &str) -> Self {
        let secret = secrets.secret(TOKEN_KEYS);
        let ring = match secret.read().map(|content| content.as_deref().map(Ring::read)) {
            Ok(None) => Ring::default(),
            Ok(Some(Ok(ring))) => ring,
            Ok(Some(Err(error))) => {
                tracing::warn!(%secret, %error, "making new keys for tokens");
                Ring::default()
            }
            Err(error) => {
                tracing::warn!(%secret, %error, "the keys for tokens cannot be read; making new ones");
                Ring::default()
            }
        };
        let ring = Arc::new(ring);
        let tokens = Self(Arc::new(Keys {
            service: service.into(),
            secret,
            ring: ArcSwap::new(Arc::clone(&ring)),
            signing: ArcSwap::new(ring),
            seen: Mutex::default(),
        }));
        tokens.rotate_if_due();
        tokens
    }

    /// What tokens are issued by and for.
    pub fn service(&self) -> &str {
        &self.0.service
    }

    /// A new token; `None` when there is no key to sign it with, because the system has no random numbers.
    pub fn issue(&self, grant: &Grant) -> Option<String> {
        self.0.signing.load().issue(grant, &self.0.service, now())
    }

    /// What a token says, if it is one of ours and still valid.
    pub fn verify(&self, token: &str) -> Result<Grant, TokenError> {
        self.0.ring.load().verify(token, &self.0.service, now())
    }

    /// Makes new keys when they are due, and learns those that other replicas make, until `stop`.
    pub async fn rotate(self, stop: CancellationToken) {
        let pause = if self.0.secret.is_shared() { SHARED_RECHECK } else { ROTATION_CHECK };
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            let this = self.clone();
            // A panic there would be a bug that the next look would meet again; there is nothing to clean up.
            let _rotated = tokio::task::spawn_blocking(move || this.look()).await;
        }
    }

    fn look(&self) {
        if self.0.secret.is_shared() {
            if let Err(error) = self.learn_from_others() {
                tracing::debug!(secret = %self.0.secret, %error, "the keys for tokens stay as they were");
            }
            let mut seen = self.seen();
            if seen.signs.is_some_and(|signs| signs <= Instant::now()) {
                seen.signs = None;
                self.0.signing.store(self.0.ring.load_full());
            }
        }
        self.rotate_if_due();
    }

    /// Reads the keys again if they are others than before.
    fn learn_from_others(&self) -> io::Result<()> {
        let stamp = self.0.secret.stamp()?;
        if stamp.is_none() || stamp == self.seen().stamp {
            return Ok(());
        }
        if let Some(Ok(ring)) = self.0.secret.read()?.as_deref().map(Ring::read) {
            self.take(ring);
        }
        self.seen().stamp = stamp;
        Ok(())
    }

    /// Knows tokens by these keys from now on, and signs with the newest as soon as every replica knows it. Until then the one
    /// before signs, even if it is older than keys get.
    fn take(&self, ring: Ring) {
        let ring = Arc::new(ring);
        self.0.ring.store(Arc::clone(&ring));
        if self.0.secret.is_shared() && !self.0.signing.load().is_empty() {
            self.seen().signs = Some(Instant::now() + KNOWN_FIRST);
        } else {
            self.0.signing.store(ring);
        }
    }

    fn rotate_if_due(&self) {
        let now = now();
        if !self.0.ring.load().is_due(now) {
            return;
        }
        let mut seed = [0; SEED_LEN];
        if let Err(error) = getrandom::fill(&mut seed) {
            tracing::error!(%error, "no new key for tokens: the system has no random numbers");
            return;
        }
        // Written first: a token that a restart, or another replica, does not know would be refused within its life.
        let written = self.0.secret.update(|old| {
            let ring = old.as_deref().and_then(|old| Ring::read(old).ok()).unwrap_or_default();
            // Another replica may have been first.
            if !ring.is_due(now) {
                return Ok((None, ring));
            }
            let ring = ring.rotated(seed, now).map_err(|_| io::Error::other("no key could be made"))?;
            Ok::<_, io::Error>((Some(ring.to_bytes()), ring))
        });
        let ring = match written {
            Ok(ring) => ring,
            Err(error) => {
                tracing::warn!(secret = %self.0.secret, %error, "the new key for tokens lasts until a restart only");
                let Ok(ring) = self.0.ring.load().rotated(seed, now) else { return };
                ring
            }
        };
        self.take(ring);
        tracing::info!("there is a new key for access tokens");
    }

    fn seen(&self) -> MutexGuard<'_, KeysSeen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The list of robots, as it is now. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RobotTokens(Arc<List>);

#[derive(Debug)]
struct List {
    secret: Secret,
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
    /// The robots that are among `secrets`. Nothing is read yet.
    pub fn new(secrets: &Secrets) -> Self {
        let seen = Seen { robots: Arc::default(), stamp: None, looked: None };
        Self(Arc::new(List { secret: secrets.secret(ROBOTS), seen: Mutex::new(seen) }))
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
        Ok(self.0.secret.read()?.as_deref().map(Robots::read).transpose()?.unwrap_or_default())
    }

    /// Changes the list. Servers know within a moment. `change` is called again when somebody else changes it at the same
    /// time.
    pub fn change<T>(&self, change: impl Fn(&mut Robots) -> Result<T, RobotError>) -> Result<T, RobotsError> {
        self.0.secret.update(|old| {
            let mut robots = old.as_deref().map(Robots::read).transpose()?.unwrap_or_default();
            let made = change(&mut robots)?;
            Ok::<_, RobotsError>((Some(robots.to_bytes()), made))
        })
    }

    /// Learns what other replicas, and commands, change in a list that replicas share, until `stop`. Of one in a file that
    /// is found out when somebody asks.
    pub async fn watch(self, stop: CancellationToken) {
        while self.0.secret.is_shared() {
            let this = self.clone();
            // A panic there would be a bug that the next look would meet again; there is nothing to clean up.
            let _looked = tokio::task::spawn_blocking(move || this.look(&mut this.seen())).await;
            if stop.run_until_cancelled(tokio::time::sleep(SHARED_RECHECK)).await.is_none() {
                return;
            }
        }
    }

    /// The list as it is now, or was a moment ago. One that cannot be read changes nothing.
    fn current(&self) -> Arc<Robots> {
        let mut seen = self.seen();
        // A database is not asked while a request waits for it: see `watch`.
        if !self.0.secret.is_shared() && seen.looked.is_none_or(|looked| looked.elapsed() >= ROBOTS_RECHECK) {
            self.look(&mut seen);
        }
        Arc::clone(&seen.robots)
    }

    /// Reads the list again if it is another than before.
    fn look(&self, seen: &mut Seen) {
        let first = seen.looked.is_none();
        seen.looked = Some(Instant::now());
        let secret = &self.0.secret;
        match secret.stamp() {
            Ok(stamp) if !first && stamp == seen.stamp => {}
            Ok(stamp) => match self.read() {
                Ok(robots) => (seen.stamp, seen.robots) = (stamp, Arc::new(robots)),
                Err(error) => {
                    seen.stamp = stamp;
                    tracing::warn!(%secret, %error, "the tokens stay as they were");
                }
            },
            Err(error) => tracing::debug!(%secret, %error, "the tokens stay as they were"),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
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
        let token = AccessTokens::open(&Secrets::in_directory(home.path()), "one").issue(&grant()).unwrap();
        assert_eq!(
            AccessTokens::open(&Secrets::in_directory(home.path()), "one").verify(&token),
            Ok(grant())
        );
        assert_eq!(
            AccessTokens::open(&Secrets::in_directory(home.path()), "two").verify(&token),
            Err(TokenError::Issuer)
        );
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(
            AccessTokens::open(&Secrets::in_directory(elsewhere.path()), "one").verify(&token),
            Err(TokenError::Key)
        );
        let mode = home.path().join("private/token-keys").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn damaged_keys_are_made_anew() {
        let home = tempfile::tempdir().unwrap();
        let token = AccessTokens::open(&Secrets::in_directory(home.path()), "one").issue(&grant()).unwrap();
        std::fs::write(home.path().join("private/token-keys"), "{").unwrap();
        let tokens = AccessTokens::open(&Secrets::in_directory(home.path()), "one");
        assert_eq!(tokens.verify(&token), Err(TokenError::Key));
        assert_eq!(tokens.verify(&tokens.issue(&grant()).unwrap()), Ok(grant()));
    }

    #[test]
    fn what_one_process_revokes_another_refuses_at_once() {
        let home = tempfile::tempdir().unwrap();
        let (command, server) = {
            let secrets = Secrets::in_directory(home.path());
            (RobotTokens::new(&secrets), RobotTokens::new(&secrets))
        };
        assert!(server.user("robot:ci").is_none());
        let scopes = Scopes::parse(["repository:a:pull"]).unwrap();
        let secret = command
            .change(|robots| robots.create("ci", scopes.clone(), None, 0, [7; SECRET_RANDOM_LEN]))
            .unwrap();
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
