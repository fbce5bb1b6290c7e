//! libzstd itself, as the `zstd` command and the users of its streams call it.
//!
//! What libzstd writes depends on its version, and this is the one that the `zstd` crate of the workspace contains:
//! [`VERSION`]. A blob of another version comes out right only where the output did not change in between; the tests
//! name the outputs of 1.5.4 that are still the same.

use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective as Directive;
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective};

use super::super::Encode;

/// The version of libzstd, as the library numbers it: 1.5.7.
pub(crate) const VERSION: u32 = 1_05_07;

/// How much the `zstd` command hands over at once.
const CHUNK: usize = 128 << 10;

/// What libzstd was told of the length of the content before it began.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Length {
    /// Nothing, as with a pipe.
    Unknown,
    /// The length in bytes, and the frame says it, as with a file.
    Stated(u64),
    /// The length in bytes, but the frame does not say it.
    Unstated(u64),
}

/// How libzstd was called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Settings {
    /// From 1 to 19.
    pub(crate) level: i32,
    pub(crate) length: Length,
    /// Whether the frame ends with a checksum; that of the command does.
    pub(crate) checksum: bool,
    /// Whether threads did the work. How many there were makes no difference; the command uses one, unless it is told
    /// otherwise.
    pub(crate) threads: bool,
}

impl Settings {
    /// How much memory libzstd takes, in bytes, and what it has written before that is taken away, while it makes a blob
    /// of this length of so much content. Its own estimates do not know of threads; after `lib/compress/clevels.h` and
    /// `zstdmt_compress.c` (Meta, BSD licence).
    pub(crate) fn memory(&self, content: u64, blob: u64) -> u64 {
        const MIB: u64 = 1 << 20;
        let (tables, window) = match self.level {
            17.. => (82 * MIB, 8 * MIB),
            9.. => (66 * MIB, 4 * MIB),
            _ => (16 * MIB, 2 * MIB),
        };
        if !self.threads {
            return tables + 2 * window;
        }
        // Each job is about four windows. The content of four jobs is there, and the output of three, once more when it
        // is handed over.
        let job = 4 * window;
        let share = u128::from(3 * job) * u128::from(blob) / u128::from(content.max(1));
        let waiting = blob.min(3 * job).min(u64::try_from(share).unwrap_or(u64::MAX));
        tables + window + content.min(4 * job) + 2 * waiting
    }
}

/// Writes what libzstd writes when it gets the content in pieces of 128 KiB.
pub(crate) struct Libzstd {
    context: CCtx<'static>,
    length: Option<u64>,
    /// The content of the next piece, so far.
    pending: Vec<u8>,
    /// How long the content is, so far.
    taken: u64,
    /// Whether libzstd gave up, for want of memory. What was written is then of no use.
    failed: bool,
}

impl std::fmt::Debug for Libzstd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Libzstd").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

impl Libzstd {
    /// An encoder; `None` when libzstd does not take the settings.
    pub(crate) fn new(settings: &Settings) -> Option<Self> {
        if zstd::zstd_safe::version_number() != VERSION {
            return None;
        }
        let mut context = CCtx::try_create()?;
        let length = match settings.length {
            Length::Unknown => None,
            Length::Stated(length) | Length::Unstated(length) => Some(length),
        };
        let parameters = [
            CParameter::CompressionLevel(settings.level),
            CParameter::ContentSizeFlag(!matches!(settings.length, Length::Unstated(_))),
            CParameter::ChecksumFlag(settings.checksum),
            CParameter::NbWorkers(settings.threads.into()),
        ];
        for parameter in parameters {
            context.set_parameter(parameter).ok()?;
        }
        context.set_pledged_src_size(length).ok()?;
        Some(Self { context, length, pending: Vec::new(), taken: 0, failed: false })
    }

    /// The first bytes of the frame of some content, at least its header.
    pub(crate) fn start(settings: &Settings, content: &[u8]) -> Option<Vec<u8>> {
        let mut encoder = Self::new(settings)?;
        encoder.pending.extend_from_slice(&content[..content.len().min(1)]);
        let mut out = Vec::new();
        let end = content.is_empty();
        encoder.compress(if end { Directive::ZSTD_e_end } else { Directive::ZSTD_e_flush }, &mut out);
        Some(out)
    }

    fn compress(&mut self, directive: Directive, out: &mut Vec<u8>) {
        let mut input = InBuffer::around(&self.pending);
        while !self.failed {
            out.reserve(CCtx::out_size());
            let written = out.len();
            let left = self.context.compress_stream2(
                &mut OutBuffer::around_pos(out, written),
                &mut input,
                directive,
            );
            let done = match directive {
                Directive::ZSTD_e_continue => input.pos() == self.pending.len(),
                Directive::ZSTD_e_flush | Directive::ZSTD_e_end => left == Ok(0),
            };
            self.failed = left.is_err();
            if done {
                break;
            }
        }
        self.pending.clear();
    }
}

