//! The container: what a delta says about itself, in front of its sections.
//!
//! `docs/delta-format.md` describes every byte; a test fails when one changes without the other. Fields are written one
//! by one in network byte order, never as a Rust struct, and the same delta is always written as the same bytes.

pub(crate) mod codec;
mod header;
mod sections;

pub use header::{Base, Blob, Form, Header, Kind, inspect};
pub use sections::{MAX_TABLE, Sections};

/// The media type of a layer delta.
pub const MEDIA_TYPE: &str = "application/vnd.deltaport.layer-delta.v1";

/// The first bytes of every delta. The first is no ASCII and the line feed is one that text conversions damage, so a
/// delta that went through one is refused at once.
pub(crate) const MAGIC: [u8; 8] = *b"\x89dpdlta\n";

/// The version of the layout after the magic. The first one carried a zstd frame with the bases as its prefix, the second
/// had no outlines, the third no regions in bulk; they were in no release.
pub(crate) const VERSION: u8 = 4;

/// How many bases a delta may be made from. Each costs the applying side an open file and a digest to compute.
pub const MAX_BASES: usize = 16;

/// How large any blob or stream that a header speaks of may be: 1 TiB. Far above any real layer, and low enough that
/// sums over all bases cannot overflow.
pub const MAX_SIZE: u64 = 1 << 40;
