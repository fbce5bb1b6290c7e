//! What is said about a bucket in settings.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};

/// The smallest part that services take, except for the last of an object.
pub(crate) const SMALLEST_PART: u64 = 5 << 20;
/// The largest part: it is in memory while it is sent.
pub(crate) const LARGEST_PART: u64 = 1 << 30;

/// Where bytes are when they are in a bucket of an S3 service, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct BucketOptions {
    /// The bucket's name.
    pub bucket: String,
    /// What the names of all objects begin with, without a slash at either end; may be empty.
    pub prefix: String,
    /// Scheme, host and port of the service; `None` is Amazon's for the region. Without TLS only when it says `http`.
    pub endpoint: Option<String>,
    /// The region that requests are signed for; `None` is what the environment says, or `us-east-1`.
    pub region: Option<String>,
    /// Whether the bucket stands in the path of addresses and not in the host.
    pub path_style: bool,
    /// Who asks.
    pub credentials: Credentials,
    /// Certificates in PEM that are trusted besides those of the system.
    pub ca: Option<Vec<u8>>,
    /// How many bytes one part has when an object is sent in parts; 5 MiB to 1 GiB. 10,000 parts is what services take.
    pub part_size: u64,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long an answer, or the next bytes of one, may take.
    pub timeout: Duration,
    /// How often a request is repeated that failed in a way that may pass.
    pub retries: usize,
    /// After this time it is repeated no more.
    pub retry_for: Duration,
    /// How many bytes the parts that are being sent may take in memory, all together.
    pub memory: u64,
    /// How many bytes the local copies of objects may take that the delta engine works on.
    pub scratch: u64,
}

/// Who asks a service.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// What is found first: the variables `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, a web identity
    /// (`AWS_WEB_IDENTITY_TOKEN_FILE`), those of a container, the role of the instance.
    Environment,
    /// A profile of a file in the form of `~/.aws/credentials`, which is read again when it changes.
    File {
        /// The file.
        path: PathBuf,
        /// The section; `default` is usual.
        profile: String,
    },
    /// An access key.
    Key {
        /// Its public part.
        id: String,
        /// Its secret part.
        secret: String,
    },
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Environment => f.write_str("Environment"),
            Self::File { path, profile } => write!(f, "File({}, {profile})", path.display()),
            Self::Key { id, .. } => write!(f, "Key({id})"),
        }
    }
}

impl BucketOptions {
    /// A bucket with everything else as it usually is.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: String::new(),
            endpoint: None,
            region: None,
            path_style: false,
            credentials: Credentials::Environment,
            ca: None,
            part_size: 16 << 20,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(20),
            retries: 4,
            retry_for: Duration::from_secs(10),
            memory: 128 << 20,
            scratch: 20 << 30,
        }
    }

    /// Fails with [`Error::Unusable`] when it makes no sense.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |text: String| Err(Error::Unusable(text));
        if !(SMALLEST_PART..=LARGEST_PART).contains(&self.part_size) {
            return wrong(format!(
                "a part has {SMALLEST_PART} to {LARGEST_PART} bytes, not {}",
                self.part_size
            ));
        }
        match &self.endpoint {
            Some(endpoint) if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") => {
                wrong(format!("{endpoint} is no address of a service; it begins with https:// or http://"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the service is spoken to without TLS.
    pub(super) fn is_plain(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"))
    }

    /// The endpoint, with the bucket in its host where it belongs there.
    pub(super) fn endpoint_for_requests(&self) -> Option<String> {
        let endpoint = self.endpoint.as_deref()?.trim_end_matches('/');
        match endpoint.split_once("://") {
            Some((scheme, host)) if !self.path_style => Some(format!("{scheme}://{}.{host}", self.bucket)),
            _ => Some(endpoint.to_owned()),
        }
    }
}
