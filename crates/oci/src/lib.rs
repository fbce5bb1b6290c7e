//! What the words of the OCI specifications mean: digests, names, manifests, and how they are spelled on the wire.
//!
//! This crate turns bytes and header values into typed values and back. It is the one vocabulary of deltaport, for
//! the end that serves and for the end that asks, so that the two can never drift apart. It does no input or output,
//! reads no clock and starts nothing.
//!
//! Two rules shape it:
//!
//! - **Bytes are the truth.** [`manifest::View`] reads what it needs out of a manifest; nothing here writes one.
//! - **Parse, do not validate.** A [`Digest`], a [`RepositoryName`] or a [`Tag`] that exists is well formed, so a path
//!   that is built from one stays inside its directory.

pub mod delta_artifact;
mod descriptor;
mod digest;
mod error_code;
pub mod manifest;
pub mod media_type;
mod name;
pub mod platform;
pub mod wire;

pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, DigestError, Hasher, HasherState};
pub use error_code::ErrorCode;
pub use name::{MAX_NAME_LEN, MAX_TAG_LEN, NameError, Reference, RepositoryName, Tag};
pub use platform::Platform;
