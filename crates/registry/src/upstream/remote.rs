//! An upstream at work: what it is called here, and how it has been doing.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deltaport_client as client;
use deltaport_client::Quota;
use deltaport_oci::{RepositoryName, platform};
use deltaport_trust::Pattern;

use crate::fill::Meter;

use super::{DOCKER, Deltas, TagPolicy, Upstream, prefix};

/// How long a stored tag is served without asking an upstream that has just failed, in case it did not say.
const PAUSE: Duration = Duration::from_secs(10);
/// How long an upstream is left alone that has had enough requests from us and did not say for how long.
const QUOTA_PAUSE: Duration = Duration::from_secs(60);
/// For how long at most an upstream is believed that so many requests were the last; then it may be asked again.
const LONGEST_EXHAUSTION: Duration = Duration::from_secs(15 * 60);
/// How long a client waits for an upstream when a stored manifest can be served instead.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same while the upstream does not answer: time enough for one that is back, and no more than a hiccup.
const LITTLE_PATIENCE: Duration = Duration::from_secs(1);

/// An upstream at work.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) client: client::Upstream,
    pub(crate) deltas: Deltas,
    /// Whether bytes from it are paid for.
    pub(crate) metered: bool,
    /// How fast they come.
    pub(crate) speed: Meter,
    pub(crate) policy: TagPolicy,
    /// Which children of its indexes are fetched.
    pub(crate) platforms: platform::Filter,
    pub(super) default: bool,
    /// The first component of the local names; for a host with a port, the colon is an underscore.
    pub(super) prefix: String,
    /// Names of this registry under which it stands for the upstream, in small letters.
    pub(super) hosts: Vec<String>,
    /// Which of its repositories are served; empty are all.
    repositories: Vec<Pattern>,
    health: Mutex<Health>,
}

/// How an upstream has been doing.
#[derive(Debug, Default)]
struct Health {
    /// Whether it has failed since it last answered.
    failing: bool,
    /// Until when there is no point in asking where there is something to serve instead.
    paused: Option<Instant>,
    /// Until when it does not want such requests, by [`Ask`].
    sated: [Option<Instant>; 3],
    /// What it has said about how much we may ask, the last time that this was something new.
    quota: Option<Quota>,
    /// Until when the next manifest would be one too many, as it says.
    exhausted: Option<Instant>,
}

/// A kind of request. Upstreams count them differently: Docker Hub counts manifests that are fetched, not those that
/// are only looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// HEAD of a manifest.
    Head,
    /// GET of a manifest.
    Manifest,
    /// A blob.
    Blob,
}

/// The upstream has had enough requests of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sated {
    /// For how long it wants no more.
    pub(crate) retry_after: Duration,
}

impl Remote {
    pub(super) fn new(upstream: &Upstream) -> Self {
        Self {
            client: upstream.client.clone(),
            deltas: upstream.deltas,
            metered: upstream.metered,
            speed: Meter::default(),
            policy: upstream.policy.clone(),
            platforms: upstream.platforms.clone(),
            default: upstream.default,
            prefix: prefix(upstream.client.host()),
            hosts: upstream.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            repositories: upstream.repositories.clone(),
            health: Mutex::default(),
        }
    }

    /// The name at the upstream, if that repository is served here. At Docker Hub, names of one component are short
    /// for the official images.
    pub(super) fn name_there(&self, name: &str) -> Option<RepositoryName> {
        let official = self.prefix == DOCKER && !name.is_empty() && !name.contains('/');
        let name: RepositoryName =
            if official { format!("library/{name}").parse().ok()? } else { name.parse().ok()? };
        let served = self.repositories.is_empty()
            || self.repositories.iter().any(|pattern| pattern.matches(name.as_str()));
        served.then_some(name)
    }

    /// Whether the upstream has failed so recently that content which is here should be served at once.
    pub(crate) fn is_paused(&self) -> bool {
        self.health().paused.is_some_and(|until| Instant::now() < until)
    }

