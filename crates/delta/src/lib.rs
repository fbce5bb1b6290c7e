//! Old bytes and a patch make new bytes: layer deltas that restore the exact compressed blob.
//!
//! A registry names a layer by the hash of its *compressed* bytes. This crate makes a delta between two such blobs and
//! gives the newer one back bit for bit, so that digests, pins and signatures keep holding. It knows nothing of
//! registries or networks: it reads and writes only what the caller hands in and asks no clock. Threads that it starts end
//! before the call that started them returns.
//!
//! - [`create`] makes a delta, proves that it gives the target back, and says so when it is not worth sending;
//! - [`apply`] gives the target back, within [`Limits`], and fails rather than succeed with a wrong byte;
//! - [`inspect`] reads what a delta says about itself;
//! - [`token`] takes the Huffman layer off a gzip blob and puts it on again.
//!
//! The bytes of a delta are described in `docs/delta-format.md`. Every input of this crate may come from an enemy:
//! errors are fine, panics and wrong bytes are bugs.

mod apply;
mod code;
mod common;
mod content;
mod create;
mod error;
mod exec;
mod format;
#[cfg(fuzzing)]
pub mod fuzzing;
mod growing;
mod gzip;
mod matching;
mod open;
mod outline;
mod recipe;
mod stream;
mod tables;
mod tar;
pub mod token;
mod unfold;

pub use apply::{Applied, Limits, MAX_MEMORY, apply};
pub use create::{Delta, MIN_MEMORY, Options, Profile, Stage, create};
pub use error::Error;
pub use format::{
    Base, Blob, Form, Header, Kind, MAX_BASES, MAX_SIZE, MAX_TABLE, MEDIA_TYPE, Sections, inspect,
};
pub use recipe::Recipe;
