//! The steps that give content to a destination. All of it is here by then, and comes out of the store.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use deltaport_client as client;
use deltaport_client::{Begun, ErrorKind, Offered, Upload};
use deltaport_oci::manifest::View;
use deltaport_oci::wire::ByteRange;
use deltaport_oci::{Algorithm, Digest, Reference, RepositoryName, Tag, media_type};
use deltaport_store::Blob;
use futures_util::{Stream, StreamExt as _};

use super::destination::{At, Target};
use super::plan::Step;
use super::{Job, Survey};
use crate::fill::Claim;
use crate::upstream::Remote;
use crate::{Manifest, Registry};

/// How many bytes of a blob are sent in one piece, so that not more of them are sent twice after the connection or the
/// process has ended.
const PIECE: u64 = 4 << 20;
/// How often a blob that breaks off is taken up again without a new piece having arrived.
const ATTEMPTS: u32 = 4;
/// How long to wait before that the first time; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(500);
/// How many repositories are looked at that may share a blob at the destination.
const KIN: usize = 64;

/// What came of a step besides that it was taken.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Bytes that went to the destination.
    pub(super) bytes: u64,
    /// What the destination cannot hold as it is.
    pub(super) note: Option<String>,
}

/// A blob on its way to a registry.
#[derive(Clone, Copy)]
struct Parcel<'a> {
    job: &'a Job,
    target: &'a Target,
    remote: &'a Remote,
    repository: &'a RepositoryName,
    digest: &'a Digest,
    blob: &'a Blob,
    /// What it is to the link: a transfer of the rule.
    claim: &'a Claim,
    /// How many of its bytes have gone, for who watches.
    gone: &'a Arc<AtomicU64>,
}

impl Registry {
    /// Takes a step that is about the destination; `gone` says on the way how many bytes of a blob it has sent. Fails with a
    /// sentence.
    pub(super) async fn send(
        &self,
        job: &Job,
        target: &Target,
        survey: &Survey,
        step: &Step,
        gone: &Arc<AtomicU64>,
    ) -> Result<Sent, String> {
        match step {
            Step::SendBlob { digest, size } => {
                let blob = self.store().blobs().open(digest).await.map_err(|error| error.to_string())?;
                let blob = blob.ok_or_else(|| format!("{digest} is not here any more"))?;
                let bytes = match &target.at {
                    At::Layout(layout) => {
                        let file = blob.file().await.map_err(|error| error.to_string())?;
                        layout.take_blob(*digest, file).await?;
                        *size
                    }
                    At::Registry { remote, repository } => {
                        let claim = &Claim::for_mirror(job.repository.clone(), Arc::clone(&job.terms));
                        let blob = &blob;
                        let parcel = Parcel { job, target, remote, repository, digest, blob, claim, gone };
                        self.send_blob(parcel).await?
                    }
                };
                Ok(Sent { bytes, note: None })
            }
            Step::SendManifest { digest, .. } => self.send_manifest(target, survey, digest, None).await,
            Step::SendTag { digest, tag, .. } => {
                let sent = self.send_manifest(target, survey, digest, Some(tag)).await?;
                let noted =
                    self.store().names().note_mirrored(&job.rule.name, &target.place, tag, digest).await;
                noted.map_err(|error| error.to_string())?;
                Ok(sent)
            }
            _ => Ok(Sent::default()),
        }
    }

    async fn send_manifest(
        &self,
        target: &Target,
        survey: &Survey,
        digest: &Digest,
        tag: Option<&Tag>,
    ) -> Result<Sent, String> {
        let manifest = survey.manifests.get(digest).ok_or("a step is about what was not seen")?;
        let view = self.view_of(manifest).ok_or("the manifest is longer or deeper than the limits allow")?;
        let bytes = manifest.bytes.len() as u64;
        match &target.at {
            At::Layout(layout) => {
                let entry = view.subject.is_some();
                layout.take_manifest(Arc::clone(manifest), entry, tag.cloned()).await?;
                Ok(Sent { bytes, note: None })
            }
            At::Registry { remote, repository } => {
                let note = offer(remote, repository, manifest, &view, tag, survey).await?;
                Ok(Sent { bytes, note })
            }
        }
    }

