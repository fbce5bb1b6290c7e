//! The payload: a stream as one zstd frame that refers to the reference in front of it ("patch-from").
//!
//! This is the first matcher and the weakest. It needs the whole reference and the whole stream in memory, on both
//! sides; what replaces it gets a kind of its own.

use std::io::{self, Read, Take};

use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, DParameter, ErrorCode, InBuffer, OutBuffer, get_frame_content_size,
    zstd_sys::ZSTD_ErrorCode,
};

use crate::error::Error;
use crate::stream::{BUFFER, read_some};

/// How a frame begins. The library also reads older formats and skippable frames, which have no place here.
const FRAME_MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

/// The longest head of a frame: everything that says how large its content is.
const FRAME_HEAD: usize = 18;

/// The longest stream: what a zstd window can span, because the reference is only in reach while nothing has left the
/// window.
const MAX_STREAM: u64 = 1 << MAX_WINDOW_LOG;
const MAX_WINDOW_LOG: u32 = if cfg!(target_pointer_width = "64") { 31 } else { 30 };
const MIN_WINDOW_LOG: u32 = 10;

/// What is allocated for a reader beside the reference and the window: blocks and buffers.
pub(crate) const READER_OVERHEAD: u64 = 1 << 20;

/// The levels that are used: those whose matcher is one table of the places where each hash was seen last. The ones
/// above search in trees, which need several times the memory to reach as far back and gain a few percent.
const LEVELS: std::ops::RangeInclusive<i32> = 5..=12;

/// What the context takes beside the tables of the matcher: block buffers and statistics.
const WRITER_OVERHEAD: u64 = 12 << 20;

/// The window that holds a whole stream.
fn window_log(stream_len: u64) -> u32 {
    stream_len.next_power_of_two().ilog2().clamp(MIN_WINDOW_LOG, MAX_WINDOW_LOG)
}

/// How far back the reference is searched, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    /// For everything: the matcher's table has a place for nearly every position of the reference.
    Everything { hash_log: u32 },
    /// Near by for everything, farther off for matches of at least [`SAMPLED_MATCH`] bytes only. On a Debian update the
    /// delta grows from 7.3 to 10 % of the layer.
    Sampled { hash_log: u32 },
}

/// The matcher's table when the reference is sampled.
const NEAR_HASH_LOG: u32 = 22;

/// The shortest match that a sampled reference gives, and the logarithm of how many positions there are to a sample.
/// The default of 64 and 7 finds little: between two changed distances there often are fewer bytes than that.
const SAMPLED_MATCH: u32 = 32;
const SAMPLE_RATE_LOG: u32 = 4;

impl Search {
    /// The best search for which `memory` is enough, between a reference and a stream of `len` bytes in all.
    fn within(memory: u64, len: u64, compressed: bool) -> Option<Self> {
        // Two versions of a layer are about as long, so this is the length of the reference.
        let log = (len / 2).max(1).ilog2();
        let everything = Self::Everything { hash_log: log.clamp(17, 28) };
        let sampled = Self::Sampled { hash_log: log.saturating_sub(SAMPLE_RATE_LOG).clamp(17, 26) };
        let useful = if compressed { &[sampled][..] } else { &[everything, sampled] };
        useful.iter().copied().find(|search| search.memory() <= memory)
    }

    /// What the tables take: four bytes for a position and one of its hash, or eight for a sample.
    fn memory(self) -> u64 {
        match self {
            Self::Everything { hash_log } => 5 << hash_log,
            Self::Sampled { hash_log } => (5 << NEAR_HASH_LOG) + (9 << hash_log),
        }
    }

    fn set(self, context: &mut CCtx<'_>) -> Result<(), ErrorCode> {
        match self {
            Self::Everything { hash_log } => {
                context.set_parameter(CParameter::HashLog(hash_log))?;
            }
            Self::Sampled { hash_log } => {
                context.set_parameter(CParameter::HashLog(NEAR_HASH_LOG))?;
                context.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
                context.set_parameter(CParameter::LdmMinMatch(SAMPLED_MATCH))?;
                context.set_parameter(CParameter::LdmHashRateLog(SAMPLE_RATE_LOG))?;
                context.set_parameter(CParameter::LdmHashLog(hash_log))?;
            }
        }
        Ok(())
    }
}

/// What [`write`] may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// The zstd level.
    pub(crate) level: i32,
    /// The largest frame that is of use.
    pub(crate) most: u64,
    /// The memory for everything but the inputs.
    pub(crate) memory: u64,
    /// Whether the bytes are compressed already: then they have long matches or none, and sampling finds them all.
    pub(crate) compressed: bool,
}

