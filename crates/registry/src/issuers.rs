//! Identity tokens of CI systems, with the keys of their issuers: fetched now and then, kept for when the issuer cannot be
//! reached, and believed for a limited time.
//!
//! Whether a token is right is decided by [`deltaport_trust::tokens`]; here is where the keys come from.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use deltaport_client::IssuerKeys;
use deltaport_oci::Digest;
use deltaport_store::PrivateFile;
use deltaport_trust::tokens::{Issuer, KeySet, MAX_JWKS_LEN, TokenError};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::tokens::now;

/// How old keys may be before they are fetched again, in seconds.
const REFRESH_AGE: u64 = 3600;
/// How often it is looked whether they are, and how long it takes until the next try after one that failed.
const CHECK: Duration = Duration::from_secs(60);
/// How long after a try a token that names an unknown key does not lead to another one.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(30);

/// An issuer, and where its keys are.
#[derive(Debug)]
pub struct Provider {
    /// Whose tokens are believed, and who comes with them.
    pub issuer: Issuer,
    /// Where its keys are.
    pub keys: KeySource,
    /// How long fetched keys are believed while no others can be fetched.
    pub max_age: Duration,
}

/// Where the keys of an issuer are.
#[derive(Debug)]
pub enum KeySource {
    /// In a file, which somebody keeps up to date.
    File(PathBuf),
    /// At the issuer.
    Fetched(Box<IssuerKeys>),
}

/// The issuers whose tokens are believed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Issuers(Arc<[Source]>);

#[derive(Debug)]
struct Source {
    provider: Provider,
    cache: PrivateFile,
    keys: ArcSwapOption<Keys>,
    /// When fetching was last tried; held while it is.
    tried: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Keys {
    set: KeySet,
    /// When they were fetched, in seconds since 1970.
    fetched: u64,
}

/// What is kept of fetched keys.
#[derive(Serialize, Deserialize)]
struct Kept {
    issuer: String,
    fetched: u64,
    keys: String,
}

impl Issuers {
    /// Reads what is kept of the keys in the data directory `root`. Nothing is fetched yet.
    pub fn open(root: &Path, providers: Vec<Provider>) -> Self {
        let open = |provider: Provider| {
            let hash = &Digest::sha256(provider.issuer.issuer.as_bytes()).hex()[..32];
            let source = Source {
                cache: PrivateFile::new(root, &format!("issuer-{hash}")),
                provider,
                keys: ArcSwapOption::empty(),
                tried: tokio::sync::Mutex::default(),
            };
            source.restore();
            source
        };
        Self(providers.into_iter().map(open).collect())
    }

    /// Whether tokens of this issuer are believed at all.
    pub fn knows(&self, issuer: &str) -> bool {
        self.0.iter().any(|source| source.provider.issuer.issuer == issuer)
    }

    /// Every user that comes from one of them.
    pub fn users(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter().map(|source| &source.provider.issuer.user)
    }

