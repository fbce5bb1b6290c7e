//! The deflate encoders, and how a delta names one.

use std::fmt;
use std::io::{Cursor, Read};
use std::num::NonZeroUsize;

use super::detect::detect;
use super::klauspost::pgzip::{self, BlockSize};
use super::klauspost::{self, Group, Level};
use super::zlib::{self, Variant};
use super::{Encode, go};
use crate::error::Error;
use crate::format::codec;

/// A deflate encoder with its settings, of which there is an implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deflate {
    /// Go's compress/flate up to Go 1.26.
    Go { level: GoLevel },
    /// klauspost/compress, and Go's compress/flate from Go 1.27 on.
    Klauspost { group: Group, level: Level },
    /// klauspost/pgzip.
    Pgzip { group: Group, level: Level, block: BlockSize },
    /// zlib, GNU gzip and their kin.
    Zlib { variant: Variant, level: ZlibLevel },
}

/// A level that [`go::Encoder`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GoLevel(i8);

/// A level that [`zlib::Encoder`] has for its variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ZlibLevel(u8);

/// What the header of a gzip member says about its encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// The byte that tells the best (2) and the fastest (4) level from all others.
    pub(crate) xfl: u8,
    /// The time stamp, by which klauspost/compress differs.
    pub(crate) mtime: u32,
    /// The byte for the operating system, by which libraries differ: 255 for Go, 3 for GNU gzip.
    pub(crate) os: u8,
}

/// What klauspost/compress has for a time stamp when there is none: the low bits of Go's zero time.
const KLAUSPOST_MTIME: u32 = 0x886e_0900;

/// The time stamp, the operating system and the family of those that it makes likely.
const UNKNOWN_OS: u8 = 255;

/// How many bytes name an encoder.
const LEN: usize = 4;

impl Deflate {
    fn go(level: i8) -> Option<Self> {
        go::Encoder::new(level.into()).map(|_| Self::Go { level: GoLevel(level) })
    }

    fn zlib(variant: Variant, level: u8) -> Option<Self> {
        zlib::Encoder::new(variant, level).map(|_| Self::Zlib { variant, level: ZlibLevel(level) })
    }

    fn klauspost(group: u8, level: i8) -> Option<Self> {
        Some(Self::Klauspost { group: Group::from_code(group)?, level: Level::new(level)? })
    }

    fn pgzip(group: u8, level: i8, block: usize) -> Option<Self> {
        let block = BlockSize::new(block)?;
        Some(Self::Pgzip { group: Group::from_code(group)?, level: Level::new(level)?, block })
    }

    pub(crate) fn read(source: &mut impl Read) -> Result<Self, Error> {
        let name: [u8; LEN] = codec::read_array(source)?;
        let known = match name {
            [1, 0, 0, level] => Self::zlib(Variant::Gzip, level),
            [1, 1, mem_level, level] => Self::zlib(Variant::Zlib { mem_level }, level),
            [1, 2, parallel @ 0..=1, level] => Self::zlib(Variant::Pigz { parallel: parallel == 1 }, level),
            [1, 3, 0, level] => Self::zlib(Variant::InfoZip, level),
            [2, 0, 0, level] => Self::go(level as i8),
            [3, group, 0, level] => Self::klauspost(group, level as i8),
            [3, group, block @ 1..=30, level] => Self::pgzip(group, level as i8, 1 << block),
            _ => None,
        };
        known.ok_or(Error::Format("unknown encoder; a newer deltaport may have made it"))
    }

    pub(crate) fn write(self, bytes: &mut Vec<u8>) {
        let name: [u8; LEN] = match self {
            Self::Zlib { variant: Variant::Gzip, level } => [1, 0, 0, level.0],
            Self::Zlib { variant: Variant::Zlib { mem_level }, level } => [1, 1, mem_level, level.0],
            Self::Zlib { variant: Variant::Pigz { parallel }, level } => [1, 2, parallel.into(), level.0],
            Self::Zlib { variant: Variant::InfoZip, level } => [1, 3, 0, level.0],
            Self::Go { level } => [2, 0, 0, level.0 as u8],
            Self::Klauspost { group, level } => [3, group.code(), 0, level.number() as u8],
            Self::Pgzip { group, level, block } => {
                [3, group.code(), block.bytes().ilog2() as u8, level.number() as u8]
            }
        };
        bytes.extend_from_slice(&name);
    }

    /// The encoder, which uses up to `threads` threads if that makes it faster.
    pub(crate) fn encoder(self, threads: usize) -> Box<dyn Encode> {
        const TRIED: &str = "a level exists only for encoders that have it";
        match self {
            Self::Go { level } => Box::new(go::Encoder::new(level.0.into()).expect(TRIED)),
            Self::Klauspost { group, level } => Box::new(klauspost::Encoder::new(group, level)),
            Self::Pgzip { group, level, block } => {
                let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
                Box::new(pgzip::Encoder::new(group, level, block, threads))
            }
            Self::Zlib { variant, level } => Box::new(zlib::Encoder::new(variant, level.0).expect(TRIED)),
        }
    }