/// Makes the frame of a stream, `None` when it would be larger than is of use.
///
/// `bytes` is the reference, `reference_len` bytes long, and the stream right behind it. zstd searches other and
/// better ways when the two touch, so they always do: the result must not depend on where an allocator puts things.
/// Fails with [`Error::Limit`] when the memory is not enough for any way to search.
pub(crate) fn write(bytes: &[u8], reference_len: usize, effort: &Effort) -> Result<Option<Vec<u8>>, Error> {
    let (reference, stream) = bytes.split_at(reference_len);
    let stream_len = stream.len() as u64;
    if stream_len > MAX_STREAM {
        return Err(Error::Limit { what: "a stream", limit: MAX_STREAM });
    }
    let room = effort.most.min(zstd::zstd_safe::compress_bound(stream.len()) as u64);
    let search = effort
        .memory
        .checked_sub(room.saturating_add(WRITER_OVERHEAD))
        .and_then(|left| Search::within(left, bytes.len() as u64, effort.compressed))
        .ok_or(Error::Limit { what: "the memory to compare in", limit: effort.memory })?;

    let mut context = CCtx::try_create().ok_or_else(no_memory)?;
    let level = effort.level.clamp(*LEVELS.start(), *LEVELS.end());
    context.set_parameter(CParameter::CompressionLevel(level)).map_err(not_written)?;
    context.set_parameter(CParameter::WindowLog(window_log(stream_len))).map_err(not_written)?;
    context.set_parameter(CParameter::ChecksumFlag(true)).map_err(not_written)?;
    search.set(&mut context).map_err(not_written)?;
    context.ref_prefix(reference).map_err(not_written)?;

    let mut frame = Vec::new();
    frame.try_reserve_exact(room as usize).map_err(|_| no_memory())?;
    let written = context.compress2(&mut frame, stream);
    debug_assert!(context.sizeof() as u64 <= WRITER_OVERHEAD + search.memory(), "{search:?}");
    match written {
        Ok(_) => Ok(Some(frame)),
        Err(code) if is(code, ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall) => Ok(None),
        Err(code) => Err(not_written(code)),
    }
}

/// Whether the library's error code is `error`: the codes are the negated values.
fn is(code: ErrorCode, error: ZSTD_ErrorCode) -> bool {
    code == (error as usize).wrapping_neg()
}

fn no_memory() -> Error {
    Error::Io(io::ErrorKind::OutOfMemory.into())
}

fn not_written(code: ErrorCode) -> Error {
    if is(code, ZSTD_ErrorCode::ZSTD_error_memory_allocation) {
        return no_memory();
    }
    Error::Io(io::Error::other(zstd::zstd_safe::get_error_name(code)))
}

/// Reads the stream out of its frame.
///
/// Errors of this crate come through [`Read`] inside an [`io::Error`], see [`Error::from`].
pub(crate) struct Reader<'a, R> {
    source: Take<R>,
    context: DCtx<'a>,
    input: Box<[u8]>,
    at: usize,
    end: usize,
    ended: bool,
}

impl<'a, R: Read> Reader<'a, R> {
    /// Opens the frame that is the next `payload_len` bytes of `source`.
    ///
    /// Fails unless it is a zstd frame that announces `stream_len` bytes, so that the memory which the library takes
    /// is the memory which the caller has allowed.
    pub(crate) fn open(
        source: R,
        payload_len: u64,
        reference: &'a [u8],
        stream_len: u64,
    ) -> Result<Self, Error> {
        if stream_len > MAX_STREAM {
            return Err(Error::Limit { what: "a stream", limit: MAX_STREAM });
        }
        let mut context = DCtx::try_create().ok_or_else(no_memory)?;
        context.set_parameter(DParameter::WindowLogMax(window_log(stream_len))).map_err(not_read)?;
        context.ref_prefix(reference).map_err(not_read)?;
        let mut reader = Self {
            source: source.take(payload_len),
            context,
            input: vec![0; BUFFER].into_boxed_slice(),
            at: 0,
            end: 0,
            ended: false,
        };
        reader.check_head(stream_len)?;
        Ok(reader)
    }

    fn check_head(&mut self, stream_len: u64) -> Result<(), Error> {
        while self.end < FRAME_HEAD {
            let read = read_some(&mut self.source, &mut self.input[self.end..])?;
            if read == 0 {
                break;
            }
            self.end += read;
        }
        let head = &self.input[..self.end];
        if !head.starts_with(&FRAME_MAGIC) {
            return Err(Error::Format("its payload is not a zstd frame"));
        }
        match get_frame_content_size(head) {
            Ok(Some(announced)) if announced == stream_len => Ok(()),
            _ => Err(Error::Format("its payload announces another length")),
        }
    }

    /// Gives the source back, at the first byte behind the payload; fails unless the frame is the whole payload.
    pub(crate) fn finish(mut self) -> Result<R, Error> {
        let mut one = [0];
        if !self.ended || self.at < self.end || read_some(&mut self.source, &mut one)? > 0 {
            return Err(Error::Format("its payload goes on behind its end"));
        }
        if self.source.limit() > 0 {
            return Err(Error::Format("it ends inside its payload"));
        }
        Ok(self.source.into_inner())
    }

    /// One step of the library: takes some input, gives some output, or both; `None` when it needs more input.
    fn step(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Error> {
        let mut input = InBuffer::around(&self.input[self.at..self.end]);
        let mut output = OutBuffer::around(buffer);
        let hint = self.context.decompress_stream(&mut output, &mut input).map_err(not_read)?;
        let (taken, given) = (input.pos(), output.pos());
        self.at += taken;
        self.ended = hint == 0;
        Ok((given > 0 || taken > 0 || self.ended).then_some(given))
    }

    fn read_more(&mut self) -> Result<(), Error> {
        self.at = 0;
        self.end = 0;
        self.end = read_some(&mut self.source, &mut self.input)?;
        if self.end == 0 { Err(Error::Format("its payload ends too early")) } else { Ok(()) }
    }
}

impl<R: Read> Read for Reader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !buffer.is_empty() {
            match self.step(buffer)? {
                Some(0) => {}
                Some(given) => return Ok(given),
                // The library may still hold output when the input is used up, so it is asked before more is read.
                None => self.read_more()?,
            }
        }
        Ok(0)
    }
}

fn not_read(code: ErrorCode) -> Error {
    if is(code, ZSTD_ErrorCode::ZSTD_error_memory_allocation) {
        return no_memory();
    }
    Error::Format("its payload is damaged")
}
