//! The keys that access tokens are signed with: one that signs, and older ones until what they signed has expired.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltaport_oci::Digest;
use serde_json::json;

use super::{ACCESS_TOKEN_LIFE, LEEWAY};
use crate::signatures::json::{self, Fields};

/// How long a key signs, in seconds, before the next one does.
pub const KEY_LIFE: u64 = 7 * 24 * 3600;
/// The most keys in a ring. Two are enough; more come from a clock that jumps.
pub const MAX_RING_KEYS: usize = 8;
/// The most bytes of a stored ring.
pub const MAX_RING_LEN: usize = 16 << 10;
/// How many random bytes a new key is made from.
pub const SEED_LEN: usize = 32;

/// How long after its last signature a key is still needed, in seconds.
const LINGER: u64 = ACCESS_TOKEN_LIFE + 2 * LEEWAY;

/// The keys, newest first. The first one signs.
#[derive(Clone, Default)]
pub struct Ring {
    keys: Vec<Key>,
}

/// Why a stored ring cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored keys are damaged; remove the file, and clients take new tokens by themselves")]
pub struct RingError;

/// A key of ours.
#[derive(Clone)]
pub(super) struct Key {
    id: String,
    seed: [u8; SEED_LEN],
    /// When it began to sign, in seconds since 1970.
    since: u64,
    pair: std::sync::Arc<Ed25519KeyPair>,
}

impl Ring {
    /// Reads what [`Ring::to_bytes`] wrote.
    pub fn read(bytes: &[u8]) -> Result<Self, RingError> {
        let value = json::read(bytes, MAX_RING_LEN).map_err(|_| RingError)?;
        let mut fields = value.object("it").map_err(|_| RingError)?;
        let keys = fields.need("keys").and_then(|keys| keys.array("keys")).map_err(|_| RingError)?;
        if keys.len() > MAX_RING_KEYS {
            return Err(RingError);
        }
        let key = |value: json::Value| value.object("key").ok().and_then(Key::read).ok_or(RingError);
        Ok(Self { keys: keys.into_iter().map(key).collect::<Result<_, _>>()? })
    }

    /// The keys as bytes, secrets and all: for a file that nobody else can read.
    pub fn to_bytes(&self) -> Vec<u8> {
        let keys: Vec<_> = self
            .keys
            .iter()
            .map(|key| json!({ "seed": STANDARD.encode(key.seed), "since": key.since }))
            .collect();
        json!({ "keys": keys }).to_string().into_bytes()
    }

    /// Whether there is no key, so that nothing can be signed.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the ring needs a new key at `now`, in seconds since 1970: it has none, its newest is older than
    /// [`KEY_LIFE`], or seems to be from the future.
    pub fn is_due(&self, now: u64) -> bool {
        self.keys.first().is_none_or(|key| {
            now >= key.since.saturating_add(KEY_LIFE) || key.since > now.saturating_add(LEEWAY)
        })
    }

    /// The ring with a new key made from `seed`, which has to be random, and without those that nothing valid was signed
    /// with any more.
    pub fn rotated(&self, seed: [u8; SEED_LEN], now: u64) -> Result<Self, RingError> {
        let mut keys = vec![Key::new(seed, now).ok_or(RingError)?];
        // A key stopped signing when the one before it in the list began.
        let mut stopped = now;
        for key in &self.keys {
            if now < stopped.saturating_add(LINGER) && keys.len() < MAX_RING_KEYS {
                keys.push(key.clone());
            }
            stopped = key.since;
        }
        Ok(Self { keys })
    }

    /// The one that signs.
    pub(super) fn current(&self) -> Option<&Key> {
        self.keys.first()
    }

    /// The one that is called `id`.
    pub(super) fn find(&self, id: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

impl Key {
    fn new(seed: [u8; SEED_LEN], since: u64) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).ok()?;
        let id = Digest::sha256(pair.public_key().as_ref()).hex()[..16].to_owned();
        Some(Self { id, seed, since, pair: pair.into() })
    }

    fn read(mut fields: Fields) -> Option<Self> {
        let seed = STANDARD.decode(fields.string("seed").ok()?).ok()?.try_into().ok()?;
        let since = fields.need("since").and_then(|since| since.integer("since")).ok()?;
        Self::new(seed, u64::try_from(since).ok()?)
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.pair.public_key()).verify(message, signature).is_ok()
    }
}