    /// The encoders that may have written a member of this kind, or any, the most likely first.
    pub(crate) fn candidates(hint: Option<Hint>) -> Vec<Self> {
        let levels: &[u8] = match hint.map(|hint| hint.xfl) {
            Some(2) => &[9],
            Some(4) => &[1],
            Some(_) => &[6, 5, 7, 8, 4, 3, 2],
            None => &[6, 9, 8, 5, 7, 1, 4, 3, 2],
        };
        let klauspost = || levels.iter().flat_map(|level| of_klauspost(*level as i8));
        let zlib = || levels.iter().flat_map(|level| of_zlib(*level));
        let go = || levels.iter().filter_map(|level| Self::go(*level as i8));
        match hint {
            Some(hint) if hint.mtime == KLAUSPOST_MTIME => klauspost().chain(go()).collect(),
            Some(hint) if hint.os == UNKNOWN_OS => go().chain(klauspost()).chain(zlib()).collect(),
            _ => zlib().chain(go()).chain(klauspost()).collect(),
        }
    }

    /// The encoder that writes the same up to the end of the first block of pgzip: what pgzip uses for its blocks, and for
    /// others themselves.
    pub(crate) fn lead(self) -> Self {
        match self {
            Self::Pgzip { group, level, .. } => Self::Klauspost { group, level },
            other => other,
        }
    }

    /// The leads of all of these, each once.
    pub(crate) fn leads(all: &[Self]) -> Vec<Self> {
        let mut leads = Vec::new();
        for lead in all.iter().map(|deflate| deflate.lead()) {
            if !leads.contains(&lead) {
                leads.push(lead);
            }
        }
        leads
    }

    /// The encoder that makes exactly `body` of `content`. Members inside layers are mostly written by the family that
    /// `detector` knows.
    pub(crate) fn of(
        body: &[u8],
        content: &[u8],
        hint: Option<Hint>,
        detector: &mut zlib::Detector,
    ) -> Option<Self> {
        if let Some((variant, level)) = detector.detect(body, content, hint.map(|hint| hint.xfl)) {
            return Self::zlib(variant, level);
        }
        let of_another_family = |deflate: &Self| !matches!(deflate, Self::Zlib { .. });
        let candidates: Vec<_> = Self::candidates(hint).into_iter().filter(of_another_family).collect();
        let mut content = content;
        // Reading memory cannot fail.
        let found = detect(candidates, &mut Cursor::new(body), 0, &mut content, u64::MAX).ok()?;
        found.first().copied()
    }
}

/// The encoders of klauspost/compress at a level, the most likely first: the newest groups, and pgzip before gzip.
fn of_klauspost(level: i8) -> impl Iterator<Item = Deflate> {
    let groups = move || {
        let groups: Vec<_> = Level::new(level).into_iter().flat_map(Group::distinct).collect();
        groups.into_iter().rev().map(Group::code)
    };
    let blocks = [BlockSize::DEFAULT, BlockSize::UMOCI];
    let pgzip = blocks
        .into_iter()
        .flat_map(move |block| groups().filter_map(move |group| Deflate::pgzip(group, level, block.bytes())));
    pgzip.chain(groups().filter_map(move |group| Deflate::klauspost(group, level)))
}

/// The encoders of zlib's family at a level, the most likely first.
fn of_zlib(level: u8) -> impl Iterator<Item = Deflate> {
    let variants = [
        Variant::Gzip,
        Variant::Zlib { mem_level: 8 },
        Variant::Pigz { parallel: true },
        Variant::Zlib { mem_level: 9 },
        Variant::Pigz { parallel: false },
    ];
    variants.into_iter().filter_map(move |variant| Deflate::zlib(variant, level))
}

impl fmt::Display for Deflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Go { level } => write!(f, "Go compress/gzip up to 1.26, level {}", level.0),
            Self::Klauspost { group, level } => {
                write!(f, "klauspost/compress {group}, level {}", level.number())
            }
            Self::Pgzip { group, level, block } => {
                let (level, block) = (level.number(), block.bytes() >> 10);
                write!(f, "pgzip with klauspost/compress {group}, level {level}, blocks of {block} KiB")
            }
            Self::Zlib { variant: Variant::Gzip, level } => write!(f, "GNU gzip, level {}", level.0),
            Self::Zlib { variant: Variant::InfoZip, level } => write!(f, "Info-ZIP, level {}", level.0),
            Self::Zlib { variant: Variant::Zlib { mem_level }, level } => {
                write!(f, "zlib, level {}, memory level {mem_level}", level.0)
            }
            Self::Zlib { variant: Variant::Pigz { parallel: true }, level } => {
                write!(f, "pigz, level {}", level.0)
            }
            Self::Zlib { variant: Variant::Pigz { parallel: false }, level } => {
                write!(f, "pigz with one thread, level {}", level.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoder_has_a_name() {
        let all: Vec<_> = Deflate::candidates(None);
        assert!(all.len() > 20);
        for (n, deflate) in all.iter().enumerate() {
            let mut name = Vec::new();
            deflate.write(&mut name);
            assert_eq!(Deflate::read(&mut &name[..]).unwrap(), *deflate);
            assert!(!all[..n].contains(deflate), "{deflate} twice");
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        for name in
            [[0; 4], [1, 0, 0, 10], [1, 1, 0, 6], [2, 0, 0, 100], [3, 99, 0, 5], [3, 1, 31, 5], [255; 4]]
        {
            assert!(matches!(Deflate::read(&mut &name[..]), Err(Error::Format(_))), "{name:?}");
        }
    }
}
