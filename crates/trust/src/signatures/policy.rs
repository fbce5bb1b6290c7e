//! The policy: which images may enter, and signed by whom. It is read from `policy.json`
//! (containers-policy.json(5)), as podman, CRI-O and skopeo read it.
//!
//! An image is judged by where it comes from, whatever it is called here. The most specific scope counts, and only it:
//! the image with its tag or digest, its repository, the namespaces above, the registry, wildcards such as
//! `*.example.com`, `""`, and at last `default`. All requirements of the scope have to be met.
//!
//! Keys and certificates are read once, together with the file, so that a verdict costs signatures only.

mod authority;
mod identity;
mod read;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use deltaport_oci::Digest;
use serde::{Serialize, Serializer};

use super::certificate::CertificateError;
use super::image_name::ImageName;
use super::json::JsonError;
use super::key::KeyError;
use super::trusted_root::TrustedRootError;

pub(crate) use authority::{Authority, Fulcio, LogKey, Pki};
pub(crate) use identity::SignedIdentity;

/// The most bytes that a policy may have.
pub const MAX_POLICY_LEN: usize = 1 << 20;
/// The most scopes of one transport.
pub const MAX_SCOPES: usize = 4096;
/// The most requirements of one scope.
pub const MAX_REQUIREMENTS: usize = 16;
/// The most keys in one list of a requirement.
pub const MAX_KEYS: usize = 64;

/// Why a policy was refused. It is refused as a whole: a part that is not understood could be the one that forbids.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct PolicyError {
    /// Where in the policy, such as `transports.docker["registry.example"], requirement 2`.
    pub place: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The JSON is not what it has to be.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A type of requirement that does not exist.
    #[error("there is no requirement of type {0:?}")]
    UnknownRequirement(String),
    /// A type of `signedIdentity` that does not exist.
    #[error("there is no signedIdentity of type {0:?}")]
    UnknownIdentity(String),
    /// A list without requirements, of which it could not be said whether it allows all or nothing.
    #[error("the list of requirements is empty; write [{{\"type\": \"reject\"}}] to refuse everything")]
    Empty,
    /// More of something than there may be.
    #[error("there are too many {what}; at most {limit} are possible")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// Keys that exclude each other, or none of them.
    #[error("it needs exactly one of {0}")]
    NotOne(&'static str),
    /// Keys that exclude each other.
    #[error("it may have only one of {0}")]
    NotAtMostOne(&'static str),
    /// Keys that must not stand together.
    #[error("{0} does not go with {1}")]
    Together(&'static str, &'static str),
    /// Not the name of an image, a repository or a registry.
    #[error("{0:?} is not the name of an image, a repository or a registry")]
    Name(String),
    /// A name without tag and digest where one of them is needed.
    #[error("{0:?} has neither tag nor digest")]
    NoTag(String),
    /// Data that should be base64.
    #[error("{0} is not base64")]
    Base64(String),
    /// A file that the policy names could not be read.
    #[error("{path}: {reason}")]
    File {
        /// Its path, as the policy has it.
        path: String,
        /// Why.
        reason: String,
    },
    /// A public key that is not accepted.
    #[error("{what}: {error}")]
    Key {
        /// The file or the key of the policy.
        what: String,
        /// Why not.
        error: KeyError,
    },
    /// A certificate that is not accepted.
    #[error("{what}: {error}")]
    Certificate {
        /// The file or the key of the policy.
        what: String,
        /// Why not.
        error: CertificateError,
    },
    /// A trusted root that is not accepted.
    #[error("{what}: {error}")]
    TrustedRoot {
        /// The file or the key of the policy.
        what: String,
        /// Why not.
        error: TrustedRootError,
    },
    /// The key of a transparency log that is not ECDSA, or a trusted root without such a key.
    #[error("{0}: keys of transparency logs are ECDSA")]
    LogKey(String),
    /// A key type of `signedBy` that does not exist.
    #[error("there is no keyType {0:?}")]
    KeyType(String),
}

/// A [`Problem`] on its way to the place where it is known where it stands. Boxed, since it is rare and large.
pub(crate) type Fault = Box<Problem>;

/// A policy with its keys. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Policy {
    scopes: Arc<Scopes>,
    nameless: bool,
}

