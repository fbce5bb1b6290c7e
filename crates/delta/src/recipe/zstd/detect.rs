//! Which encoder wrote a frame: what its header rules out, and then a trial on the start of the content.

use super::super::Encode;
use super::klauspost::{Framing, Klauspost, Level, PEEKED, Release};
use super::libzstd::{Length, Libzstd, Settings};

/// An encoder, and how it was called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Candidate {
    /// klauspost/compress.
    Klauspost(Release, Level, Framing),
    /// libzstd.
    Libzstd(Settings),
}

/// How much content every candidate is tried on, in bytes. Those that pass are tried on all that there is.
const FIRST_TRIAL: usize = 512 << 10;

/// How many bytes of a frame two unlike encoders do not write in the same way by chance.
const PROOF: usize = 4 << 10;

/// The levels of libzstd, the likeliest first.
const LEVELS: [i32; 19] = [3, 19, 1, 9, 6, 2, 4, 5, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18];

/// libzstd leaves content below this to one thread, if it knows the length.
const MIN_THREADED: u64 = 512 << 10;

impl Candidate {
    /// The same for content of that many bytes, if the encoder is told how many there are.
    pub(crate) fn with_len(self, len: u64) -> Self {
        match self {
            Self::Klauspost(release, level, Framing::Whole(_)) => {
                Self::Klauspost(release, level, Framing::Whole(len))
            }
            Self::Klauspost(..) => self,
            Self::Libzstd(settings) => {
                let length = match settings.length {
                    Length::Unknown => Length::Unknown,
                    Length::Stated(_) => Length::Stated(len),
                    Length::Unstated(_) => Length::Unstated(len),
                };
                Self::Libzstd(Settings { length, ..settings })
            }
        }
    }

    /// The same, and before it the same with a stream: klauspost/compress makes no difference between the two for content
    /// of one block.
    pub(crate) fn also_as_stream(self) -> impl Iterator<Item = Self> {
        let stream = match self {
            Self::Klauspost(release, level, Framing::Whole(_)) => {
                Some(Self::Klauspost(release, level, Framing::Stream))
            }
            _ => None,
        };
        stream.into_iter().chain([self])
    }

    /// The encoder; `None` when there is no memory for it.
    pub(crate) fn encoder(self) -> Option<Box<dyn Encode>> {
        Some(match self {
            Self::Klauspost(release, level, framing) => Box::new(Klauspost::new(release, level, framing)),
            Self::Libzstd(settings) => Box::new(Libzstd::new(&settings)?),
        })
    }

    /// How much memory C code takes for it; see [`Settings::memory`].
    pub(crate) fn memory(self, content: u64, blob: u64) -> u64 {
        match self {
            Self::Klauspost(..) => 0,
            Self::Libzstd(settings) => settings.memory(content, blob),
        }
    }

    /// How much the encoder writes for the start of the content, and whether that is all. `None` when it is not what
    /// the frame starts with.
    fn try_on(self, frame: &[u8], content: &[u8], size: u64) -> Option<Trial> {
        let mut encoder = self.encoder()?;
        let mut out = Vec::new();
        let matches = |out: &[u8]| frame.starts_with(&out[..out.len().min(frame.len())]);
        for piece in content.chunks(64 << 10) {
            encoder.write(piece, &mut out);
            if !matches(&out) {
                return None;
            }
        }
        let complete = content.len() as u64 == size;
        if complete {
            encoder.finish(&mut out);
        }
        matches(&out).then_some(Trial { written: out.len().min(frame.len()), complete })
    }
}

/// What came of a trial.
struct Trial {
    written: usize,
    complete: bool,
}

/// Tries candidates, and says whether one of them is as good as proven.
fn retain(candidates: &mut Vec<Candidate>, frame: &[u8], content: &[u8], size: u64) -> bool {
    let mut proven = false;
    for trial in [&content[..content.len().min(FIRST_TRIAL)], content] {
        proven = false;
        candidates.retain(|candidate| {
            let result = candidate.try_on(frame, trial, size);
            proven |= result.as_ref().is_some_and(|trial| trial.complete || trial.written >= PROOF);
            result.is_some()
        });
    }
    proven
}

