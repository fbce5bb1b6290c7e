//! How a delta names an encoder of zstd.

use std::fmt;
use std::io::Read;

use super::detect::Candidate;
use super::klauspost::{Framing, Level, Release};
use super::libzstd::{Length, Settings};
use crate::error::Error;
use crate::format::codec;

/// The releases that begin a group, and their codes; a code once given stays.
const RELEASES: [(u8, Release, &str); 11] = [
    (1, Release::V1_15_9, "v1.15.9"),
    (2, Release::V1_15_10, "v1.15.10"),
    (3, Release::V1_15_13, "v1.15.13"),
    (4, Release::V1_16_1, "v1.16.1"),
    (5, Release::V1_16_4, "v1.16.4"),
    (6, Release::V1_17_0, "v1.17.0"),
    (7, Release::V1_17_3, "v1.17.3"),
    (8, Release::V1_17_5, "v1.17.5"),
    (9, Release::V1_17_6, "v1.17.6"),
    (10, Release::V1_17_8, "v1.17.8"),
    (11, Release::V1_18_5, "v1.18.5"),
];

const LEVELS: [(u8, Level, &str); 4] = [
    (1, Level::Fastest, "fastest"),
    (2, Level::Default, "default"),
    (3, Level::Better, "better"),
    (4, Level::Best, "best"),
];

const UNKNOWN: Error = Error::Format("unknown encoder; a newer deltaport may have made it");

/// What the flags of libzstd mean.
const CHECKSUM: u8 = 1;
const THREADS: u8 = 2;

impl Candidate {
    pub(crate) fn read(source: &mut impl Read) -> Result<Self, Error> {
        let [family, first, second, third] = codec::read_array(source)?;
        let size = codec::read_size(source)?;
        match family {
            1 => {
                let release = RELEASES.iter().find(|(code, ..)| *code == first).ok_or(UNKNOWN)?.1;
                let level = LEVELS.iter().find(|(code, ..)| *code == second).ok_or(UNKNOWN)?.1;
                let framing = match (third, size) {
                    (0, 0) => Framing::Stream,
                    (1, 0) => Framing::PeekedStream,
                    (2, size) => Framing::Whole(size),
                    _ => return Err(UNKNOWN),
                };
                Ok(Self::Klauspost(release, level, framing))
            }
            2 if (1..=19).contains(&first) && second <= CHECKSUM | THREADS => {
                let length = match (third, size) {
                    (0, 0) => Length::Unknown,
                    (1, size) => Length::Stated(size),
                    (2, size) => Length::Unstated(size),
                    _ => return Err(UNKNOWN),
                };
                let (checksum, threads) = (second & CHECKSUM != 0, second & THREADS != 0);
                Ok(Self::Libzstd(Settings { level: first.into(), length, checksum, threads }))
            }
            _ => Err(UNKNOWN),
        }
    }

    pub(crate) fn write(self, bytes: &mut Vec<u8>) {
        let (name, size) = match self {
            Self::Klauspost(release, level, framing) => {
                let release =
                    RELEASES.iter().find(|(_, known, _)| *known == release).map_or(0, |found| found.0);
                let level = LEVELS.iter().find(|(_, known, _)| *known == level).map_or(0, |found| found.0);
                let (framing, size) = match framing {
                    Framing::Stream => (0, 0),
                    Framing::PeekedStream => (1, 0),
                    Framing::Whole(size) => (2, size),
                };
                ([1, release, level, framing], size)
            }
            Self::Libzstd(Settings { level, length, checksum, threads }) => {
                let flags = (u8::from(checksum) * CHECKSUM) | (u8::from(threads) * THREADS);
                let (length, size) = match length {
                    Length::Unknown => (0, 0),
                    Length::Stated(size) => (1, size),
                    Length::Unstated(size) => (2, size),
                };
                ([2, level as u8, flags, length], size)
            }
        };
        bytes.extend_from_slice(&name);
        codec::write_size(bytes, size);
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Klauspost(release, level, framing) => {
                let release =
                    RELEASES.iter().find(|(_, known, _)| known == release).map_or("", |found| found.2);
                let level = LEVELS.iter().find(|(_, known, _)| known == level).map_or("", |found| found.2);
                let framing = match framing {
                    Framing::Stream => "",
                    Framing::PeekedStream => ", after a look at the first 8 bytes",
                    Framing::Whole(_) => ", all at once",
                };
                write!(f, "klauspost/compress {release}, {level}{framing}")
            }
            Self::Libzstd(Settings { level, threads, .. }) => {
                let threads = if *threads { ", with threads" } else { "" };
                write!(f, "libzstd 1.5.7, level {level}{threads}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoder_has_a_name() {
        let klauspost = RELEASES.iter().flat_map(|release| {
            let framings = [Framing::Stream, Framing::PeekedStream, Framing::Whole(7)];
            let levels = LEVELS.iter().flat_map(move |level| framings.map(|framing| (level.1, framing)));
            levels.map(|(level, framing)| Candidate::Klauspost(release.1, level, framing))
        });
        let libzstd =
            [Length::Unknown, Length::Stated(9), Length::Unstated(9)].into_iter().flat_map(|length| {
                let flags = [(false, false), (false, true), (true, false), (true, true)];
                flags.map(|(checksum, threads)| {
                    Candidate::Libzstd(Settings { level: 3, length, checksum, threads })
                })
            });
        let mut names = std::collections::HashSet::new();
        for candidate in klauspost.chain(libzstd) {
            let mut name = Vec::new();
            candidate.write(&mut name);
            assert_eq!(Candidate::read(&mut &name[..]).unwrap(), candidate);
            assert!(candidate.encoder().is_some() && names.insert(name), "{candidate}");
        }
    }
}
