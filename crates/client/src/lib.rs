//! How deltaport asks another registry.
//!
//! An [`Upstream`] is one registry of the configuration: it knows where the registry is, who we are there, and which
//! other hosts it may involve (a token service, a storage that it redirects to). It is the only way in which deltaport
//! opens a connection to another machine. It knows nothing of what is stored here and decides nothing: what to do
//! about an [`Error`] is up to the caller, and the kinds are cut by that.
//!
//! An upstream is not trusted: every body has a limit, every wait has one, manifests are checked against their digest,
//! and credentials go to the registry's own origin and its allowed token service, never to where a redirect leads.

mod address;
mod auth;
mod catalog;
mod challenge;
mod connector;
mod credentials;
mod error;
mod extensions;
mod idle;
mod image;
mod issuer_keys;
mod layer_delta;
mod mirror;
mod options;
mod push;
mod quota;
mod referrers;
mod tags;
mod transport;
mod upload;
mod upstream;

pub use credentials::{CredentialSource, Credentials};
pub use error::{Error, ErrorKind, Result};
pub use extensions::Extensions;
pub use image::{ImageAnswer, ImageRequest};
pub use issuer_keys::IssuerKeys;
pub use layer_delta::{LayerDelta, MAX_OFFERED};
pub use mirror::MirrorRequest;
pub use options::{ClientCertificate, Options, Timeouts};
pub use push::{Offered, Pushed};
pub use quota::Quota;
pub use referrers::MAX_REFERRERS;
pub use tags::MAX_TAGS;
pub use upload::{Begun, Upload};
pub use upstream::{BlobBody, MAX_MANIFEST, Manifest, ManifestHead, Upstream};
