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
//! | `lazy` | the matcher of levels 7 to 9 |
//! | `encoder` | how content is cut into blocks |
//! | `pgzip` | blocks that are encoded on their own |

mod bits;
mod block;
mod code;
mod encoder;
mod header;
mod lazy;
pub(crate) mod pgzip;
mod quick;
mod symbols;
#[cfg(test)]
mod tests;
mod tokens;

use std::fmt;

use block::Listing;
use lazy::{Census, Effort, EndCheck, Gain};
use quick::{Key, Kind, MayDiffer, SecondLook};
use tokens::Pieces;

pub(crate) use encoder::Encoder;

/// Releases of klauspost/compress that write the same bytes at every level, named by the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// v1.14.4. (v1.14.1 to v1.14.3 were withdrawn.)
    V1_14_4,
    /// v1.15.0 to v1.15.9.
    V1_15_0,
    /// v1.15.10.
    V1_15_10,
    /// v1.15.11 to v1.15.14.
    V1_15_11,
    /// v1.15.15 to v1.17.11.
    V1_15_15,
    /// v1.18.0.
    V1_18_0,
    /// v1.18.2 to v1.19.1 at least, and Go 1.27. (v1.18.1 was withdrawn.)
    V1_18_2,
}

impl Group {
    /// All groups, the oldest first.
    pub(crate) const ALL: [Self; 7] = [
        Self::V1_14_4,
        Self::V1_15_0,
        Self::V1_15_10,
        Self::V1_15_11,
        Self::V1_15_15,
        Self::V1_18_0,
        Self::V1_18_2,
    ];

    /// The groups that differ at a level, each as the newest of those that do not.
    pub(crate) fn distinct(level: Level) -> impl Iterator<Item = Self> {
        let newer = Self::ALL.into_iter().skip(1).map(Some).chain([None]);
        let pairs = Self::ALL.into_iter().zip(newer);
        pairs.filter_map(move |(group, newer)| {
            let same = newer.is_some_and(|newer| Behaviour::of(group, level) == Behaviour::of(newer, level));
            (!same).then_some(group)
        })
    }

    /// How a delta names the group; a code once given stays.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::V1_14_4 => 1,
            Self::V1_15_0 => 2,
            Self::V1_15_10 => 3,
            Self::V1_15_11 => 4,
            Self::V1_15_15 => 5,
            Self::V1_18_0 => 6,
            Self::V1_18_2 => 7,
        }
    }

    /// The group that a delta names.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.code() == code)
    }
}

/// A compression level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(i8);

impl Level {
    /// What klauspost/compress takes when it is not told anything. (Go takes 6.)
    pub(crate) const DEFAULT: Self = Self(5);

    /// The level of this number: 0 to 9, -1 for the default, -2 for no matches; `None` if there is none.
    pub(crate) fn new(level: i8) -> Option<Self> {
        match level {
            -1 => Some(Self::DEFAULT),
            -2 | 0..=9 => Some(Self(level)),
            _ => None,
        }
    }

    /// The number of the level.
    pub(crate) fn number(self) -> i8 {
        self.0
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_14_4 => "v1.14.4",
            Self::V1_15_0 => "v1.15.0",
            Self::V1_15_10 => "v1.15.10",
            Self::V1_15_11 => "v1.15.11",
            Self::V1_15_15 => "v1.15.15",
            Self::V1_18_0 => "v1.18.0",
            Self::V1_18_2 => "v1.18.2 or Go 1.27",
        })
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
    HuffmanOnly,
    Lazy(Effort),
    Quick(Kind, Pieces),
    Stored,
}

impl Behaviour {
    fn of(group: Group, level: Level) -> Self {
        let method = match level.0 {
            0 => Method::Stored,
            1 => Method::Quick(Kind::Level1(key(group)), pieces(group)),
            2 => Method::Quick(Kind::Level2(key(group)), pieces(group)),
            3 => Method::Quick(Kind::Level3(key(group)), pieces(group)),
            4 => Method::Quick(Kind::Level4(second_look(group)), pieces(group)),
            5 => Method::Quick(Kind::Level5(may_differ(group)), pieces(group)),
            6 => Method::Quick(Kind::Level6(may_differ(group)), pieces(group)),
            7 => Method::Lazy(effort(group, 12, 16, 24)),
            8 => Method::Lazy(effort(group, 30, 40, 64)),
            9 => Method::Lazy(Effort { gain: Some(gain(group)), ..effort(group, 258, 258, 1024) }),
            _ => Method::HuffmanOnly,
        };
        // These two never list their codes in more than one way.
        let listing = match method {
            Method::HuffmanOnly | Method::Stored => Listing::Trimmed,
            _ if group >= Group::V1_18_2 => Listing::Trimmed,
            _ => Listing::Full,
        };
        Self { method, listing }
    }
}

fn pieces(group: Group) -> Pieces {
    if group >= Group::V1_15_0 { Pieces::Longest } else { Pieces::Of255 }
}

fn key(group: Group) -> Key {
    if group >= Group::V1_15_11 { Key::Five } else { Key::Four }
}

fn may_differ(group: Group) -> MayDiffer {
    MayDiffer(if group >= Group::V1_15_10 { 2 } else { 0 })
}

fn second_look(group: Group) -> SecondLook {
    if group >= Group::V1_18_0 { SecondLook::PlaceForDistance } else { SecondLook::Length }
}

fn effort(group: Group, lazy: usize, nice: usize, chain: usize) -> Effort {
    let end = if group >= Group::V1_15_15 { EndCheck::Behind } else { EndCheck::Around };
    Effort { lazy, nice, chain, end, gain: None }
}

fn gain(group: Group) -> Gain {
    let census = if group >= Group::V1_18_2 { Census::First32K } else { Census::Overflowing };
    let (cost, least) = if group >= Group::V1_15_15 { (3, 4) } else { (6, 0) };
    Gain { cost, least, census }
}
