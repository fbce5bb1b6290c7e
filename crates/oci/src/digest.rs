//! Content digests (image-spec, descriptor.md, "Digests") and the hashers that produce them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256, Sha512};

/// A hash algorithm that content may be addressed by.
///
/// The specification registers these two (and blake3, which no registry serves). Everything else is refused when a
/// digest is parsed, so no other code has to think about unknown algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, 64 hexadecimal characters.
    Sha256,
    /// SHA-512, 128 hexadecimal characters.
    Sha512,
}

impl Algorithm {
    /// The name in front of the colon of a digest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many bytes a hash of this algorithm has.
    pub fn hash_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(DigestError::Algorithm),
        }
    }
}

/// Why a text is not a digest that this registry can address content by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// The algorithm is not one that is served.
    #[error("the digest's algorithm is not supported; use sha256 or sha512")]
    Algorithm,
    /// There is no colon, or what follows it is not lower-case hexadecimal of the algorithm's length.
    #[error("not a digest; it must be sha256: and 64, or sha512: and 128, lower-case hexadecimal characters")]
    Form,
}

/// The hash of some content: what it is called everywhere.
///
/// Parsing accepts only the canonical spelling, so two equal digests are equal as text too, and a file name built from
/// one contains nothing but `[0-9a-f]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    /// The first `algorithm.hash_len()` bytes count, the others are zero.
    hash: [u8; 64],
}

impl Digest {
    /// Makes a digest of a hash that was computed elsewhere.
    ///
    /// Fails when `hash` does not have the algorithm's length.
    pub fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Result<Self, DigestError> {
        if hash.len() != algorithm.hash_len() {
            return Err(DigestError::Form);
        }
        let mut bytes = [0; 64];
        bytes[..hash.len()].copy_from_slice(hash);
        Ok(Self { algorithm, hash: bytes })
    }

    /// The SHA-256 digest of `content`.
    pub fn sha256(content: &[u8]) -> Self {
        Self::of(Algorithm::Sha256, content)
    }

    /// The digest of `content` under `algorithm`.
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(content);
        hasher.finish()
    }

    /// The algorithm in front of the colon.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash itself, 32 or 64 bytes.
    pub fn hash(&self) -> &[u8] {
        &self.hash[..self.algorithm.hash_len()]
    }

    /// The hash in lower-case hexadecimal: what stands behind the colon.
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(2 * self.algorithm.hash_len());
        for byte in self.hash() {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::Form)?;
        let algorithm: Algorithm = algorithm.parse()?;
        if hex.len() != 2 * algorithm.hash_len() {
            return Err(DigestError::Form);
        }
        let mut hash = [0; 64];
        for (byte, pair) in hash.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Ok(Self { algorithm, hash })
    }
}

/// The value of one lower-case hexadecimal character. Upper case would give one digest two spellings.
fn nibble(character: u8) -> Result<u8, DigestError> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        _ => Err(DigestError::Form),
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A running hash whose state can be saved and taken up again, also by another process.
#[derive(Clone, Debug)]
pub struct Hasher(Inner);

#[derive(Clone, Debug)]
enum Inner {
    Sha256(Sha256),
    Sha512(Sha512),
}

/// The saved state of a [`Hasher`]: one byte for the algorithm, then the state as the `sha2` crate writes it.
pub type HasherState = Vec<u8>;

