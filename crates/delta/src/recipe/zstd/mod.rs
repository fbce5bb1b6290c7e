//! The zstd encoders of klauspost/compress and libzstd.

pub(crate) mod klauspost;
mod xxh64;
