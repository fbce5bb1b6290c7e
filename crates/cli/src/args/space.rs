//! What the commands are told that are about room on the disk.

use super::Place;

/// Show what takes the room: each repository, alone and shared with others, and what else there is
///
/// What a repository has alone is what the disk would have more without it. Blobs that
/// several repositories hold are counted once in the total. May be given while deltaport
/// runs on these data; changes nothing.
///
///   deltaport usage
///   deltaport usage --config deltaport.toml --json
///
/// Exits with 0 when it was shown, with 1 when there are no data that can be read.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Usage {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Write JSON, with sizes in bytes: {"repositories": [{"repository": ..., "alone": ..., "shared": ...}], ...}
    #[arg(long)]
    pub(crate) json: bool,
}

/// Take back the room of what is not needed, now
///
/// Does once what a running deltaport does every `collect.interval`: evicts what came
/// from upstreams and is more than `space` in the configuration allows, the least
/// recently used first, and removes what nothing has referred to for `collect.grace`.
/// Upstreams are asked whether they still have what is to go; nothing goes that could not
/// be fetched again.
///
/// When `deltaport serve` runs on these data, that server does it, with its own
/// configuration; otherwise --config says what is in effect, or the defaults do.
///
/// Exits with 0 when it was done, with 1 when it was not, or when more room is taken
/// than `space` allows and nothing more can be evicted now.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Gc {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Write JSON: {"ok": ..., "evicted": {"images": ..., "bytes": ..., ...}, "collected": {"blobs": ..., "bytes": ...}}
    #[arg(long)]
    pub(crate) json: bool,
}
