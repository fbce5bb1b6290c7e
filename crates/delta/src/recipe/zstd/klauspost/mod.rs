//! The zstd encoder of klauspost/compress: what podman, buildah, skopeo and BuildKit write.
//!
//! Written from the algorithms of klauspost/compress (BSD-3-Clause) at the releases that [`Release`] names.

mod best;
mod better;
mod bits;
mod block;
mod default;
mod fastest;
mod fse;
mod history;
mod huffman;
mod sequences;

#[cfg(test)]
mod tests;

use self::best::Best;
use self::better::Better;
use self::block::{Block, Writer, write_raw};
use self::default::Default;
use self::fastest::Fastest;
use self::history::History;
use super::super::Encode;
use super::xxh64::Xxh64;

/// The first release of a group that writes the same bytes; a group ends where the next begins.
///
/// Most groups differ at some levels only. Releases before these are not known here.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Release {
    /// v1.15.9; streams at the two lower levels are the same from v1.14.3 on.
    V1_15_9,
    /// v1.15.10 to v1.15.12: Better lets the start of a match differ. Debian 12's tools.
    V1_15_10,
    /// v1.15.13 to v1.16.0: Best weighs matches in another order, and lets their starts differ.
    V1_15_13,
    /// v1.16.1 to v1.16.3: Best weighs in another order again.
    V1_16_1,
    /// v1.16.4 to v1.16.7: Best is rewritten, and blocks that shrink by less are compressed.
    V1_16_4,
    /// v1.17.0 to v1.17.2: 17 to 32 literals are compressed.
    V1_17_0,
    /// v1.17.3 and v1.17.4: Better and Best put other positions into their tables.
    V1_17_3,
    /// v1.17.5: Better and Best have a smaller window.
    V1_17_5,
    /// v1.17.6 and v1.17.7: Best does not extend repeats backwards.
    V1_17_6,
    /// v1.17.8 to v1.18.4: a repeated byte is found earlier.
    V1_17_8,
    /// v1.18.5 to v1.19.1: an empty content has a frame.
    V1_18_5,
}

/// How hard the encoder tries, from the least to the most.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Level {
    /// SpeedFastest, for the levels 1 and 2 of tools.
    Fastest,
    /// SpeedDefault, for 3 to 5.
    Default,
    /// SpeedBetterCompression, for 6 to 9.
    Better,
    /// SpeedBestCompression, for 10 and above.
    Best,
}

/// How the content was handed to the encoder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Framing {
    /// As a stream of unknown length.
    Stream,
    /// As a stream, of which the first [`PEEKED`] bytes came on their own: the tool had looked at them before.
    PeekedStream,
    /// At once, as that many bytes.
    Whole(u64),
}

/// How many bytes a tool looks at to know how its source is compressed.
pub(crate) const PEEKED: usize = 8;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const MIN_WINDOW: u64 = 1 << 10;

impl Level {
    /// How far back matches reach.
    fn window(self, release: Release) -> usize {
        match self {
            Self::Fastest => 4 << 20,
            Self::Better if release < Release::V1_17_5 => 16 << 20,
            Self::Best if release < Release::V1_17_5 => 32 << 20,
            Self::Default | Self::Better | Self::Best => 8 << 20,
        }
    }

    fn block_size(self) -> usize {
        match self {
            Self::Fastest => 64 << 10,
            Self::Default | Self::Better | Self::Best => 128 << 10,
        }
    }

    /// Whether a block without matches is worth a code for its literals.
    fn codes_literals_only(self, release: Release) -> bool {
        self > if release < Release::V1_16_4 { Self::Fastest } else { Self::Default }
    }
}

/// What finds the matches, by [`Level`].
#[derive(Debug)]
enum Parser {
    Fastest(Fastest),
    Default(Default),
    Better(Better),
    Best(Best),
}

impl Parser {
    fn new(release: Release, level: Level) -> Self {
        match level {
            Level::Fastest => Self::Fastest(Fastest::new()),
            Level::Default => Self::Default(Default::new()),
            Level::Better => Self::Better(Better::new(release)),
            Level::Best => Self::Best(Best::new(release)),
        }
    }

    /// Parses the next block; one that is `alone` has no history and is the last.
    fn parse(&mut self, history: &mut History, content: &[u8], alone: bool, block: &mut Block) {
        match self {
            Self::Fastest(parser) => parser.parse(history, content, alone, block),
            Self::Default(parser) => parser.parse(history, content, alone, block),
            Self::Better(parser) => parser.parse(history, content, block),
            Self::Best(parser) => parser.parse(history, content, block),
        }
    }
}

/// Writes what the encoder of klauspost/compress writes.
#[derive(Debug)]
pub(crate) struct Klauspost {
    release: Release,
    level: Level,
    /// What the encoder was told, and what it makes of that.
    asked: Framing,
    framing: Framing,
    parser: Parser,
    history: History,
    writer: Writer,
    checksum: Xxh64,
    /// The content of the next block, so far.
    pending: Vec<u8>,
    /// How long the content is, so far.
    taken: u64,
    begun: bool,
    block: Block,
}

