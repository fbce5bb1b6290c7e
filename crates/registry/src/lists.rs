//! Lists: repositories, tags, referrers.

use deltaport_oci::{Descriptor, Digest, RepositoryName, Tag};
use deltaport_trust::{Action, Caller};

use crate::{Error, Page, Registry, Result};

/// How large one page of referrers may grow, in bytes of descriptors: what every client takes as a manifest.
/// Annotations are copied into the list, so a count alone would be no limit.
const REFERRERS_BYTES: usize = 4 << 20;
/// How many referrers are read at once, so that a page that ends by size has not read many more.
const REFERRERS_BATCH: usize = 32;

impl Registry {
    /// The repositories that `caller` may pull from, in byte order, behind `last`.
    pub async fn repositories(
        &self,
        caller: &Caller,
        last: Option<&str>,
        n: Option<usize>,
    ) -> Result<Page<RepositoryName>> {
        let limit = self.page(n);
        let mut page = Page { items: Vec::new(), more: false };
        let mut last = last.map(str::to_owned);
        if limit == 0 {
            return Ok(page);
        }
        // Enough for a caller who may see all; more each time for one who may not see most.
        let mut batch = limit.saturating_add(1);
        loop {
            batch = batch.min(self.options().limits.page);
            let found = self.store().names().repositories(last.as_deref(), batch).await?;
            batch = batch.saturating_mul(4);
            last = found.items.last().map(|name| name.as_str().to_owned());
            for name in found.items {
                if !self.may(caller, Action::Pull, &name) {
                    continue;
                }
                // Whether there is more is asked of what the caller may see: the page after this one is never empty.
                if page.items.len() == limit {
                    page.more = true;
                    return Ok(page);
                }
                page.items.push(name);
            }
            if !found.more || last.is_none() {
                return Ok(page);
            }
        }
    }

    /// The tags of a repository in byte order, behind `last`.
    ///
    /// Fails with [`Error::NameUnknown`] when there is no such repository.
    pub async fn tags(
        &self,
        repository: &RepositoryName,
        last: Option<&str>,
        n: Option<usize>,
    ) -> Result<Page<Tag>> {
        let limit = self.page(n);
        let names = self.store().names();
        let page = if limit == 0 {
            let exists = names.repository_exists(repository).await?;
            exists.then_some(Page { items: Vec::new(), more: false })
        } else {
            names.tags(repository, last, limit).await?
        };
        page.ok_or_else(|| Error::NameUnknown(repository.clone()))
    }

    /// The manifests of a repository whose subject is `subject`, by digest, behind `last`; of one kind when
    /// `artifact_type` is given. Empty when the repository or the subject does not exist.
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: Option<&Digest>,
        n: Option<usize>,
    ) -> Result<Page<Descriptor>> {
        let limit = self.page(n);
        let mut page = Page { items: Vec::new(), more: false };
        let (mut last, mut bytes) = (last.copied(), 0);
        while page.items.len() < limit {
            let batch = REFERRERS_BATCH.min(limit - page.items.len());
            let names = self.store().names();
            let found = names.referrers(repository, subject, artifact_type, last.as_ref(), batch).await?;
            page.more = found.more;
            for descriptor in found.items {
                bytes += size(&descriptor);
                if bytes > REFERRERS_BYTES && !page.items.is_empty() {
                    page.more = true;
                    return Ok(page);
                }
                last = Some(descriptor.digest);
                page.items.push(descriptor);
            }
            if !page.more {
                break;
            }
        }
        Ok(page)
    }

    /// How many entries a page has that was asked for with `n`.
    fn page(&self, n: Option<usize>) -> usize {
        let limit = self.options().limits.page;
        n.map_or(limit, |n| n.min(limit))
    }
}

/// About how many bytes a descriptor takes in a list.
fn size(descriptor: &Descriptor) -> usize {
    let annotations: usize =
        descriptor.annotations.iter().map(|(key, value)| key.len() + value.len() + 6).sum();
    256 + descriptor.artifact_type.as_ref().map_or(0, String::len) + annotations
}
