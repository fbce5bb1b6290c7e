//! What an index here names and what is not served all the same: whether it may be fetched, and what is said if it
//! cannot be.

use std::fmt;

use deltaport_oci::platform::{self, Filter};
use deltaport_oci::{Digest, Platform, Reference, RepositoryName};
use deltaport_store as store;
use serde_json::{Value, json};

use super::{EVERYTHING, children};
use crate::pull::Pulled;
use crate::{Error, Registry, Result};

/// How many indexes are asked what a manifest is in them, the most recently stored first.
const MAX_INDEXES: usize = 8;
/// How many images are asked what a blob is for.
const MAX_IMAGES: usize = 4;

/// Something that an index here names, itself or with an image, and that cannot be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// What was asked for.
    pub digest: Digest,
    /// Whether that is a blob of an image, and not its manifest.
    pub blob: bool,
    /// What the image is for, if the index says it.
    pub platform: Option<Platform>,
    /// Why it cannot be served.
    pub reason: Reason,
}

/// Why something is not served that an index names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was never pushed.
    Missing,
    /// Its platform is not wanted of the upstream.
    ByPolicy,
    /// It was here and was removed on purpose.
    Evicted,
    /// The upstream does not have it.
    AbsentUpstream,
    /// The upstream cannot be reached.
    Offline,
}

impl Reason {
    /// One word, for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::ByPolicy => "by-policy",
            Self::Evicted => "evicted",
            Self::AbsentUpstream => "absent-upstream",
            Self::Offline => "offline",
        }
    }
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (&self.platform, self.blob) {
            (Some(platform), false) => format!("{platform} of this image"),
            (Some(platform), true) => format!("a blob of this image for {platform}"),
            (None, false) => "this part of the image".to_owned(),
            (None, true) => "a blob of this part of the image".to_owned(),
        };
        match self.reason {
            Reason::Missing => write!(f, "{what} was never pushed here"),
            Reason::ByPolicy => write!(f, "{what} is not kept here: only some platforms are"),
            Reason::Evicted => write!(f, "{what} was removed here"),
            Reason::AbsentUpstream => write!(f, "the upstream registry does not have {what}"),
            Reason::Offline => {
                write!(f, "{what} is not here, and the upstream registry cannot be reached; try again later")
            }
        }
    }
}

impl Absent {
    /// The facts, for programs.
    pub(crate) fn detail(&self) -> Value {
        let platform = self.platform.as_ref().map(ToString::to_string);
        json!({ "digest": self.digest, "platform": platform, "reason": self.reason.as_str() })
    }
}

