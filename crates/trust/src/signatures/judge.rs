//! The judgement: an image, the signatures that were found for it, and the policy, at a moment.

use std::time::SystemTime;

use deltaport_oci::Digest;

use super::bundle::{Bundle, Entry};
use super::certificate::{Moment, Signer as Certificates, Verified};
use super::document::{Content, Document, MAX_DOCUMENTS};
use super::encoding;
use super::image_name::ImageName;
use super::key::{PublicKey, Scheme};
use super::log::{self, About};
use super::payload::{self, Claim};
use super::policy::{Authority, LogKey, Policy, Requirement, Scope, Signed};
use super::verdict::{Accepted, Ground, Reason, Refused, Signature, Signer, Time, Verdict};

/// The most signatures over payloads that are verified for one image; a chain of certificates counts as
/// sixteen. It takes some tens of milliseconds to reach, and no honest image does.
pub const MAX_WORK: usize = 256;
/// How much of [`MAX_WORK`] a chain of certificates takes.
const CHAIN_WORK: usize = 16;

/// An image that wants to enter.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// What it is called where it comes from. Without a tag it is being asked for by digest.
    pub name: &'a ImageName,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The indexes that it is known to be in, because their verified bytes list its digest, directly or through
    /// another index. A signature of one of them counts as one of the image.
    pub within: &'a [Digest],
}

/// What is needed for a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nothing: this is it.
    Nothing(Verdict),
    /// The signatures of the image and of the indexes that it is in.
    Signatures,
}

impl Policy {
    /// Says what has to be fetched for a verdict on an image. A policy that accepts or rejects everything in a scope
    /// needs no signatures.
    pub fn demand(&self, image: Image<'_>) -> Demand {
        let (scope, requirements) = self.scope(image.name, &image.digest);
        let decides = |requirement: &Requirement| !matches!(requirement, Requirement::Signed(_));
        let never = |requirement: &Requirement| {
            matches!(requirement, Requirement::Reject | Requirement::Unsupported(_))
        };
        if requirements.iter().all(decides) || requirements.iter().any(never) {
            // Signatures that are not looked at cannot change it, nor can the time.
            let refusals: Vec<_> = requirements.iter().filter(|requirement| never(requirement)).collect();
            let all: Vec<_> = requirements.iter().collect();
            let few = if refusals.is_empty() { all } else { refusals };
            return Demand::Nothing(judge(scope, &few, image, &[], SystemTime::UNIX_EPOCH, false));
        }
        Demand::Signatures
    }

    /// Says whether an image may enter, given its signatures. `now` is the time that certificates of one's own
    /// infrastructure have to be valid at.
    ///
    /// Every requirement of the scope has to be met, each by any one of the signatures.
    pub fn judge(&self, image: Image<'_>, signatures: &[Document], now: SystemTime) -> Verdict {
        let (scope, requirements) = self.scope(image.name, &image.digest);
        let requirements: Vec<_> = requirements.iter().collect();
        judge(scope, &requirements, image, signatures, now, self.accepts_nameless())
    }
}

fn judge(
    scope: Scope,
    requirements: &[&Requirement],
    image: Image<'_>,
    signatures: &[Document],
    now: SystemTime,
    nameless: bool,
) -> Verdict {
    let mut court = Court { image, now, nameless, work: MAX_WORK };
    let mut grounds = Vec::with_capacity(requirements.len());
    for requirement in requirements {
        let ground = match requirement {
            Requirement::Nothing => Ok(Ground::Anything),
            Requirement::Reject => Err(vec![Reason::Rejected]),
            Requirement::Unsupported(kind) => Err(vec![Reason::Unsupported(kind)]),
            Requirement::Signed(signed) => court.find(signed, signatures),
        };
        match ground {
            Ok(ground) => grounds.push(ground),
            Err(reasons) => return Verdict::Refused(refused(scope, reasons)),
        }
    }
    Verdict::Accepted(Accepted { scope, grounds })
}

/// Puts the reason of the signature that came nearest in front.
fn refused(scope: Scope, mut others: Vec<Reason>) -> Refused {
    let furthest = others.iter().map(Reason::progress).max().unwrap_or_default();
    let reason = match others.iter().position(|reason| reason.progress() == furthest) {
        Some(index) => others.remove(index),
        None => Reason::Unsigned,
    };
    Refused { scope, reason, others }
}

