//! Signatures as they lie in a registry: manifests whose layers are payloads or bundles.
//!
//! cosign keeps the signatures of a digest in one manifest under a tag that is made of it ([`signature_tag`]), or in
//! referrers of the manifest with one of the [`ARTIFACT_TYPES`]. Reading is in two steps, because what a layer holds is
//! fetched only when the manifest says that it is a signature and small: [`layers`] tells which blobs are wanted,
//! [`Layer::with`] takes the bytes.

use deltaport_oci::{Digest, Tag};

use super::bundle::{BUNDLE_TYPE, MAX_BUNDLE_LEN};
use super::json::{self, Fields, JsonError, Value};
use super::payload::MAX_PAYLOAD_LEN;

/// The most bytes of a manifest of signatures.
pub const MAX_MANIFEST_LEN: usize = 1 << 20;
/// The most signatures of an image that are looked at, over all manifests.
pub const MAX_DOCUMENTS: usize = 64;

/// The artifact types of the referrers that hold signatures.
pub const ARTIFACT_TYPES: [&str; 2] = [BUNDLE_TYPE, "application/vnd.dev.cosign.artifact.sig.v1+json"];
/// The media type of a layer that is a payload of simple signing.
const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const PROMISE: &str = "dev.sigstore.cosign/bundle";

/// Why a document was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The manifest is not what it has to be.
    #[error("the manifest of the signature: {0}")]
    Manifest(#[from] JsonError),
    /// A layer has no digest.
    #[error("the manifest of the signature has a layer without a digest")]
    Digest,
    /// A layer is larger than any signature is.
    #[error("the signature has {size} bytes; at most {limit} are read")]
    TooLong {
        /// How many it has.
        size: u64,
        /// How many are read.
        limit: usize,
    },
    /// The bytes are not those that the manifest names.
    #[error("the signature is not the content that its manifest names: it was changed, or cut off")]
    Content,
    /// The manifest, or the blob that it names, is not there.
    #[error("the signature is listed, but it is not there: {0}")]
    Missing(Digest),
    /// More than [`MAX_DOCUMENTS`].
    #[error("there are more than {MAX_DOCUMENTS} signatures")]
    TooMany,
}

/// The tag under which cosign and podman keep the signatures of a digest.
pub fn signature_tag(digest: &Digest) -> Option<Tag> {
    format!("{}-{}.sig", digest.algorithm(), digest.hex()).parse().ok()
}

/// A layer with a signature, whose bytes are not here yet.
#[derive(Clone, Debug)]
pub struct Layer {
    digest: Digest,
    size: u64,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Simple(Box<Annotations>),
    Bundle,
}

/// What stands beside a payload.
#[derive(Clone, Debug)]
struct Annotations {
    signature: Option<String>,
    certificate: Option<String>,
    chain: Option<String>,
    promise: Option<String>,
}

/// A signature with everything that is needed to verify it. Nothing in it is verified.
#[derive(Clone, Debug)]
pub struct Document(pub(crate) Content);

#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// A payload of simple signing with its annotations.
    Simple {
        payload: Vec<u8>,
        /// In base64.
        signature: Option<String>,
        /// In PEM.
        certificate: Option<String>,
        chain: Option<String>,
        promise: Option<String>,
    },
    /// A bundle.
    Bundle(Vec<u8>),
    /// One that could not be had.
    Unreadable(DocumentError),
}

impl From<DocumentError> for Document {
    /// A signature that could not be had: judged with the others, so that a verdict can tell of it.
    fn from(error: DocumentError) -> Self {
        Self(Content::Unreadable(error))
    }
}

impl Layer {
    /// The digest of the blob.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How many bytes the blob has: at most [`super::MAX_BUNDLE_LEN`].
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The signature, given the bytes of the blob. Fails when they are others.
    pub fn with(self, bytes: Vec<u8>) -> Result<Document, DocumentError> {
        let same_size = u64::try_from(bytes.len()) == Ok(self.size);
        if !same_size || Digest::of(self.digest.algorithm(), &bytes) != self.digest {
            return Err(DocumentError::Content);
        }
        Ok(Document(match self.kind {
            Kind::Bundle => Content::Bundle(bytes),
            Kind::Simple(annotations) => {
                let Annotations { signature, certificate, chain, promise } = *annotations;
                Content::Simple { payload: bytes, signature, certificate, chain, promise }
            }
        }))
    }
}

/// Says which layers of a manifest are signatures. One that holds something else has none.
pub fn layers(manifest: &[u8]) -> Result<Vec<Layer>, DocumentError> {
    let mut fields = json::read(manifest, MAX_MANIFEST_LEN)?.object("the manifest")?;
    let Some(list) = fields.take("layers") else { return Ok(Vec::new()) };
    let mut layers = Vec::new();
    for value in list.array("layers")? {
        if let Some(layer) = layer(value.object("the layer")?)? {
            if layers.len() == MAX_DOCUMENTS {
                return Err(DocumentError::TooMany);
            }
            layers.push(layer);
        }
    }
    Ok(layers)
}

fn layer(mut fields: Fields) -> Result<Option<Layer>, DocumentError> {
    let media_type = fields.optional_string("mediaType")?.unwrap_or_default();
    let (kind, limit) = match media_type.as_str() {
        BUNDLE_TYPE => (Kind::Bundle, MAX_BUNDLE_LEN),
        PAYLOAD_TYPE => (Kind::Simple(Box::new(annotations(fields.take("annotations"))?)), MAX_PAYLOAD_LEN),
        _ => return Ok(None),
    };
    let digest = fields.string("digest")?.parse().map_err(|_| DocumentError::Digest)?;
    let size = u64::try_from(fields.need("size")?.integer("size")?).map_err(|_| DocumentError::Digest)?;
    if usize::try_from(size).is_ok_and(|size| size <= limit) {
        Ok(Some(Layer { digest, size, kind }))
    } else {
        Err(DocumentError::TooLong { size, limit })
    }
}

fn annotations(value: Option<Value>) -> Result<Annotations, JsonError> {
    let mut fields = match value {
        None | Some(Value::Null) => Value::Object(Default::default()),
        Some(value) => value,
    }
    .object("annotations")?;
    Ok(Annotations {
        signature: fields.optional_string(SIGNATURE)?,
        certificate: fields.optional_string(CERTIFICATE)?,
        chain: fields.optional_string(CHAIN)?,
        promise: fields.optional_string(PROMISE)?,
    })
}
