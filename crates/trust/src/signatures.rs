//! The signature gate: whether an image may enter, by its signatures and a policy.
//!
//! Whoever brings an image in asks twice. [`Policy::demand`] says whether signatures are needed at all; if so, they are
//! fetched, which costs kilobytes: the manifest under [`signature_tag`] and the referrers with one of the
//! [`ARTIFACT_TYPES`], of the image and of the indexes that it is in, then the blobs that [`layers`] asks for.
//! [`Policy::judge`] gives the verdict, also of what could not be had (a [`DocumentError`] is a [`Document`] too). Only then is anything of the image itself fetched or shown.
//!
//! ```
//! # use deltaport_trust::signatures::{Demand, Image, ImageName, Policy};
//! # use std::time::{Duration, SystemTime};
//! let policy = Policy::read(br#"{"default": [{"type": "reject"}]}"#, |path| Err(format!("no {path} here")))?;
//! let name = ImageName::parse("registry.example/team/app:1.0")?;
//! let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse()?;
//! let Demand::Nothing(verdict) = policy.demand(Image { name: &name, digest, within: &[] }) else { unreachable!() };
//! assert!(!verdict.is_accepted());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Signatures say who made an image, not that it is the newest one: an old image with its old signature is as well
//! signed as it was when it was new.

mod bundle;
mod calendar;
mod certificate;
pub(crate) mod der;
mod document;
mod encoding;
mod image_name;
pub(crate) mod json;
mod judge;
mod key;
mod log;
mod payload;
mod policy;
mod trusted_root;
mod verdict;

pub use bundle::{BUNDLE_TYPE, BundleError, MAX_BUNDLE_LEN, MAX_ENTRIES};
pub use certificate::{CertificateError, MAX_AUTHORITIES, MAX_CHAIN, MAX_PEM_LEN};
pub use document::{
    ARTIFACT_TYPES, Document, DocumentError, Layer, MAX_DOCUMENTS, MAX_MANIFEST_LEN, layers, signature_tag,
};
pub use image_name::{ImageName, ImageNameError};
pub use json::{JsonError, MAX_DEPTH, MAX_VALUES};
pub use judge::{Demand, Image, MAX_WORK};
pub use key::{KeyError, MAX_KEY_LEN, MAX_SIGNATURE_LEN, PublicKey};
pub use log::{LogError, MAX_ENTRY_LEN};
pub use payload::{MAX_PAYLOAD_LEN, MAX_SUBJECTS, PayloadError};
pub use policy::{
    MAX_KEYS, MAX_POLICY_LEN, MAX_REQUIREMENTS, MAX_SCOPES, Policy, PolicyError, Problem, Scope,
};
pub use trusted_root::{MAX_INSTANCES, MAX_TRUSTED_ROOT_LEN, TrustedRootError};
pub use verdict::{Accepted, Ground, Reason, Refused, Signature, Signer, Time, Verdict};
