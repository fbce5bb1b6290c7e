//! The error codes of the distribution specification ("Error Codes", code-1 to code-14).

/// An error code, as clients see it in the `code` field of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// code-1: the blob is not in this repository.
    BlobUnknown,
    /// code-2: the upload was refused.
    BlobUploadInvalid,
    /// code-3: there is no such upload.
    BlobUploadUnknown,
    /// code-4: a digest is malformed, unsupported, or not that of the bytes.
    DigestInvalid,
    /// code-5: a manifest refers to something that is not here.
    ManifestBlobUnknown,
    /// code-6: the bytes are not a manifest.
    ManifestInvalid,
    /// code-7: no such manifest.
    ManifestUnknown,
    /// code-8: not a repository name.
    NameInvalid,
    /// code-9: no such repository.
    NameUnknown,
    /// code-10: a length is wrong.
    SizeInvalid,
    /// code-12: log in first.
    Unauthorized,
    /// code-13: logged in, but not allowed.
    Denied,
    /// code-11: the operation is not offered.
    Unsupported,
    /// code-14: too many requests.
    TooManyRequests,
    /// Not of the specification, but what every registry says: the fault is ours.
    Unknown,
    /// Not of the specification, widely used: try again later.
    Unavailable,
}

impl ErrorCode {
    /// The code on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unknown => "UNKNOWN",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}