    /// Gives a blob to a registry; how many bytes were sent.
    async fn send_blob(&self, parcel: Parcel<'_>) -> Result<u64, String> {
        let Parcel { target, digest, blob, claim, .. } = parcel;
        let (mut attempt, mut sent) = (0, 0);
        loop {
            claim.rested().await;
            let before = sent;
            let went = self.try_to_send(parcel, &mut sent).await;
            attempt = if sent > before { 0 } else { attempt + 1 };
            match went {
                Ok(()) => break,
                Err(_) if claim.must_rest() => {
                    tracing::debug!(place = target.place, %digest, "an upload rests until the hours of its rule");
                }
                Err(error) if may_pass(&error) && attempt < ATTEMPTS => {
                    tracing::info!(place = target.place, %digest, %error, "an upload broke off and is taken up again");
                    tokio::time::sleep(PAUSE * 2_u32.pow(attempt)).await;
                }
                Err(error) => {
                    if !may_pass(&error) {
                        self.note_upload(target, digest, None).await?;
                    }
                    return Err(error.to_string());
                }
            }
        }
        if blob.size() > PIECE {
            self.note_upload(target, digest, None).await?;
        }
        Ok(sent)
    }

    /// Goes on with an upload, or begins one; adds to `sent` what the registry has taken.
    async fn try_to_send(&self, parcel: Parcel<'_>, sent: &mut u64) -> Result<(), client::Error> {
        let Parcel { job, target, remote, repository, digest, blob, .. } = parcel;
        let (client, size) = (&remote.client, blob.size());
        let mut upload = match self.upload_begun(client, target, repository, digest, size).await? {
            Some(upload) => upload,
            None => {
                let from = self.kin(job, target, digest).await;
                match client.begin_upload(repository, digest, from.as_ref()).await? {
                    Begun::Mounted => return Ok(()),
                    Begun::Upload(upload) => upload,
                }
            }
        };
        let piece = PIECE.max(upload.least());
        while size - upload.offset() > piece {
            let unsaid = |why: String| client::Error::new(client.host().into(), ErrorKind::unavailable(why));
            self.note_upload(target, digest, Some(upload.place().to_owned())).await.map_err(unsaid)?;
            let start = upload.offset();
            let range = ByteRange { start, end: start + piece };
            upload.append(piece, || self.paced(parcel, range)).await?;
            *sent += upload.offset().saturating_sub(start);
            if upload.offset() <= start || upload.offset() > size {
                let why = "takes a piece of an upload and says that it has another".to_owned();
                return Err(client::Error::new(client.host().into(), ErrorKind::Protocol(why)));
            }
        }
        let range = ByteRange { start: upload.offset(), end: size };
        upload.finish(digest, range.len(), || self.paced(parcel, range)).await?;
        *sent += range.len();
        Ok(())
    }

    /// A part of a blob, as fast as the rule may send it. It breaks off when the hours of the rule end: what has arrived
    /// need not be sent again.
    fn paced(
        &self,
        parcel: Parcel<'_>,
        range: ByteRange,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let (link, claim) = (self.0.fills.link.clone(), parcel.claim.clone());
        let gone = Arc::clone(parcel.gone);
        gone.store(range.start, Ordering::Relaxed);
        parcel.blob.read(range).then(move |chunk| {
            let (link, claim, gone) = (link.clone(), claim.clone(), Arc::clone(&gone));
            async move {
                let chunk = chunk?;
                if claim.must_rest() {
                    return Err(io::Error::other("the hours of the rule are over"));
                }
                link.send(&claim, chunk.len() as u64).await;
                gone.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                Ok(chunk)
            }
        })
    }

    /// The upload of a blob that an earlier attempt or process has begun, if the registry still knows it.
    async fn upload_begun(
        &self,
        client: &client::Upstream,
        target: &Target,
        repository: &RepositoryName,
        digest: &Digest,
        size: u64,
    ) -> Result<Option<Upload>, client::Error> {
        // What is not known is begun anew.
        let Ok(Some(place)) = self.store().names().upload(&target.place, digest).await else {
            return Ok(None);
        };
        let upload = client.resume_upload(repository, &place).await?;
        Ok(upload.filter(|upload| upload.offset() <= size))
    }

    async fn note_upload(
        &self,
        target: &Target,
        digest: &Digest,
        place: Option<String>,
    ) -> Result<(), String> {
        let noted = self.store().names().note_upload(&target.place, digest, place).await;
        noted.map_err(|error| error.to_string())
    }