/// Something that is not here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lost<'a> {
    Manifest(&'a Digest),
    Blob(&'a Digest),
}

/// What something is in the indexes of its repository.
#[derive(Debug)]
struct Standing {
    platform: Option<Platform>,
    /// Whether it is wanted of the upstream.
    wanted: bool,
}

impl Registry {
    /// A manifest that is not here, from the upstream if there is one and it is wanted.
    pub(crate) async fn absent_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Pulled> {
        self.check_wanted(repository, Lost::Manifest(digest)).await?;
        let reference = Reference::Digest(*digest);
        let error = match self.fill_manifest(repository, &reference, None).await {
            Ok(Some(pulled)) => return Ok(pulled),
            Ok(None) => Error::ManifestUnknown(reference),
            Err(error) => error,
        };
        Err(self.explain(repository, Lost::Manifest(digest), error).await)
    }

    /// Fails with [`Error::Absent`] when something that is not here belongs to nothing but images that are not wanted of
    /// the upstream.
    pub(crate) async fn check_wanted(&self, repository: &RepositoryName, lost: Lost<'_>) -> Result<()> {
        let source = self.0.upstreams.source(repository);
        let Some(policy) = source.as_ref().map(|source| &source.remote.platforms) else { return Ok(()) };
        if policy.is_all() {
            return Ok(());
        }
        match self.standing(repository, lost, policy).await? {
            Some(Standing { wanted: false, platform }) => Err(absent(lost, platform, Reason::ByPolicy)),
            _ => Ok(()),
        }
    }

    /// What to say when something that is not here cannot be had because of `error`: more than that, if it belongs to an
    /// index here. Then it is not found even where the upstream could only not be asked, so that clients ask elsewhere.
    pub(crate) async fn explain(&self, repository: &RepositoryName, lost: Lost<'_>, error: Error) -> Error {
        let offline = error.is_offline();
        if !offline && !matches!(error, Error::ManifestUnknown(_) | Error::BlobUnknown(_)) {
            return error;
        }
        // Who looks for the reason of a failure and fails has the first failure to tell.
        let Ok(Some(standing)) = self.standing(repository, lost, &EVERYTHING).await else { return error };
        if offline {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::info!(%repository, ?lost, cause, "content of a sparse index cannot be fetched");
        }
        let reason = if offline { Reason::Offline } else { self.reason(repository, lost).await };
        absent(lost, standing.platform, reason)
    }

    async fn reason(&self, repository: &RepositoryName, lost: Lost<'_>) -> Reason {
        let mirrors = self.0.upstreams.source(repository).is_some();
        let noted = match lost {
            Lost::Manifest(digest) => self.store().names().absence(repository, digest).await.ok().flatten(),
            Lost::Blob(_) => None,
        };
        match noted {
            // Where it would have been fetched again, it was not evicting that made it impossible.
            Some(store::Absence::Evicted) if !mirrors => Reason::Evicted,
            Some(_) => Reason::AbsentUpstream,
            None if mirrors => Reason::AbsentUpstream,
            None => Reason::Missing,
        }
    }

    /// What something is in the indexes of its repository; `None` when none names it, or when an image needs it that
    /// stands by itself.
    async fn standing(
        &self,
        repository: &RepositoryName,
        lost: Lost<'_>,
        policy: &Filter,
    ) -> Result<Option<Standing>> {
        let images = match lost {
            Lost::Manifest(digest) => vec![*digest],
            Lost::Blob(blob) => self.store().names().images_with(repository, blob, MAX_IMAGES).await?,
        };
        let mut best: Option<Standing> = None;
        for image in images {
            let Some(standing) = self.standing_of_manifest(repository, &image, policy).await? else {
                return Ok(None);
            };
            if best.as_ref().is_none_or(|best| !best.wanted && standing.wanted) {
                best = Some(standing);
            }
        }
        Ok(best)
    }

    async fn standing_of_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        policy: &Filter,
    ) -> Result<Option<Standing>> {
        let mut best: Option<Standing> = None;
        for index in self.store().names().indexes_with(repository, digest, MAX_INDEXES).await? {
            let Some(index) = self.stored(repository, &index).await? else { continue };
            let Some(view) = self.view_of(&index) else { continue };
            let children = children(&view, policy);
            for child in children.iter().filter(|child| child.descriptor.digest == *digest) {
                // What is said about an image is for the platform of the image.
                let named = match child.role {
                    platform::Role::Attestation(about) => {
                        children.iter().find(|image| image.descriptor.digest == about).unwrap_or(child)
                    }
                    _ => child,
                };
                if best.as_ref().is_none_or(|best| !best.wanted && child.kept) {
                    let platform =
                        named.descriptor.platform.clone().filter(|platform| !platform.is_unknown());
                    best = Some(Standing { platform, wanted: child.kept });
                }
            }
        }
        Ok(best)
    }
}

fn absent(lost: Lost<'_>, platform: Option<Platform>, reason: Reason) -> Error {
    let (digest, blob) = match lost {
        Lost::Manifest(digest) => (*digest, false),
        Lost::Blob(digest) => (*digest, true),
    };
    Error::Absent(Box::new(Absent { digest, blob, platform, reason }))
}
