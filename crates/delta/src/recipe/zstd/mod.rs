//! The zstd encoders of klauspost/compress and libzstd.
//!
//! klauspost/compress is written anew here: it is what podman, buildah, skopeo and BuildKit use, and every level of
//! every release from v1.15.9 on is exact. libzstd is the library itself, at one version. [`detect::detect`] says which of
//! them may have written a frame.

pub(crate) mod detect;
pub(crate) mod klauspost;
pub(crate) mod libzstd;
mod wire;
mod xxh64;