    /// Another repository of the destination that has the blob, as far as the rules tell: what is here of another rule with
    /// the same registry as its destination is there, too.
    async fn kin(&self, job: &Job, target: &Target, digest: &Digest) -> Option<RepositoryName> {
        let At::Registry { remote, repository } = &target.at else { return None };
        let holders = self.store().names().repositories_with(digest, KIN).await.ok()?;
        for rule in self.options().mirrors.iter().filter(|rule| rule.to.is_some()) {
            for holder in holders.iter().filter(|holder| **holder != job.repository) {
                let place = self.job_of(holder, &rule.name).await.ok().and_then(|other| other.to);
                if let Some(Target { at: At::Registry { remote: other, repository: kin }, .. }) = place
                    && Arc::ptr_eq(&other, remote)
                    && kin != *repository
                {
                    return Some(kin);
                }
            }
        }
        None
    }
}

/// Whether a failure may be gone after a while.
fn may_pass(error: &client::Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable { quota: false, .. })
}

/// Gives a manifest to a registry. Returns what the registry cannot hold of it as it is.
async fn offer(
    remote: &Remote,
    repository: &RepositoryName,
    manifest: &Manifest,
    view: &View,
    tag: Option<&Tag>,
    survey: &Survey,
) -> Result<Option<String>, String> {
    let (client, host) = (&remote.client, remote.client.host());
    let reference = match tag {
        Some(_) if manifest.digest.algorithm() != Algorithm::Sha256 => {
            return Err(format!("{host} would know it by another digest than {}", manifest.digest));
        }
        Some(tag) => Reference::Tag(tag.clone()),
        None => Reference::Digest(manifest.digest),
    };
    let offered =
        client.offer_manifest(repository, &reference, &manifest.media_type, manifest.bytes.clone()).await;
    match offered.map_err(|error| error.to_string())? {
        Offered::Taken { subject: Some(_) } => Ok(None),
        Offered::Taken { subject: None } => {
            let Some(subject) = view.subject.as_ref().map(|subject| subject.digest) else { return Ok(None) };
            let listed = view.referrer(manifest.digest, manifest.bytes.len() as u64);
            client.list_referrer(repository, &subject, &listed).await.map_err(|error| error.to_string())?;
            Ok(Some(format!(
                "{host} keeps no lists of referrers; they are kept under tags that are made of digests"
            )))
        }
        Offered::Refused { status, code, message } => {
            let said = match (code.as_str(), message.as_str()) {
                ("", _) => format!("answers {status}"),
                (code, "") => code.to_owned(),
                (code, message) => format!("{code}: {message}"),
            };
            let lacks = view.manifests.iter().any(|child| !survey.manifests.contains_key(&child.digest));
            Err(refusal(host, &manifest.media_type, lacks, status, &code, &said))
        }
    }
}

/// What it means that a registry refuses a manifest, and what to do about it. `sparse` is whether it is an index of which
/// not every child comes along.
fn refusal(host: &str, media_type: &str, sparse: bool, status: u16, code: &str, said: &str) -> String {
    let unknown =
        matches!(code, "MANIFEST_BLOB_UNKNOWN" | "MANIFEST_UNKNOWN" | "BLOB_UNKNOWN") || status == 404;
    if sparse && unknown {
        return format!(
            "{host} refuses an index of which not every child is there ({said}). Mirror all platforms to it, or have it \
             take sparse indexes: distribution 3 with validation.manifests.indexes.platforms: none, Quay 3.17 with \
             FEATURE_SPARSE_INDEX, olareg, or deltaport with validate = \"none\""
        );
    }
    let kind = if media_type::is_index(media_type) { "indexes" } else { "manifests" };
    match status == 415 || matches!(code, "MANIFEST_INVALID" | "UNSUPPORTED") {
        true => format!("{host} does not take {kind} of the media type {media_type} ({said})"),
        false => format!("{host} refuses the manifest ({said})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let said = |media_type, sparse, status, code: &str| {
            refusal("r.example", media_type, sparse, status, code, code)
        };
        for (status, code) in [(400, "MANIFEST_BLOB_UNKNOWN"), (404, "MANIFEST_UNKNOWN"), (404, "")] {
            let text = said(media_type::OCI_INDEX, true, status, code);
            for word in
                ["all platforms", "indexes.platforms: none", "FEATURE_SPARSE_INDEX", "olareg", "validate"]
            {
                assert!(text.contains(word), "{status} {code}: {text}");
            }
            assert!(
                !said(media_type::OCI_INDEX, false, status, code).contains("sparse"),
                "all of it came along"
            );
        }
        let text = said(media_type::OCI_INDEX, true, 400, "MANIFEST_INVALID");
        assert!(
            text.contains("does not take indexes of the media type application/vnd.oci.image.index"),
            "{text}"
        );
        let text = said(media_type::OCI_MANIFEST, false, 415, "");
        assert!(text.contains("does not take manifests of the media type"), "{text}");
    }
}