/// The encoders that may have written a frame, the likeliest first.
///
/// `frame` is the start of the frame, `content` the start of what it contains, and `size` the length of the content in
/// bytes. More of both rules out more; of each group of releases that write the same, only one is named. libzstd's
/// threads write nothing before they have some MiB, up to 64 at the highest levels: with less content than that, they
/// cannot be ruled out. That a candidate is right is known only when it has written the whole frame.
pub(crate) fn detect(frame: &[u8], content: &[u8], size: u64) -> Vec<Candidate> {
    let Some(header) = Header::read(frame) else { return Vec::new() };
    let content = &content[..content.len().min(usize::try_from(size).unwrap_or(usize::MAX))];
    let mut candidates = klauspost(frame, &header, size);
    if retain(&mut candidates, frame, content, size) {
        return candidates;
    }
    let mut others = libzstd(frame, &header, content, size);
    retain(&mut others, frame, content, size);
    candidates.extend(others);
    candidates
}

/// The candidates whose header is that of the frame.
fn klauspost(frame: &[u8], header: &Header, size: u64) -> Vec<Candidate> {
    if size == 0 {
        let framings = [Framing::Stream, Framing::Whole(0)];
        let levels = [Level::Default, Level::Fastest];
        let all = levels.iter().flat_map(|level| framings.map(|framing| (*level, framing)));
        return all.map(|(level, framing)| Candidate::Klauspost(Release::V1_18_5, level, framing)).collect();
    }
    let stream = if header.starts_with_raw_block_of(PEEKED.min(usize::try_from(size).unwrap_or(PEEKED))) {
        Framing::PeekedStream
    } else {
        Framing::Stream
    };
    let mut candidates = Vec::new();
    for level in [Level::Default, Level::Best, Level::Better, Level::Fastest] {
        for release in groups(level) {
            let fits = |framing| {
                let candidate = Candidate::Klauspost(*release, level, framing);
                frame.starts_with(&Klauspost::header(*release, level, framing)).then_some(candidate)
            };
            candidates.extend([stream, Framing::Whole(size)].into_iter().filter_map(fits));
        }
    }
    candidates
}

/// The releases that differ at a level, the likeliest first.
fn groups(level: Level) -> &'static [Release] {
    use Release::{
        V1_15_9, V1_15_10, V1_15_13, V1_16_1, V1_16_4, V1_17_0, V1_17_3, V1_17_5, V1_17_6, V1_17_8,
    };
    match level {
        Level::Fastest | Level::Default => &[V1_17_8, V1_15_10, V1_17_0, V1_16_4],
        Level::Better => &[V1_17_8, V1_15_10, V1_17_5, V1_17_3, V1_17_0, V1_16_4, V1_15_9],
        Level::Best => &[V1_17_8, V1_15_10, V1_17_6, V1_17_5, V1_17_3, V1_17_0, V1_16_4, V1_16_1, V1_15_13],
    }
}

/// The candidates whose header is that of the frame.
fn libzstd(frame: &[u8], header: &Header, content: &[u8], size: u64) -> Vec<Candidate> {
    let lengths: &[Length] =
        if header.states_size { &[Length::Stated(size)] } else { &[Length::Unknown, Length::Unstated(size)] };
    let mut candidates = Vec::new();
    for length in lengths {
        for level in LEVELS {
            let settings = Settings { level, length: *length, checksum: header.checksum, threads: false };
            let written = Libzstd::start(&settings, content).unwrap_or_default();
            let own = Header::read(&written);
            if !own.is_some_and(|own| frame.starts_with(&written[..own.len])) {
                continue;
            }
            if *length == Length::Unknown || size > MIN_THREADED {
                candidates.push(Candidate::Libzstd(Settings { threads: true, ..settings }));
            }
            candidates.push(Candidate::Libzstd(settings));
        }
    }
    candidates
}

/// What the header of a frame says (RFC 8878, section 3.1.1.1).
struct Header {
    /// The length of the header in bytes.
    len: usize,
    checksum: bool,
    states_size: bool,
    /// The header of the first block, if it is known.
    block: Option<[u8; 3]>,
}

