//! What `deltaport migrate` is told.

use std::path::PathBuf;

/// Move a registry to other storage while it is served
///
/// Copies everything that is where one configuration says (`data`, `storage`) to where
/// another says: from a directory to a bucket and a PostgreSQL, back, or to another
/// directory. Every blob is proven by its digest. The registry may be served meanwhile; what
/// changes is copied in further passes. Killed, it goes on where it was when it is given
/// again.
///
/// At the end comes the switch: for some seconds the old registry takes no pushes
/// (clients are told to come again) and the last changes are copied. From then on the
/// old one only serves pulls, and the new one is complete: start it, lead clients to it,
/// and stop the old one. With --copy everything is done up to the switch, for instance
/// the day before.
///
///   deltaport migrate --from old.toml --to new.toml --copy
///   deltaport migrate --from old.toml --to new.toml
///   deltaport serve --config new.toml
///
/// Uploads and deltas that are under way at the switch are begun again by who wants them.
/// Files that configurations name (password files, certificates) are not copied.
///
/// Exits with 0 when everything asked for was done, with 1 when not: then the old
/// registry goes on as before.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Migrate {
    /// The configuration of the registry that is there
    #[arg(long, value_name = "CONFIG")]
    pub(crate) from: PathBuf,
    /// The configuration of the registry that it is to become; what that has to be empty
    #[arg(long, value_name = "CONFIG", required_unless_present = "release")]
    pub(crate) to: Option<PathBuf>,
    /// Copy, and leave the switch for another time
    #[arg(long)]
    pub(crate) copy: bool,
    /// Take the switch back: have the registry of --from take pushes again
    #[arg(long, conflicts_with_all = ["to", "copy"])]
    pub(crate) release: bool,
    /// Write JSON: {"ok": ..., "switched": ..., "held_seconds": ..., "passes": [{"blobs": ..., "bytes": ..., "put": ...}]}
    #[arg(long)]
    pub(crate) json: bool,
}
