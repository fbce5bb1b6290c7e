//! The deflate encoders of klauspost/compress, which podman, buildah, skopeo and umoci use, and Go since 1.27.
//!
//! They write what `flate.Writer` of klauspost/compress writes (BSD-3-Clause), from which the algorithms were learned:
//! [`Encoder`] one raw deflate stream, [`pgzip::Encoder`] the independent blocks of klauspost/pgzip (MIT). The header
//! and the trailer of gzip are the caller's. Go 1.27 took the same code for its compress/flate, so its streams are
//! those of [`Group::V1_18_2`]; only what it does by default is another level, 6.
//!
//! Not followed: builds that fuse the multiplications and additions of the size estimates (arm64, or amd64 from
//! GOAMD64=v3 on), where a block may now and then be cut differently; and the sorting of symbol counts that were
//! made to bring quicksort to its knees.
//!
//! | module | knows |
//! |---|---|
//! | `symbols` | the constants of RFC 1951 |
//! | `tokens` | literals and copies, their counts and the estimate of their size |
//! | `code`, `header` | which Huffman codes are chosen, and how a block says them |
//! | `block` | which form a block gets |
//! | `bits` | the bit order of deflate |
//! | `quick` | the matchers of levels 1 to 6 |
//! | `encoder` | how content is cut into blocks |
//! | `pgzip` | blocks that are encoded on their own |

mod bits;
mod block;
mod code;
mod encoder;
mod header;
pub(crate) mod pgzip;
mod quick;
mod symbols;
#[cfg(test)]
mod tests;
mod tokens;

use block::Listing;

pub(crate) use encoder::Encoder;

/// Releases of klauspost/compress that write the same bytes at every level, named by the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// v1.15.10.
    V1_15_10,
    /// v1.18.2 to v1.19.1 at least, and Go 1.27.
    V1_18_2,
}

impl Group {
    /// All groups, the oldest first.
    pub(crate) const ALL: [Self; 2] = [Self::V1_15_10, Self::V1_18_2];
}

/// A compression level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(i8);

impl Level {
    /// What klauspost/compress takes when it is not told anything.
    pub(crate) const DEFAULT: Self = Self(5);

    /// The level of this number, -1 meaning the default; `None` if there is none.
    pub(crate) fn new(level: i8) -> Option<Self> {
        match level {
            -1 => Some(Self::DEFAULT),
            5 => Some(Self(level)),
            _ => None,
        }
    }
}

/// What an encoder does. Releases differ in nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Behaviour {
    method: Method,
    listing: Listing,
}

/// How content becomes blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Quick(quick::Kind),
}

impl Behaviour {
    fn of(group: Group, level: Level) -> Self {
        let Level(5) = level else { unreachable!() };
        let method = Method::Quick(quick::Kind::Level5);
        let listing = if group >= Group::V1_18_2 { Listing::Trimmed } else { Listing::Full };
        Self { method, listing }
    }
}
