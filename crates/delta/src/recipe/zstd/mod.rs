//! The zstd encoders of klauspost/compress and libzstd.
