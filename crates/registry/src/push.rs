//! Pushing manifests, and deleting: what changes which names a repository has.

use bytes::Bytes;
use deltaport_oci::{Digest, Reference, RepositoryName, Tag, manifest};
use deltaport_store as store;

use crate::{Error, Registry, Result, Validate};

/// A manifest that somebody pushes.
#[derive(Clone, Debug)]
pub struct NewManifest {
    /// Under which name it is pushed.
    pub reference: Reference,
    /// Tags to set along with it.
    pub tags: Vec<Tag>,
    /// Its media type, without parameters.
    pub media_type: String,
    /// The bytes, as received.
    pub bytes: Bytes,
}

/// A manifest that is durable under all its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutManifest {
    /// Its digest.
    pub digest: Digest,
    /// The digest of the manifest that it refers to.
    pub subject: Option<Digest>,
}

impl Registry {
    /// Stores a manifest and points its tags at it, all of it or nothing.
    ///
    /// Fails when the bytes are not a manifest, do not have the digest they are pushed under, exceed a limit, or refer
    /// to content that is missing and that [`Options::validate`](crate::Options::validate()) asks for.
    pub async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: NewManifest,
    ) -> Result<PutManifest> {
        self.check_own(repository)?;
        let limits = &self.options().limits;
        let NewManifest { reference, mut tags, media_type, bytes } = manifest;
        if bytes.len() > limits.manifest_bytes {
            return Err(Error::ManifestTooLarge { limit: limits.manifest_bytes });
        }
        let digest = match reference {
            Reference::Digest(expected) => {
                let actual = Digest::of(expected.algorithm(), &bytes);
                if actual != expected {
                    return Err(Error::DigestMismatch { expected, actual });
                }
                expected
            }
            Reference::Tag(tag) => {
                tags.push(tag);
                Digest::sha256(&bytes)
            }
        };
        if tags.len() > limits.tags_per_put {
            return Err(Error::TooManyTags { limit: limits.tags_per_put });
        }
        let depth = manifest::Limits { depth: limits.json_depth, descriptors: limits.references };
        let view = manifest::View::parse(&media_type, &bytes, depth)?;
        let required = required(&view, self.options().validate(repository));
        let subject = view.subject.as_ref().map(|subject| subject.digest);
        let stored = store::NewManifest { digest, bytes, view, tags: tags.clone(), required };
        self.store().names().put_manifest(repository, stored).await?;
        self.judge_push(repository, &digest, &tags, subject.as_ref()).await;
        self.prepare_moved(repository, tags, digest);
        self.metrics().manifests_pushed.inc();
        Ok(PutManifest { digest, subject })
    }

    /// Removes a tag; by digest, a manifest and every tag on it.
    ///
    /// Fails with [`Error::ManifestUnknown`] when it is not there.
    pub async fn delete_manifest(&self, repository: &RepositoryName, reference: &Reference) -> Result<()> {
        let names = self.store().names();
        let deleted = match reference {
            Reference::Digest(digest) => names.delete_manifest(repository, digest).await?,
            Reference::Tag(tag) => names.delete_tag(repository, tag).await?,
        };
        if deleted { Ok(()) } else { Err(Error::ManifestUnknown(reference.clone())) }
    }

    /// Removes a blob from the repository. Other repositories keep it.
    ///
    /// Fails with [`Error::BlobUnknown`] when it is not there.
    pub async fn delete_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<()> {
        let deleted = self.store().names().unlink_blob(repository, digest).await?;
        if deleted { Ok(()) } else { Err(Error::BlobUnknown(*digest)) }
    }
}

/// What must be in the repository before a manifest is taken.
fn required(view: &manifest::View, validate: &Validate) -> Vec<Digest> {
    let children = view.manifests.iter().filter(|child| match (validate, &child.platform) {
        (Validate::Platforms(wanted), Some(platform)) => wanted.matches(platform),
        _ => true,
    });
    match validate {
        Validate::None => Vec::new(),
        Validate::All | Validate::Platforms(_) => {
            let mut digests: Vec<_> =
                view.blobs().chain(children).map(|descriptor| descriptor.digest).collect();
            digests.sort_unstable();
            digests.dedup();
            digests
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltaport_oci::{media_type, platform};

    fn descriptor(content: &str, platform: &str) -> String {
        let digest = Digest::sha256(content.as_bytes());
        format!(r#"{{"mediaType":"x/y","digest":"{digest}","size":1{platform}}}"#)
    }

    fn view(media_type: &str, json: &str) -> manifest::View {
        manifest::View::parse(media_type, json.as_bytes(), manifest::Limits::DEFAULT).expect("a manifest")
    }

    fn platforms(text: &str) -> Validate {
        let patterns = text.split(' ').map(|one| one.parse().expect("a platform")).collect();
        Validate::Platforms(platform::Filter::new(patterns))
    }

    #[test]
    fn an_index_needs_the_children_that_are_validated() {
        let amd64 = descriptor("amd64", r#","platform":{"os":"linux","architecture":"amd64"}"#);
        let arm64 =
            descriptor("arm64", r#","platform":{"os":"linux","architecture":"arm64","variant":"v8"}"#);
        let unspecific = descriptor("any", "");
        let json = format!(r#"{{"schemaVersion":2,"manifests":[{amd64},{arm64},{unspecific}]}}"#);
        let view = view(media_type::OCI_INDEX, &json);
        let mut digests = ["amd64", "arm64", "any"].map(|content| Digest::sha256(content.as_bytes()));
        let without = |content: &str| {
            let mut digests = digests.to_vec();
            digests.retain(|digest| *digest != Digest::sha256(content.as_bytes()));
            digests.sort_unstable();
            digests
        };
        assert_eq!(required(&view, &Validate::None), []);
        assert_eq!(required(&view, &platforms("linux/amd64")), without("arm64"));
        assert_eq!(required(&view, &platforms("linux/arm64")), without("amd64"));
        assert_eq!(required(&view, &platforms("*/arm64")), without("amd64"));
        digests.sort_unstable();
        assert_eq!(required(&view, &Validate::All), digests);
        assert_eq!(required(&view, &platforms("linux/amd64 linux/arm64")), digests);
    }

    #[test]
    fn an_image_needs_its_blobs_once_each_and_never_its_subject() {
        let (config, subject) = (descriptor("config", ""), descriptor("subject", ""));
        let json =
            format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{config}],"subject":{subject}}}"#);
        let view = view(media_type::OCI_MANIFEST, &json);
        for validate in [Validate::All, platforms("linux/amd64")] {
            assert_eq!(required(&view, &validate), [Digest::sha256(b"config")]);
        }
        assert_eq!(required(&view, &Validate::None), []);
    }
}