    /// The user that comes with a token which says that it is from `issuer`.
    ///
    /// An unknown key may be a new one: then the keys are fetched again, at most once in half a minute.
    pub async fn verify(&self, issuer: &str, token: &str) -> Result<Arc<str>, TokenError> {
        let mut refused = TokenError::Issuer;
        for source in self.0.iter().filter(|source| source.provider.issuer.issuer == issuer) {
            let mut outcome = source.verify(token);
            if outcome == Err(TokenError::Key) && source.fetch_again().await {
                outcome = source.verify(token);
            }
            match outcome {
                Ok(user) => return Ok(user),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Keeps the keys fresh until `stop`.
    pub async fn refresh(self, stop: CancellationToken) {
        loop {
            for source in &*self.0 {
                if source.age().is_none_or(|age| age >= REFRESH_AGE) {
                    stop.run_until_cancelled(source.fetch_again()).await;
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(CHECK)).await.is_none() {
                return;
            }
        }
    }
}

impl Source {
    fn verify(&self, token: &str) -> Result<Arc<str>, TokenError> {
        let keys = self.keys.load();
        let max_age = match self.provider.keys {
            KeySource::File(_) => u64::MAX,
            KeySource::Fetched(_) => self.provider.max_age.as_secs(),
        };
        let fresh = keys.as_ref().filter(|keys| now().saturating_sub(keys.fetched) <= max_age);
        self.provider.issuer.verify(&fresh.ok_or(TokenError::Key)?.set, token, now())
    }

    /// For how long the keys have been known, in seconds.
    fn age(&self) -> Option<u64> {
        match self.provider.keys {
            // A file is looked at each time: it costs nothing.
            KeySource::File(_) => None,
            KeySource::Fetched(_) => self.keys.load().as_ref().map(|keys| now().saturating_sub(keys.fetched)),
        }
    }

    /// Fetches the keys unless that was tried just now; `true` when there are others than before.
    async fn fetch_again(&self) -> bool {
        let before = self.keys.load_full();
        let is_new = |keys: &Option<Arc<Keys>>| match (&before, keys) {
            (Some(before), Some(keys)) => !Arc::ptr_eq(before, keys),
            (None, keys) => keys.is_some(),
            (Some(_), None) => false,
        };
        let mut tried = self.tried.lock().await;
        // Who waited for somebody else's try has its outcome.
        if tried.is_some_and(|tried| tried.elapsed() < UNKNOWN_KEY_PAUSE) {
            return is_new(&self.keys.load_full());
        }
        *tried = Some(Instant::now());
        let issuer = &self.provider.issuer.issuer;
        match self.fetch().await {
            Ok(()) => tracing::debug!(issuer, "the keys of an issuer were fetched"),
            Err(error) => tracing::warn!(
                issuer,
                error,
                "the keys of an issuer cannot be had; those that are known stay"
            ),
        }
        is_new(&self.keys.load_full())
    }

    async fn fetch(&self) -> Result<(), String> {
        let bytes = match &self.provider.keys {
            KeySource::Fetched(keys) => keys.fetch().await.map_err(|error| error.to_string())?.to_vec(),
            KeySource::File(path) => read(path).map_err(|error| error.to_string())?,
        };
        let set = KeySet::read(&bytes).map_err(|error| error.to_string())?;
        let fetched = now();
        if let KeySource::Fetched(_) = self.provider.keys {
            let keys = String::from_utf8(bytes).map_err(|_| "the keys are not UTF-8".to_owned())?;
            let kept = Kept { issuer: self.provider.issuer.issuer.clone(), fetched, keys };
            let kept = serde_json::to_vec(&kept).map_err(|error| error.to_string())?;
            let cache = self.cache.clone();
            let written = tokio::task::spawn_blocking(move || cache.replace(&kept)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(file = %self.cache.path().display(), %error, "the keys of an issuer are known until a restart only");
            }
        }
        self.keys.store(Some(Arc::new(Keys { set, fetched })));
        Ok(())
    }

    /// Takes up what is kept, if it is this issuer's and can be used.
    fn restore(&self) {
        if let KeySource::File(path) = &self.provider.keys {
            let set = read(path).ok().and_then(|bytes| KeySet::read(&bytes).ok());
            self.keys.store(set.map(|set| Arc::new(Keys { set, fetched: now() })));
            return;
        }
        let kept = self.cache.read().ok().flatten();
        let kept: Option<Kept> = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        // A time in the future would make them good for longer than they may be.
        let kept = kept.filter(|kept| kept.issuer == self.provider.issuer.issuer && kept.fetched <= now());
        let keys = kept.and_then(|kept| {
            let set = KeySet::read(kept.keys.as_bytes()).ok()?;
            Some(Arc::new(Keys { set, fetched: kept.fetched }))
        });
        self.keys.store(keys);
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_JWKS_LEN as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