impl Header {
    /// `None` for what is no frame, and for frames with a dictionary.
    fn read(frame: &[u8]) -> Option<Self> {
        let descriptor = *frame.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?.first()?;
        let single = descriptor & 1 << 5 != 0;
        if descriptor & 0b1011 != 0 {
            return None;
        }
        let size_len = match descriptor >> 6 {
            0 => usize::from(single),
            code => 1 << code,
        };
        let len = 5 + usize::from(!single) + size_len;
        let block = frame.get(len..).and_then(<[u8]>::first_chunk).copied();
        let checksum = descriptor & 1 << 2 != 0;
        (frame.len() >= len).then_some(Self { len, checksum, states_size: size_len > 0, block })
    }

    /// Whether the first block is raw, has that size, and is not the last.
    fn starts_with_raw_block_of(&self, size: usize) -> bool {
        self.block == Some([(size << 3) as u8, 0, 0])
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::vectors;
    use super::*;

    /// A frame of the candidate, and what is made of it when both are known so far.
    fn detected(candidate: Candidate, content: &[u8], known: usize) -> Vec<Candidate> {
        let frame = vectors::encode(&mut *candidate.encoder().unwrap(), content, 1 << 20);
        detect(&frame[..frame.len().min(known)], &content[..known.min(content.len())], content.len() as u64)
    }

    fn mixed() -> Vec<u8> {
        vectors::family("zstd").iter().find(|vector| vector.input == "mixed.bin").unwrap().content()
    }

    #[test]
    fn klauspost_is_found() {
        let content = mixed();
        for framing in [Framing::Stream, Framing::PeekedStream, Framing::Whole(content.len() as u64)] {
            for (release, level) in [
                (Release::V1_17_8, Level::Fastest),
                (Release::V1_17_8, Level::Default),
                (Release::V1_15_10, Level::Default),
                (Release::V1_15_10, Level::Better),
            ] {
                let candidate = Candidate::Klauspost(release, level, framing);
                let found = detected(candidate, &content, 700_000);
                assert!(found.contains(&candidate), "{candidate:?}: {found:?}");
                let levels =
                    |found: &Candidate| matches!(found, Candidate::Klauspost(_, l, _) if *l == level);
                assert!(found.iter().all(levels), "{candidate:?}: {found:?}");
            }
        }
    }

    #[test]
    fn libzstd_is_found() {
        let content = &mixed()[..300_000];
        for (level, length) in
            [(1, Length::Unknown), (3, Length::Stated(300_000)), (9, Length::Unstated(300_000))]
        {
            let candidate =
                Candidate::Libzstd(Settings { level, length, checksum: level > 1, threads: false });
            let found = detected(candidate, content, content.len());
            assert!(found.contains(&candidate), "{candidate:?}: {found:?}");
        }
    }

    #[test]
    fn small_content_is_found() {
        for size in [0, 1, 8, 9, 300, 1024, 5000] {
            let content = &mixed()[..size];
            for framing in [Framing::PeekedStream, Framing::Whole(size as u64)] {
                let candidate = Candidate::Klauspost(Release::V1_18_5, Level::Default, framing);
                let found = detected(candidate, content, 10_000);
                let frame = vectors::encode(&mut *candidate.encoder().unwrap(), content, 1 << 20);
                let again =
                    found.first().map(|found| vectors::encode(&mut *found.encoder().unwrap(), content, 99));
                assert_eq!(again, Some(frame), "{size} {framing:?}");
            }
        }
    }

    #[test]
    fn what_is_no_frame_has_no_candidates() {
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x68, 0, 0, 0];
        for len in 0..6 {
            assert!(detect(&frame[..len], b"content", 7).is_empty());
        }
        let dictionary = [0x28, 0xb5, 0x2f, 0xfd, 0x05, 0x68, 1, 0, 0, 0];
        assert!(detect(&dictionary, b"content", 7).is_empty());
        assert!(detect(b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"content", 7).is_empty());
    }
}
