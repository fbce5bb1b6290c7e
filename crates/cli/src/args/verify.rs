//! What `deltaport verify` is told.

use std::path::PathBuf;

use deltaport_trust::signatures::ImageName;

use super::Layers;

/// Say whether a policy lets an image in, by its signatures
///
/// The policy is podman's (containers-policy.json(5), docs/trust.md). The image and
/// its signatures are in an OCI image layout, as cosign save, skopeo and oras write
/// it: under the tag sha256-….sig, or as referrers. Nothing else is asked.
///
///   deltaport verify oci:DIR:1.0 --policy policy.json --name r.example/app:1.0
///
/// Of an index, every image in it is judged too; a signature of the index counts for
/// them.
///
/// Exits with 0 when everything is accepted, with 1 when something is refused, with 2
/// when the arguments make no sense, with 3 when it could not be said.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Verify {
    /// The image, as oci:DIR[:TAG]
    #[arg(value_name = "IMAGE")]
    pub(crate) image: Layers,
    /// The policy, such as /etc/containers/policy.json
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: PathBuf,
    /// What the image is called where it comes from, such as registry.example/team/app:1.0 [default: TAG, if it is such a
    /// name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<ImageName>,
    /// Accept signatures that do not say for which image they were made: bundles of cosign 3
    #[arg(long)]
    pub(crate) accept_nameless: bool,
    /// Write JSON: {"accepted": ..., "manifests": [{"digest": ..., "accepted": ..., "scope": ..., "reason": {...}}]}
    #[arg(long)]
    pub(crate) json: bool,
}