#[derive(Debug)]
struct Scopes {
    default: Vec<Requirement>,
    docker: BTreeMap<String, Vec<Requirement>>,
    notes: Vec<String>,
}

/// One requirement that an image has to meet.
#[derive(Debug)]
pub(crate) enum Requirement {
    /// `insecureAcceptAnything`.
    Nothing,
    /// `reject`.
    Reject,
    /// `signedBy` or `signedBaseLayer`, which cannot be checked here and so are never met.
    Unsupported(&'static str),
    /// `sigstoreSigned`.
    Signed(Box<Signed>),
}

/// `sigstoreSigned`: a signature by one of these, which gives the image such a name.
#[derive(Debug)]
pub(crate) struct Signed {
    pub(crate) authority: Authority,
    /// Transparency logs; if there are any, one of them has to have taken the signature.
    pub(crate) logs: Vec<LogKey>,
    pub(crate) identity: SignedIdentity,
}

/// Which part of a policy counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// `default`.
    Default,
    /// The scope of the transport `docker`.
    Docker(Arc<str>),
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Docker(scope) => write!(f, "transports.docker[{scope:?}]"),
        }
    }
}

impl Policy {
    /// Reads a policy. `file` is called with the paths in it, once for each time that one is there, and gives the
    /// content or says why it cannot; it may cut the content off behind [`super::MAX_KEY_LEN`] bytes and one more.
    ///
    /// Fails at the first thing that is not understood, as podman does, and for keys that podman would only miss when
    /// it needs them. Transports other than `docker` are checked for their form; nothing here comes over them.
    pub fn read<F>(json: &[u8], file: F) -> Result<Self, PolicyError>
    where
        F: FnMut(&str) -> Result<Vec<u8>, String>,
    {
        read::policy(json, file).map(|scopes| Self { scopes: Arc::new(scopes), nameless: false })
    }

    /// The same policy, with or without accepting signatures that do not say what the image is called.
    ///
    /// cosign's bundles do not, so that whoever has the key signed this manifest, but not for which repository or tag:
    /// one of the images that he signed can be put in another's place. Without this, they meet no requirement.
    #[must_use]
    pub fn accepting_nameless(self, nameless: bool) -> Self {
        Self { nameless, ..self }
    }

    /// Whether signatures count that do not say what the image is called.
    pub(crate) fn accepts_nameless(&self) -> bool {
        self.nameless
    }

    /// What an operator should know about the policy, although nothing is wrong with it: scopes that no image can have,
    /// requirements that cannot be checked here. One sentence each.
    pub fn notes(&self) -> &[String] {
        &self.scopes.notes
    }

    /// The part of the policy that counts for `image`, which is asked for by `digest` if its name has no tag.
    pub(crate) fn scope(&self, image: &ImageName, digest: &Digest) -> (Scope, &[Requirement]) {
        let docker = &self.scopes.docker;
        let found = candidates(image, digest).into_iter().find_map(|scope| docker.get_key_value(&scope));
        match found {
            Some((scope, requirements)) => (Scope::Docker(scope.as_str().into()), requirements),
            None => (Scope::Default, &self.scopes.default),
        }
    }
}

/// The scopes that an image may be in, the most specific first. The last one is `""`.
fn candidates(image: &ImageName, digest: &Digest) -> Vec<String> {
    let image = if image.is_repository() { &image.by_digest(*digest) } else { image };
    let mut scopes = vec![image.to_string()];
    let mut name = image.repository();
    scopes.push(name.to_owned());
    while let Some((parent, _)) = name.rsplit_once('/') {
        scopes.push(parent.to_owned());
        name = parent;
    }
    let mut host = name.split_once(':').map_or(name, |(host, _)| host);
    while let Some((_, domain)) = host.split_once('.') {
        scopes.push(format!("*.{domain}"));
        host = domain;
    }
    scopes.push(String::new());
    scopes
}
