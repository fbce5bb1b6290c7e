//! The signature gate: what is served has been accepted by the policy, under the name that it has where it comes from.
//!
//! There is one place where it is decided what callers get, [`Registry::admit`] for manifests and `admit_blob` for blobs
//! (`admit`). What enters is judged as early as that is possible, so that a refusal costs kilobytes: manifests of an upstream
//! before they are stored (`fill::manifests`), tags of a mirror rule before anything of them is fetched, pushes when they
//! are made. Who is judged, and how parts and wholes depend on each other, stands in `judge`; where signatures come from,
//! in `evidence`. Verdicts are kept with their manifests and given again when the policy is another (`review`).

mod admit;
mod evidence;
mod judge;
mod judged;
mod review;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use deltaport_oci::{Digest, RepositoryName, Tag};
use deltaport_trust::signatures::{ImageName, ImageNameError, Policy};

use crate::memory::Memory;
use crate::upstream::Source;
use crate::{Registry, Result};

pub(crate) use judge::Reach;
pub(crate) use judged::Judged;
pub use judged::{Refusal, Verdict};

/// How many verdicts are remembered. One takes about 500 bytes.
const MAX_KNOWN: usize = 16_384;
/// Of how many blobs it is remembered that they may be served. One takes about 200 bytes.
const MAX_BLOBS: usize = 65_536;

/// Which images are served, and how what is pushed here is called.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The policy.
    pub policy: Policy,
    /// The digest of all that the policy was made of: verdicts count for the policy under which they were given.
    pub id: Digest,
    /// The name of this registry in what is pushed to it, as whoever signs and the policy call it: a host with an
    /// optional port.
    pub name: String,
    /// Whether what is pushed is judged, too, and not only what comes from upstreams.
    pub judge_pushes: bool,
}

/// The gate: open to everything as long as there is no policy.
#[derive(Debug, Default)]
pub(crate) struct Gate(ArcSwapOption<Court>);

/// A policy, and what is known of its verdicts.
#[derive(Debug)]
pub(crate) struct Court {
    trust: Trust,
    /// By repository, digest and tag.
    known: Memory<(RepositoryName, Digest, Option<Tag>), Arc<Judged>>,
    /// Blobs of accepted manifests.
    blobs: Memory<(RepositoryName, Digest), ()>,
}

impl Gate {
    fn court(&self) -> Option<Arc<Court>> {
        self.0.load_full()
    }
}

impl Court {
    /// What an image is called where it comes from.
    fn name(
        &self,
        source: Option<&Source>,
        repository: &RepositoryName,
        tag: Option<&Tag>,
    ) -> Result<ImageName, ImageNameError> {
        match source {
            Some(source) => ImageName::new(source.remote.client.host(), &source.repository, tag.cloned()),
            None => ImageName::new(&self.trust.name, repository, tag.cloned()),
        }
    }
}

impl Registry {
    /// Lets only those images be served that a policy accepts; without one, all. What is here is judged again when it is
    /// asked for, and all of it by [`Registry::review`].
    pub fn set_trust(&self, trust: Option<Trust>) {
        let court = trust.map(|trust| {
            Arc::new(Court { trust, known: Memory::new(MAX_KNOWN), blobs: Memory::new(MAX_BLOBS) })
        });
        self.0.gate.0.store(court);
    }

    /// Whether there is a policy.
    pub(crate) fn has_policy(&self) -> bool {
        self.0.gate.0.load().is_some()
    }

    /// The policy's court for what is in `repository`; `None` when everything in it is served.
    fn court(&self, repository: &RepositoryName) -> Option<(Arc<Court>, Option<Source>)> {
        let court = self.0.gate.court()?;
        match self.0.upstreams.mirrored(repository) {
            Some(_) => Some((court, self.0.upstreams.source(repository))),
            None => court.trust.judge_pushes.then_some((court, None)),
        }
    }
}
