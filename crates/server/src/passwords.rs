//! Logging in: who the users are, and not having to check a password for every request.
//!
//! A check takes a whole core for a while, by design, and every request carries the password. So passwords that were
//! checked are remembered for a short time, under a keyed hash, few are checked at once, and few wait for that. Wrong
//! ones are remembered apart, so that a flood of them does not push the right ones out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use aws_lc_rs::{hmac, rand};
use deltaport_trust::Passwords;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::line::{Full, Line, Mark, Verdict};
use crate::options::Limits;
use crate::reload::{ReloadError, Watched};

/// How many right passwords are remembered, and how many wrong ones. When there are more, all are forgotten and checked
/// again.
const MAX_REMEMBERED: usize = 4096;

/// Those who can log in.
pub(crate) struct Users {
    passwords: ArcSwap<Passwords>,
    file: Mutex<File>,
    remembered: Mutex<HashMap<Mark, Remembered>>,
    refused: Mutex<HashMap<Mark, Remembered>>,
    key: hmac::Key,
    line: Line,
    checks: Arc<Semaphore>,
    memory: Duration,
}

struct File {
    watched: Watched,
    loaded: Vec<u8>,
    complaint: Option<String>,
}

struct Remembered {
    user: Arc<str>,
    until: Instant,
    /// The passwords that it was checked against. Comparing pointers tells whether they were replaced since.
    passwords: Arc<Passwords>,
}

impl Users {
    /// Reads the password file.
    pub(crate) fn load(path: &Path, limits: &Limits) -> Result<Self, ReloadError> {
        let mut watched = Watched::new(path);
        let loaded = watched.read()?;
        let passwords = parse(&watched, &loaded)?;
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())
            .map_err(|_| ReloadError::new(path, "the system has no random numbers"))?;
        let checks = limits.password_checks.max(1);
        Ok(Self {
            passwords: ArcSwap::from_pointee(passwords),
            file: Mutex::new(File { watched, loaded, complaint: None }),
            remembered: Mutex::default(),
            refused: Mutex::default(),
            key,
            line: Line::new(checks),
            checks: Arc::new(Semaphore::new(checks)),
            memory: limits.password_memory,
        })
    }

    /// Whether there is such a user.
    pub(crate) fn contains(&self, user: &str) -> bool {
        self.passwords.load().contains(user)
    }

    /// What a check found not long ago, without another one.
    pub(crate) fn known(&self, user: &str, password: &str) -> Option<Verdict> {
        let mark = self.mark(user, password);
        self.recall(&mark).map(Some).or_else(|| self.look_up(&self.refused(), &mark).map(|_| None))
    }

    /// The user, if the password is theirs. Fails when too many wait for a check, of all or of those at `peer`.
    pub(crate) async fn check(
        self: &Arc<Self>,
        peer: IpAddr,
        user: &str,
        password: &str,
    ) -> Result<Verdict, Full> {
        let mark = self.mark(user, password);
        if let Some(user) = self.recall(&mark) {
            return Ok(Some(user));
        }
        let place = self.line.join(mark, peer)?;
        // Clients begin with several requests at once: the first one's check is enough for all.
        Ok(place.verdict.get_or_init(|| self.verify(mark, user, password)).await.clone())
    }

    async fn verify(self: &Arc<Self>, mark: Mark, user: &str, password: &str) -> Verdict {
        let turn = Arc::clone(&self.checks).acquire_owned().await.ok()?;
        // Whoever had this checked before may have gone away meanwhile.
        if let Some(user) = self.recall(&mark) {
            return Some(user);
        }
        let (this, user, password) = (Arc::clone(self), user.to_owned(), password.to_owned());
        let checked = tokio::task::spawn_blocking(move || {
            // A check that was begun cannot be stopped, so the turn is not over when the client goes away: else whoever
            // asks and leaves could have any number of them run.
            let _turn = turn;
            let passwords = this.passwords.load_full();
            let right = passwords.verify(&user, &password);
            let user: Arc<str> = user.into();
            let mut memory = if right { this.remembered() } else { this.refused() };
            this.remember(&mut memory, mark, Arc::clone(&user), passwords);
            right.then_some(user)
        });
        checked.await.ok()?
    }

    /// Looks at the password file every `interval` until `stop`.
    pub(crate) async fn watch(self: Arc<Self>, interval: Duration, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
            let this = Arc::clone(&self);
            // A panic there would be a bug that the next look would meet again; there is nothing to clean up.
            let _looked = tokio::task::spawn_blocking(move || this.look()).await;
        }
    }

    fn look(&self) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if !file.watched.may_have_changed() {
            return;
        }
        match file.reload() {
            Ok(Some(passwords)) => {
                self.passwords.store(Arc::new(passwords));
                self.remembered().clear();
                self.refused().clear();
                file.complaint = None;
                tracing::info!(file = %file.watched.path().display(), "the password file was reloaded");
            }
            Ok(None) => file.complaint = None,
            Err(error) => {
                let complaint = Some(error.to_string());
                if file.complaint != complaint {
                    tracing::warn!(%error, "the password file changed and cannot be used; the old one stays");
                    file.complaint = complaint;
                }
            }
        }
    }

    fn mark(&self, user: &str, password: &str) -> Mark {
        let mut context = hmac::Context::with_key(&self.key);
        // The length in front keeps "ab" + "c" and "a" + "bc" apart.
        context.update(&(user.len() as u64).to_le_bytes());
        context.update(user.as_bytes());
        context.update(password.as_bytes());
        let mut mark = Mark::default();
        mark.copy_from_slice(context.sign().as_ref());
        mark
    }

    fn recall(&self, mark: &Mark) -> Option<Arc<str>> {
        self.look_up(&self.remembered(), mark)
    }

    fn look_up(&self, memory: &HashMap<Mark, Remembered>, mark: &Mark) -> Option<Arc<str>> {
        let found = memory.get(mark)?;
        let valid = Arc::ptr_eq(&found.passwords, &self.passwords.load()) && Instant::now() < found.until;
        valid.then(|| Arc::clone(&found.user))
    }

    fn remember(
        &self,
        memory: &mut HashMap<Mark, Remembered>,
        mark: Mark,
        user: Arc<str>,
        passwords: Arc<Passwords>,
    ) {
        let now = Instant::now();
        if memory.len() >= MAX_REMEMBERED {
            memory.retain(|_, found| now < found.until);
        }
        if memory.len() >= MAX_REMEMBERED {
            memory.clear();
        }
        memory.insert(mark, Remembered { user, until: now + self.memory, passwords });
    }

    fn refused(&self) -> MutexGuard<'_, HashMap<Mark, Remembered>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<Mark, Remembered>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Users")
    }
}