impl Klauspost {
    pub(crate) fn new(release: Release, level: Level, framing: Framing) -> Self {
        Self {
            release,
            level,
            asked: framing,
            framing,
            parser: Parser::new(release, level),
            history: History::new(level.window(release)),
            writer: Writer::new(release, level),
            checksum: Xxh64::new(),
            pending: Vec::new(),
            taken: 0,
            begun: false,
            block: Block::default(),
        }
    }

    /// Begins another frame, after [`Encode::finish`]. This is faster than a new encoder.
    pub(crate) fn restart_as(&mut self, framing: Framing) {
        (self.asked, self.framing) = (framing, framing);
        self.history.clear();
        self.writer.clear();
        self.checksum = Xxh64::new();
        self.taken = 0;
        self.begun = false;
    }

    /// How much content the next block takes.
    fn next_size(&self) -> usize {
        match self.framing {
            Framing::PeekedStream if !self.begun => PEEKED,
            _ => self.level.block_size(),
        }
    }

    /// Whether the next block may be written when it is complete. The last block waits for [`Encode::finish`].
    fn goes_on(&self) -> bool {
        match self.framing {
            Framing::Whole(size) => self.taken < size,
            Framing::Stream | Framing::PeekedStream => true,
        }
    }

    fn write_block(&mut self, last: bool, out: &mut Vec<u8>) {
        if !self.begun {
            self.begun = true;
            self.write_header(out);
        }
        self.parse_and_write(false, last, out);
    }

    /// Writes a frame of one block.
    fn write_only_block(&mut self, out: &mut Vec<u8>) {
        self.framing = Framing::Whole(self.taken);
        self.write_header(out);
        self.parse_and_write(true, true, out);
    }

    fn parse_and_write(&mut self, alone: bool, last: bool, out: &mut Vec<u8>) {
        self.block.clear();
        self.parser.parse(&mut self.history, &self.pending, alone, &mut self.block);
        self.writer.write(&self.pending, &self.block, last, out);
        self.pending.clear();
    }

    /// The header of a frame (RFC 8878, section 3.1.1.1). That of a stream is another when all of it fits a block.
    pub(crate) fn header(release: Release, level: Level, framing: Framing) -> Vec<u8> {
        let most = level.window(release) as u64;
        let size = match framing {
            Framing::Whole(size) => size,
            Framing::Stream | Framing::PeekedStream => 0,
        };
        let single = size > MIN_WINDOW && size <= most;
        let (code, len) = match size {
            0..256 => (0, 0),
            256..65_792 => (1, 2),
            65_792..0xffff_ffff => (2, 4),
            _ => (3, 8),
        };
        let mut header = MAGIC.to_vec();
        header.push(code << 6 | u8::from(single) << 5 | 1 << 2);
        if !single {
            let window = if size == 0 || size >= most { most } else { MIN_WINDOW.max(2 << size.ilog2()) };
            header.push(((window.ilog2() - MIN_WINDOW.ilog2()) << 3) as u8);
        }
        let stored = if len == 2 { size - 256 } else { size };
        header.extend_from_slice(&stored.to_le_bytes()[..len]);
        header
    }

    fn write_header(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&Self::header(self.release, self.level, self.framing));
    }

    fn finish_empty(&mut self, out: &mut Vec<u8>) {
        if self.release < Release::V1_18_5 {
            return;
        }
        if let Framing::Whole(_) = self.framing {
            out.extend_from_slice(&MAGIC);
            out.extend_from_slice(&[1 << 5, 0]); // a single segment of no bytes, no checksum
            return write_raw(&[], true, out);
        }
        self.write_header(out);
        write_raw(&[], true, out);
        self.write_checksum(out);
    }

    fn write_checksum(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.checksum.finish().to_le_bytes()[..4]);
    }
}

impl Encode for Klauspost {
    fn write(&mut self, mut content: &[u8], out: &mut Vec<u8>) {
        while !content.is_empty() {
            let room = self.next_size() - self.pending.len();
            if room == 0 {
                // More than was announced: the frame is wrong, but it ends.
                self.write_block(false, out);
                continue;
            }
            let (taken, rest) = content.split_at(room.min(content.len()));
            self.checksum.update(taken);
            self.pending.extend_from_slice(taken);
            self.taken += taken.len() as u64;
            content = rest;
            if self.pending.len() == self.next_size() && self.goes_on() {
                self.write_block(false, out);
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.taken == 0 {
            return self.finish_empty(out);
        }
        if self.framing == Framing::PeekedStream && !self.begun {
            self.write_block(false, out);
        }
        if !self.begun {
            self.write_only_block(out);
        } else if self.pending.is_empty() {
            write_raw(&[], true, out);
        } else {
            self.write_block(true, out);
        }
        self.write_checksum(out);
    }

    fn restart(&mut self, len: u64) -> bool {
        self.restart_as(match self.asked {
            Framing::Whole(_) => Framing::Whole(len),
            other => other,
        });
        true
    }
}
