//! How requests are spelled (distribution-spec, "Endpoints"), for the end that serves and the end that asks.

mod query;
mod range;
mod route;

pub use query::Query;
pub use range::{ByteRange, ContentRange, ContentRangeError, MAX_RANGES, Ranges};
pub use route::{Route, RouteError, is_rule};

/// Header: the digest of the content of a response.
pub const DOCKER_CONTENT_DIGEST: &str = "docker-content-digest";
/// Header: the size in bytes of the delta that a redirect leads to, so that the asker can weigh it against the whole
/// layer without another round trip. An extension of deltaport's.
pub const DELTA_SIZE: &str = "deltaport-delta-size";
/// Query: up to how many bytes a delta may be the answer to the question for it, in place of a redirect to it. An
/// extension of deltaport's.
pub const INLINE: &str = "inline";
/// Header: the subject that a pushed manifest was recognised to refer to.
pub const OCI_SUBJECT: &str = "oci-subject";
/// Header: a tag that was set along with a manifest pushed by digest.
pub const OCI_TAG: &str = "oci-tag";
/// Header: which filters a list of referrers has been through.
pub const OCI_FILTERS_APPLIED: &str = "oci-filters-applied";
/// Header: the source registry that a proxied answer stands for.
pub const OCI_NAMESPACE: &str = "oci-namespace";