/// What stays the same while the signatures of an image are looked at, and how much may still be done.
struct Court<'a> {
    image: Image<'a>,
    now: SystemTime,
    nameless: bool,
    work: usize,
}

/// A signature that was taken apart, but not verified.
struct Exhibit {
    scheme: Scheme,
    payload: Vec<u8>,
    /// The bytes that were signed.
    signed: Vec<u8>,
    signature: Vec<u8>,
    claim: Claim,
    certificates: Option<Certificates>,
    entries: Vec<Entry>,
}

impl Court<'_> {
    /// Finds a signature that meets a requirement; fails with what is wrong with each.
    fn find(&mut self, signed: &Signed, signatures: &[Document]) -> Result<Ground, Vec<Reason>> {
        if signatures.len() > MAX_DOCUMENTS {
            return Err(vec![Reason::TooMany(signatures.len())]);
        }
        let mut reasons = Vec::new();
        for document in signatures {
            match self.examine(signed, document) {
                Ok(ground) => return Ok(ground),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(reasons)
    }

    /// Says whether a signature meets a requirement.
    ///
    /// What it is about is looked at first, because that is cheap: signatures of other images cost no verification.
    /// It counts only once the signature was verified.
    fn examine(&mut self, wanted: &Signed, document: &Document) -> Result<Ground, Reason> {
        let exhibit = Exhibit::of(document, &wanted.authority, !wanted.logs.is_empty())?;
        let (digest, name) = self.subject(&exhibit.claim)?;
        let (signer, logged) = match &wanted.authority {
            Authority::Keys(keys) => self.by_key(&exhibit, keys, &wanted.logs)?,
            Authority::Pki(_) | Authority::Fulcio(_) => self.by_certificate(&exhibit, wanted)?,
        };
        self.check_name(wanted, name.as_deref())?;
        let time = match (logged, exhibit.claim.time) {
            (Some(time), _) => Time::Logged(time),
            (None, Some(time)) => Time::Claimed(time),
            (None, None) => Time::Unknown,
        };
        Ok(Ground::Signature(Box::new(Signature { signer, digest, name, time })))
    }

    /// Which of the manifests that would do the signature is about, and what it calls it.
    fn subject(&self, claim: &Claim) -> Result<(Digest, Option<String>), Reason> {
        let does = |digest: &Digest| *digest == self.image.digest || self.image.within.contains(digest);
        match claim.subjects.iter().find(|(digest, _)| does(digest)) {
            Some(subject) => Ok(subject.clone()),
            // A claim has a subject.
            None => Err(claim
                .subjects
                .first()
                .map_or(Reason::Unsigned, |(digest, _)| Reason::OtherManifest(*digest))),
        }
    }

    fn by_key(
        &mut self,
        exhibit: &Exhibit,
        keys: &[PublicKey],
        logs: &[LogKey],
    ) -> Result<(Signer, Option<SystemTime>), Reason> {
        for key in keys {
            self.spend(1)?;
            if key.verifies(exhibit.scheme, &exhibit.signed, &exhibit.signature) {
                let time = match logs {
                    [] => None,
                    _ => Some(self.logged(exhibit, key.spki(), logs)?),
                };
                return Ok((Signer::Key { key: key.id() }, time));
            }
        }
        Err(Reason::WrongKey)
    }

    fn by_certificate(
        &mut self,
        exhibit: &Exhibit,
        wanted: &Signed,
    ) -> Result<(Signer, Option<SystemTime>), Reason> {
        let certificates = exhibit.certificates.as_ref().ok_or(Reason::NoCertificate)?;
        self.spend(CHAIN_WORK)?;
        let (verified, subject, time) = match &wanted.authority {
            Authority::Keys(_) => return Err(Reason::NoKey),
            Authority::Pki(pki) => {
                let moment = Moment { time: self.now, called: "now" };
                let verified = pki.anchors.verify(certificates, moment)?;
                if let Some(email) = &pki.email {
                    verified.is_for_email(email)?;
                }
                if let Some(hostname) = &pki.hostname {
                    verified.is_for_host(hostname)?;
                }
                (verified, pki.email.as_ref().or(pki.hostname.as_ref()), None)
            }
            Authority::Fulcio(fulcio) => {
                let time = self.logged(exhibit, &certificates.leaf, &wanted.logs)?;
                let moment = Moment { time, called: "when the transparency log took the signature" };
                let verified = fulcio.anchors.verify(certificates, moment)?;
                verified.is_vouched_for_by(&fulcio.issuer)?;
                verified.is_for_email(&fulcio.email)?;
                (verified, Some(&fulcio.email), Some(time))
            }
        };
        signed_with(&verified, exhibit)?;
        let fingerprint = Digest::sha256(&certificates.leaf);
        let subject = subject.cloned().unwrap_or_default();
        Ok((Signer::Certificate { fingerprint, subject }, time))
    }

    /// When a transparency log took the signature of `signer`.
    fn logged(&mut self, exhibit: &Exhibit, signer: &[u8], logs: &[LogKey]) -> Result<SystemTime, Reason> {
        self.spend(logs.len())?;
        let about = About { signer, signature: &exhibit.signature, payload: &exhibit.payload };
        Ok(log::verify(&exhibit.entries, logs, about, self.now)?)
    }

    fn check_name(&self, wanted: &Signed, name: Option<&str>) -> Result<(), Reason> {
        let Some(name) = name else {
            return if self.nameless { Ok(()) } else { Err(Reason::Nameless) };
        };
        let by_digest;
        let image = if self.image.name.is_repository() {
            by_digest = self.image.name.by_digest(self.image.digest);
            &by_digest
        } else {
            self.image.name
        };
        let accepted = ImageName::parse(name).is_ok_and(|signed| wanted.identity.accepts(image, &signed));
        if accepted { Ok(()) } else { Err(Reason::OtherName(name.to_owned())) }
    }

    fn spend(&mut self, work: usize) -> Result<(), Reason> {
        self.work = self.work.checked_sub(work).ok_or(Reason::TooMuchWork)?;
        Ok(())
    }
}

/// Fails unless the key of a certificate made the signature.
fn signed_with(verified: &Verified<'_>, exhibit: &Exhibit) -> Result<(), Reason> {
    if verified.key.verifies(exhibit.scheme, &exhibit.signed, &exhibit.signature) {
        Ok(())
    } else {
        Err(Reason::NotByCertificate)
    }
}

impl Exhibit {
    /// Takes a document apart, as far as the requirement wants it: what is not used is not read.
    fn of(document: &Document, authority: &Authority, logged: bool) -> Result<Self, Reason> {
        let certified = !matches!(authority, Authority::Keys(_));
        match &document.0 {
            Content::Unreadable(error) => Err(error.clone().into()),
            Content::Simple { payload, signature, certificate, chain, promise } => {
                let signature = signature.as_deref().and_then(encoding::base64).ok_or(Reason::NoSignature)?;
                let claim = payload::simple(payload)?;
                let certificates = match certificate {
                    Some(leaf) if certified => {
                        Some(Certificates::from_pem(leaf.as_bytes(), chain.as_ref().map(String::as_bytes))?)
                    }
                    _ => None,
                };
                let entries = match promise {
                    Some(promise) if logged => vec![log::annotation(promise)?],
                    _ => Vec::new(),
                };
                Ok(Self {
                    scheme: Scheme::Simple,
                    payload: payload.clone(),
                    signed: payload.clone(),
                    signature,
                    claim,
                    certificates,
                    entries,
                })
            }
            Content::Bundle(text) => {
                let bundle = Bundle::read(text)?;
                if bundle.certificate.is_some() && !certified {
                    return Err(Reason::NoKey);
                }
                Ok(Self {
                    scheme: Scheme::Bundle,
                    signed: bundle.signed(),
                    claim: payload::statement(&bundle.payload)?,
                    payload: bundle.payload,
                    signature: bundle.signature,
                    certificates: bundle.certificate.map(Certificates::from_der),
                    entries: bundle.entries,
                })
            }
        }
    }
}
