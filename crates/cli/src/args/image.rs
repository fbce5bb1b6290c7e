//! What the commands are told that look at an image in a deltaport.

use clap::Subcommand;
use deltaport_oci::platform::Pattern;

use super::{Access, ImageName};

/// Show what a deltaport has of an image, fetch what is missing, or remove platforms
///
/// An index is kept byte for byte even where images that it names are not here: its
/// digest and its signatures stay right. These commands tell and change which of its
/// images are here. They ask the deltaport that serves the image, which must be
/// running; that may be on this machine or another.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Image {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    Show(ImageShow),
    Complete(ImageComplete),
    Prune(ImagePrune),
}

/// Show what is here of an image, what is not, and why
///
///   deltaport image show 127.0.0.1:5000/docker.io/library/debian:12
///
/// Asks no upstream and changes nothing. For every image that an index names:
///
///   present          it is here; with two sizes, so much of so much
///   missing          nobody has asked for it or pushed it yet
///   by policy        its platform is not among those wanted of the upstream
///   evicted          it was here and was removed on purpose
///   absent upstream  the upstream does not have it either
///
/// Where there is a policy (docs/signatures.md), what it has decided about each
/// manifest: accepted or refused, by which part, with whose key, and when.
///
/// What is missing or evicted is fetched when a client asks for it, if it comes from
/// an upstream that can be reached.
///
/// Exits with 0 when the image is here, whole or in part, with 1 otherwise.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ImageShow {
    /// The image, as HOST[:PORT]/REPOSITORY:TAG or HOST[:PORT]/REPOSITORY@DIGEST
    #[arg(value_name = "IMAGE")]
    pub(crate) image: ImageName,
    #[command(flatten)]
    pub(crate) access: Access,
    /// Write JSON: {"repository": ..., "root": {"digest": ..., "state": ..., "children": [{"platform": ..., ...}]}}
    #[arg(long)]
    pub(crate) json: bool,
}

/// Fetch what is missing of an image from where it came
///
///   deltaport image complete 127.0.0.1:5000/docker.io/library/debian:12
///   deltaport image complete HOST/REPOSITORY:TAG --platform linux/arm64
///
/// Also what is not wanted of the upstream otherwise (`platforms` in [[upstream]]),
/// and what was pruned. Waits until everything is there; interrupted, it goes on where
/// it was when it is given again. Needs the rights to pull and to push.
///
/// Exits with 0 when everything is here that there is: what the upstream does not have
/// is told, and is a failure only when its platform was asked for. Exits with 1 when
/// something could not be fetched, or the image has nothing for a platform.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ImageComplete {
    /// The image, as HOST[:PORT]/REPOSITORY:TAG or HOST[:PORT]/REPOSITORY@DIGEST
    #[arg(value_name = "IMAGE")]
    pub(crate) image: ImageName,
    /// Only for this platform, such as linux/arm64, linux/arm/v7 or linux/*; may be repeated [default: all of them]
    #[arg(long = "platform", value_name = "PLATFORM")]
    pub(crate) platforms: Vec<Pattern>,
    #[command(flatten)]
    pub(crate) access: Access,
    /// Write JSON: {"tree": {...}, "failed": [{"digest": ..., "platform": ..., "why": ...}]}
    #[arg(long)]
    pub(crate) json: bool,
}

/// Remove an image's platforms, and keep its index as it is
///
///   deltaport image prune HOST/REPOSITORY:TAG --platform linux/arm64
///
/// The images for these platforms go, with their attestations; their layers follow
/// when the collector finds them unused (`collect.grace`). What another tag leads to
/// stays. What came from an upstream is fetched again when a client asks for it;
/// WHAT WAS PUSHED HERE COMES BACK ONLY WHEN IT IS PUSHED AGAIN. Needs the rights to
/// pull and to delete.
///
/// Exits with 0 when it was done, also when nothing was left to remove, with 1
/// otherwise, such as when the image has nothing for a platform.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ImagePrune {
    /// The image, as HOST[:PORT]/REPOSITORY:TAG or HOST[:PORT]/REPOSITORY@DIGEST
    #[arg(value_name = "IMAGE")]
    pub(crate) image: ImageName,
    /// The platform to remove, such as linux/arm64, linux/arm/v7 or windows/*; may be repeated
    #[arg(long = "platform", value_name = "PLATFORM", required = true)]
    pub(crate) platforms: Vec<Pattern>,
    #[command(flatten)]
    pub(crate) access: Access,
    /// Write JSON: {"tree": {...}, "evicted": [...], "kept": [...], "bytes": ..., "upstream": ...}
    #[arg(long)]
    pub(crate) json: bool,
}