impl Hasher {
    /// A hasher that has seen nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => Inner::Sha256(Sha256::new()),
            Algorithm::Sha512 => Inner::Sha512(Sha512::new()),
        })
    }

    /// Which algorithm runs.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Inner::Sha256(_) => Algorithm::Sha256,
            Inner::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes the next bytes of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Inner::Sha256(hasher) => hasher.update(bytes),
            Inner::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of everything seen.
    pub fn finish(self) -> Digest {
        let mut hash = [0; 64];
        let algorithm = self.algorithm();
        match self.0 {
            Inner::Sha256(hasher) => hash[..32].copy_from_slice(&hasher.finalize()),
            Inner::Sha512(hasher) => hash.copy_from_slice(&hasher.finalize()),
        }
        Digest { algorithm, hash }
    }

    /// The state after everything seen so far, for [`Hasher::resume`].
    pub fn save(&self) -> HasherState {
        let mut state = Vec::with_capacity(256);
        match &self.0 {
            Inner::Sha256(hasher) => {
                state.push(1);
                state.extend_from_slice(&hasher.serialize());
            }
            Inner::Sha512(hasher) => {
                state.push(2);
                state.extend_from_slice(&hasher.serialize());
            }
        }
        state
    }

    /// Takes up a saved state; `None` when it is damaged or was written by a version with another layout, in which
    /// case the content has to be hashed again from its start.
    pub fn resume(state: &[u8]) -> Option<Self> {
        let (tag, state) = state.split_first()?;
        match tag {
            1 if counts_blocks(state.get(32..40)?) => {
                Some(Self(Inner::Sha256(Sha256::deserialize(state.try_into().ok()?).ok()?)))
            }
            2 if counts_blocks(state.get(64..80)?) => {
                Some(Self(Inner::Sha512(Sha512::deserialize(state.try_into().ok()?).ok()?)))
            }
            _ => None,
        }
    }
}

/// Whether the number of blocks in a saved state, which stands behind the chaining value with its lowest byte first, is
/// one that content can have (below 2^48, 16 PiB). The hash functions would overflow on a larger one.
fn counts_blocks(count: &[u8]) -> bool {
    count[6..].iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY);
        let sha512 = Digest::of(Algorithm::Sha512, b"abc").to_string();
        assert!(sha512.starts_with("sha512:ddaf35a193617abacc417349ae204131"), "{sha512}");
    }

    #[test]
    fn only_the_canonical_spelling_parses() {
        assert!(EMPTY.parse::<Digest>().is_ok());
        for (text, why) in [
            ("", DigestError::Form),
            ("sha256", DigestError::Form),
            ("sha256:", DigestError::Form),
            ("sha256:baddigeststring", DigestError::Form),
            (&EMPTY.to_uppercase().replace("SHA256", "sha256"), DigestError::Form),
            (&format!("{EMPTY}0"), DigestError::Form),
            (&EMPTY.replace("sha256", "sha512"), DigestError::Form),
            (&EMPTY.replace("sha256", "md5"), DigestError::Algorithm),
            ("sha256:../../../../etc/passwd0000000000000000000000000000000000000000", DigestError::Form),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(why), "{text}");
        }
    }

    #[test]
    fn a_state_of_more_bytes_than_there_can_be_is_refused() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for at in 0..Hasher::new(algorithm).save().len() {
                let mut state = Hasher::new(algorithm).save();
                state[at] = 0xff;
                if let Some(mut hasher) = Hasher::resume(&state) {
                    hasher.update(&[0; 1000]);
                    hasher.finish();
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_saved_hasher_goes_on_where_it_was(content in proptest::collection::vec(any::<u8>(), 0..400), cut in 0..400_usize, big in any::<bool>()) {
            let algorithm = if big { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let cut = cut.min(content.len());
            let mut first = Hasher::new(algorithm);
            first.update(&content[..cut]);
            let mut second = Hasher::resume(&first.save()).expect("a state that was just saved");
            second.update(&content[cut..]);
            prop_assert_eq!(second.finish(), Digest::of(algorithm, &content));
        }

        #[test]
        fn text_and_value_agree(hash in proptest::collection::vec(any::<u8>(), 32..=32)) {
            let digest = Digest::from_hash(Algorithm::Sha256, &hash).expect("32 bytes");
            prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        }

        #[test]
        fn no_text_panics(text in ".{0,200}", state in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = text.parse::<Digest>();
            let _ = Hasher::resume(&state);
        }
    }
}