    /// Fails when the upstream has said that it wants no more of such requests for now.
    pub(crate) fn may_ask(&self, ask: Ask) -> Result<(), Sated> {
        let until = self.health().sated[ask as usize];
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(retry_after) if !retry_after.is_zero() => Err(Sated { retry_after }),
            _ => Ok(()),
        }
    }

    /// Whether the upstream has said that one more manifest would be too many. Unlike [`Remote::may_ask`] this is no
    /// refusal yet, but reason enough where there is something to serve instead.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.health().exhausted.is_some_and(|until| Instant::now() < until)
    }

    /// How long a client waits for the upstream when there is something to serve instead.
    pub(crate) fn patience(&self) -> Duration {
        if self.health().failing { LITTLE_PATIENCE } else { PATIENCE }
    }

    /// Notes how a request went.
    pub(crate) fn note<T>(&self, ask: Ask, result: &Result<T, client::Error>) {
        let now = Instant::now();
        let mut health = self.health();
        health.note_quota(ask, self.client.quota(), now);
        match result.as_ref().map_err(client::Error::kind) {
            Err(client::ErrorKind::Unavailable { retry_after, quota: true, .. }) => {
                let until = now + retry_after.unwrap_or(QUOTA_PAUSE);
                health.sated[ask as usize] = Some(until);
                // Who may not even look need not try to fetch.
                if ask == Ask::Head {
                    health.sated[Ask::Manifest as usize] = Some(until);
                }
            }
            Err(client::ErrorKind::Unavailable { retry_after, .. }) => {
                health.failing = true;
                health.paused = Some(now + retry_after.unwrap_or(PAUSE));
            }
            Err(_) => (health.failing, health.paused) = (false, None),
            Ok(_) => {
                (health.failing, health.paused) = (false, None);
                health.sated[ask as usize] = None;
            }
        }
    }

    /// Notes that nothing came for as long as anybody waits.
    pub(crate) fn note_silence(&self) {
        let mut health = self.health();
        health.failing = true;
        health.paused = Some(Instant::now() + PAUSE);
    }

    /// Nothing under this lock can stop half-way, so a poisoned one is as good as any.
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    /// Notes how much the upstream lets us ask, as of its last answer that said so. Most answers do not, so the same
    /// words again are news only from requests that count.
    fn note_quota(&mut self, ask: Ask, quota: Option<Quota>, now: Instant) {
        if quota == self.quota && ask != Ask::Manifest {
            return;
        }
        self.quota = quota;
        self.exhausted = quota
            .filter(|quota| quota.remaining == 0)
            .map(|quota| now + quota.window.unwrap_or(LONGEST_EXHAUSTION).min(LONGEST_EXHAUSTION));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote() -> Remote {
        let options = client::Options::new("a.example", "http://127.0.0.1:1");
        Remote::new(&Upstream::new(client::Upstream::new(&options).unwrap()))
    }

    fn error(kind: client::ErrorKind) -> Result<(), client::Error> {
        Err(client::Error::new("a".into(), kind))
    }

    fn unavailable(retry_after: Option<u64>, quota: bool) -> Result<(), client::Error> {
        let retry_after = retry_after.map(Duration::from_secs);
        error(client::ErrorKind::Unavailable { why: String::new(), retry_after, quota })
    }

    #[test]
    fn a_failure_pauses_and_an_answer_ends_the_pause() {
        let remote = remote();
        assert_eq!(remote.patience(), PATIENCE);
        for answer in [Ok(()), error(client::ErrorKind::NotFound)] {
            remote.note(Ask::Head, &unavailable(None, false));
            assert!(remote.is_paused());
            assert_eq!(remote.patience(), LITTLE_PATIENCE);
            remote.note(Ask::Blob, &answer);
            assert!(!remote.is_paused());
            assert_eq!(remote.patience(), PATIENCE);
        }
        remote.note_silence();
        assert!(remote.is_paused());
    }

    #[test]
    fn what_is_sated_is_left_alone_and_the_rest_is_not() {
        let allowed =
            |remote: &Remote| [Ask::Head, Ask::Manifest, Ask::Blob].map(|ask| remote.may_ask(ask).is_ok());
        for (ask, expected) in [
            (Ask::Head, [false, false, true]),
            (Ask::Manifest, [true, false, true]),
            (Ask::Blob, [true, true, false]),
        ] {
            let remote = remote();
            remote.note(ask, &unavailable(Some(40), true));
            assert_eq!(allowed(&remote), expected, "{ask:?}");
            assert!(!remote.is_paused(), "it answers");
            let Sated { retry_after } = remote.may_ask(ask).unwrap_err();
            assert!(retry_after > Duration::from_secs(30), "{retry_after:?}");
            remote.note(ask, &Ok(()));
            assert!(remote.may_ask(ask).is_ok());
        }
        let remote = remote();
        remote.note(Ask::Manifest, &unavailable(Some(0), true));
        assert_eq!(allowed(&remote), [true; 3], "no time is no time");
        remote.note(Ask::Manifest, &unavailable(None, true));
        assert!(remote.may_ask(Ask::Manifest).unwrap_err().retry_after > Duration::from_secs(50));
    }

    #[test]
    fn the_last_of_a_quota_is_believed_for_a_while() {
        let quota =
            |remaining| Some(Quota { limit: 100, window: Some(Duration::from_secs(21_600)), remaining });
        let (mut health, start) = (Health::default(), Instant::now());
        health.note_quota(Ask::Head, quota(1), start);
        assert_eq!(health.exhausted, None);
        health.note_quota(Ask::Head, quota(0), start);
        assert_eq!(health.exhausted, Some(start + LONGEST_EXHAUSTION));
        let later = start + Duration::from_secs(60);
        health.note_quota(Ask::Head, quota(0), later);
        assert_eq!(health.exhausted, Some(start + LONGEST_EXHAUSTION), "an answer may have said nothing");
        health.note_quota(Ask::Manifest, quota(0), later);
        assert_eq!(health.exhausted, Some(later + LONGEST_EXHAUSTION));
        health.note_quota(Ask::Head, quota(3), later);
        assert_eq!(health.exhausted, None);
        let short = Quota { limit: 5, window: Some(Duration::from_secs(1)), remaining: 0 };
        health.note_quota(Ask::Manifest, Some(short), start);
        assert_eq!(health.exhausted, Some(start + Duration::from_secs(1)));
    }
}
