//! What `deltaport verify` is told.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use deltaport_oci::Reference;
use deltaport_trust::signatures::ImageName;

use super::remote::ImageNameError;
use super::{Access, Layers};

/// Say whether a policy lets an image in, by its signatures
///
/// The policy is podman's (containers-policy.json(5), docs/trust.md). The image is in
/// a registry, or with its signatures in an OCI image layout, as cosign save, skopeo
/// and oras write it. Signatures are looked for under the tag sha256-….sig and among
/// the referrers. Nothing else is asked.
///
///   deltaport verify r.example/app:1.0
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
    /// The image, as HOST[:PORT]/REPOSITORY:TAG, HOST[:PORT]/REPOSITORY@DIGEST or oci:DIR[:TAG]
    #[arg(value_name = "IMAGE")]
    pub(crate) image: Signed,
    /// The policy
    #[arg(long, value_name = "FILE", default_value = "/etc/containers/policy.json")]
    pub(crate) policy: PathBuf,
    /// What the image is called where it comes from, such as registry.example/team/app:1.0 [default: IMAGE; of a layout TAG,
    /// if it is such a name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<ImageName>,
    /// Accept signatures that do not say for which image they were made: bundles of cosign 3
    #[arg(long)]
    pub(crate) accept_nameless: bool,
    #[command(flatten)]
    pub(crate) access: Access,
    /// Write JSON: {"accepted": ..., "manifests": [{"digest": ..., "accepted": ..., "scope": ..., "reason": {...}}]}
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where a signed image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Signed {
    /// In an OCI image layout.
    Layout { layout: PathBuf, tag: Option<String> },
    /// In a registry, and what it is called there.
    Registry { image: super::ImageName, name: ImageName },
}

impl FromStr for Signed {
    type Err = ImageNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Layers::Image { layout, tag } = OsString::from(text).into() {
            return Ok(Self::Layout { layout, tag });
        }
        let image: super::ImageName = text.parse()?;
        let name = ImageName::parse(text).map_err(|_| ImageNameError::NoHost)?;
        // What is asked for by digest is so called, whatever tag stands in front of that.
        let name = match image.reference {
            Reference::Digest(digest) => name.by_digest(digest),
            Reference::Tag(_) => name,
        };
        Ok(Self::Registry { image, name })
    }
}