impl Encode for Libzstd {
    fn write(&mut self, mut content: &[u8], out: &mut Vec<u8>) {
        while !content.is_empty() {
            if self.pending.len() == CHUNK {
                // More than was announced: libzstd will refuse it.
                self.compress(Directive::ZSTD_e_continue, out);
            }
            let (taken, rest) = content.split_at(content.len().min(CHUNK - self.pending.len()));
            self.pending.extend_from_slice(taken);
            self.taken += taken.len() as u64;
            content = rest;
            // When the length is known, so is which piece is the last.
            if self.pending.len() == CHUNK && self.length.is_none_or(|length| self.taken < length) {
                self.compress(Directive::ZSTD_e_continue, out);
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.length.is_none() && !self.pending.is_empty() {
            self.compress(Directive::ZSTD_e_continue, out);
        }
        self.compress(Directive::ZSTD_e_end, out);
    }

    fn restart(&mut self, len: u64) -> bool {
        self.length = self.length.map(|_| len);
        (self.taken, self.failed) = (0, false);
        self.pending.clear();
        self.context.reset(ResetDirective::SessionOnly).is_ok()
            && self.context.set_pledged_src_size(self.length).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::vectors::{self, Vector};
    use super::*;

    /// How the command of a vector calls libzstd. `None` for other ways.
    fn settings(vector: &Vector, size: u64) -> Option<Settings> {
        let (level, mode) = vector.options.strip_prefix("cli -")?.split_once(' ')?;
        let level = level.parse().unwrap();
        let file = Settings { level, length: Length::Stated(size), checksum: true, threads: true };
        Some(match mode {
            "file" | "-T2 file" => file,
            "--single-thread file" => Settings { threads: false, ..file },
            "--no-check file" => Settings { checksum: false, ..file },
            "--no-content-size file" => Settings { length: Length::Unstated(size), ..file },
            "stdin pipe (no content size)" => Settings { length: Length::Unknown, ..file },
            _ => panic!("{mode}"),
        })
    }

    fn encode(settings: &Settings, content: &[u8], piece: usize) -> Vec<u8> {
        vectors::encode(&mut Libzstd::new(settings).unwrap(), content, piece)
    }

    #[test]
    fn the_version_is_the_one_that_is_stated() {
        assert_eq!(zstd::zstd_safe::version_number(), VERSION);
    }

    #[test]
    fn the_command_of_1_5_4_is_called_in_the_same_way() {
        let mut checked = 0;
        for vector in vectors::family("zstd") {
            let content = vector.content();
            let Some(settings) = settings(&vector, content.len() as u64) else { continue };
            // What 1.5.7 does not write as 1.5.4 did.
            let changed = match vector.input {
                "mixed.bin" | "mid.bin" | "semi.bin" => true,
                "small.txt" => {
                    settings.level == 3 || (settings.level == 9 && settings.length == Length::Unknown)
                }
                _ => false,
            };
            if !changed {
                vector.assert_is(&encode(&settings, &content, 100_003));
                checked += 1;
            }
        }
        assert!(checked > 100, "{checked}");
    }

    #[test]
    fn cuts_do_not_matter() {
        let content: Vec<u8> = (0_u32..400_000).flat_map(|i| (i / 7).wrapping_mul(i).to_le_bytes()).collect();
        let size = content.len() as u64;
        for threads in [false, true] {
            for length in [Length::Unknown, Length::Stated(size), Length::Unstated(size)] {
                let settings = Settings { level: 3, length, checksum: true, threads };
                let expected = encode(&settings, &content, usize::MAX);
                assert!(zstd::decode_all(&expected[..]).unwrap() == content);
                for piece in [1009, 131_072, 131_073] {
                    assert!(encode(&settings, &content, piece) == expected, "{settings:?} {piece}");
                }
            }
        }
    }

    #[test]
    fn a_frame_does_not_depend_on_those_before() {
        let content: Vec<u8> = (0_u32..100_000).flat_map(|i| (i / 7).wrapping_mul(i).to_le_bytes()).collect();
        for (level, threads) in [(1, false), (3, true), (3, false), (9, false), (19, false)] {
            for length in [Length::Unknown, Length::Stated(0), Length::Unstated(0)] {
                let settings = |len: usize| Settings {
                    level,
                    length: match length {
                        Length::Unknown => length,
                        Length::Stated(_) => Length::Stated(len as u64),
                        Length::Unstated(_) => Length::Unstated(len as u64),
                    },
                    checksum: true,
                    threads,
                };
                let mut reused = Libzstd::new(&settings(0)).unwrap();
                for len in [300_000, 0, 1, 40_000, 200_000] {
                    assert!(reused.restart(len as u64));
                    let written = vectors::encode(&mut reused, &content[..len], 1 << 16);
                    let fresh = encode(&settings(len), &content[..len], 1 << 16);
                    assert!(written == fresh, "level {level}, {threads}, {length:?}, {len} bytes");
                }
            }
        }
    }

    #[test]
    fn a_wrong_length_is_no_panic() {
        for announced in [0, 5, 131_072, 1 << 40] {
            let settings =
                Settings { level: 1, length: Length::Stated(announced), checksum: true, threads: false };
            encode(&settings, &[1; 200_000], 1 << 16);
        }
    }
}