impl File {
    fn reload(&mut self) -> Result<Option<Passwords>, ReloadError> {
        let now = self.watched.read()?;
        if now == self.loaded {
            return Ok(None);
        }
        if now.is_empty() {
            // Whoever writes a file in place empties it first, and a look may come between.
            let reason = "it is empty; to take every user away, leave a comment line in it";
            return Err(ReloadError::new(self.watched.path(), reason));
        }
        let passwords = parse(&self.watched, &now)?;
        self.loaded = now;
        Ok(Some(passwords))
    }
}

fn parse(file: &Watched, content: &[u8]) -> Result<Passwords, ReloadError> {
    let text = std::str::from_utf8(content).map_err(|error| ReloadError::new(file.path(), error))?;
    Passwords::parse(text).map_err(|error| ReloadError::new(file.path(), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltaport_trust::passwords;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// Alice, and one check at a time.
    fn one_at_a_time() -> Arc<Users> {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("htpasswd");
        let line = passwords::line("alice", "right", [7; passwords::SALT_LEN]).expect("a user");
        std::fs::write(&path, line).expect("a file");
        let limits = Limits { password_checks: 1, ..Limits::DEFAULT };
        Arc::new(Users::load(&path, &limits).expect("a password file"))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_flood_of_wrong_passwords_is_refused_and_the_right_one_is_not() {
        let users = one_at_a_time();
        let guesses: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        let flood = guesses.iter().map(|guess| users.check(PEER, "alice", guess));
        let elsewhere = IpAddr::from([10, 0, 0, 1]);
        let several = (0..20).map(|_| users.check(elsewhere, "alice", "right"));
        let (flood, several) =
            tokio::join!(futures_util::future::join_all(flood), futures_util::future::join_all(several));
        assert_eq!(flood.iter().filter(|answer| answer.is_err()).count(), 46);
        assert!(flood.iter().flatten().all(Option::is_none));
        assert!(several.iter().all(|answer| *answer == Ok(Some("alice".into()))));
        assert_eq!(users.check(PEER, "alice", "wrong").await, Ok(None), "the flood is over");
        assert_eq!(users.known("alice", "wrong"), Some(None), "it need not be checked again");
        assert_eq!(users.known("alice", "right"), Some(Some("alice".into())));
        assert_eq!(users.known("bob", "wrong"), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_check_keeps_its_turn_when_the_client_goes_away() {
        let users = one_at_a_time();
        let left = tokio::time::timeout(Duration::ZERO, users.check(PEER, "alice", "right")).await;
        assert!(left.is_err(), "a check takes longer than no time");
        assert_eq!(users.checks.available_permits(), 0, "the check goes on, so no other may begin");
        assert_eq!(users.check(PEER, "alice", "wrong").await, Ok(None));
        assert!(users.recall(&users.mark("alice", "right")).is_some(), "it was not in vain");
        assert_eq!(users.checks.available_permits(), 1);
    }
}
