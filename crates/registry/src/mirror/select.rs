//! Which tags of a repository a rule is about. Pure: a list of tags goes in, a shorter one comes out.

mod pattern;
#[cfg(test)]
mod tests;
mod version;

use std::collections::BTreeSet;

use deltaport_oci::Tag;
use jiff::Timestamp;

pub use pattern::{Pattern, PatternError};
pub use version::{Range, RangeError, Version};

/// What cosign puts behind the digest of what a signature is about, in the tag of the signature.
pub(super) const COSIGN: [&str; 3] = [".sig", ".att", ".sbom"];

/// Which tags are wanted: those that fit a pattern and none of the exceptions, of these the versions in a range, and of
/// these the newest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// A tag fits one of these.
    pub patterns: Vec<Pattern>,
    /// It fits none of these.
    pub except: Vec<Pattern>,
    /// Only tags that are versions in this range.
    pub range: Option<Range>,
    /// Only so many tags.
    pub newest: Option<usize>,
    /// Which are the newest.
    pub newest_by: NewestBy,
}

/// What makes a tag newer than another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewestBy {
    /// It is a higher version. Others than versions are none of the newest.
    #[default]
    Version,
    /// Its image was made later.
    Created,
}

impl Selection {
    /// The tags themselves, where they are named one by one and nobody has to be asked which there are.
    pub fn named(&self) -> Option<BTreeSet<Tag>> {
        if self.range.is_some() || self.newest.is_some() && !self.needs_dates() {
            return None;
        }
        let tags: BTreeSet<Tag> = self.patterns.iter().map(Pattern::literal).collect::<Option<_>>()?;
        Some(tags.into_iter().filter(|tag| !self.excepts(tag)).collect())
    }

    /// Whether what [`Selection::select`] leaves is to be shortened with [`Selection::newest_of`].
    pub fn needs_dates(&self) -> bool {
        self.newest.is_some() && self.newest_by == NewestBy::Created
    }

    /// The wanted ones of `tags`, or where dates are needed, those that may be. Tags that belong to the digest of another
    /// manifest (signatures, lists of referrers) are never wanted for themselves: they come with that.
    pub fn select<'a>(&self, tags: impl IntoIterator<Item = &'a Tag>) -> BTreeSet<Tag> {
        let fits = |tag: &&Tag| {
            !belongs_to_digest(tag)
                && self.patterns.iter().any(|pattern| pattern.matches(tag))
                && !self.excepts(tag)
        };
        let fitting = tags.into_iter().filter(fits);
        let newest = self.newest.filter(|_| self.newest_by == NewestBy::Version);
        if self.range.is_none() && newest.is_none() {
            return fitting.cloned().collect();
        }
        let versions = fitting.filter_map(|tag| Some((Version::parse(tag.as_str())?, tag)));
        let in_range = |version: &Version| match &self.range {
            Some(range) => range.contains(version),
            None => !version.is_prerelease(),
        };
        let mut versions: Vec<(Version, &Tag)> = versions.filter(|(version, _)| in_range(version)).collect();
        // Of tags for the same version, the one that says more of it is meant: 1.2.0 and not 1.2.
        versions.sort_by(|(a, tag_a), (b, tag_b)| {
            (b, tag_b.as_str().len(), tag_b.as_str()).cmp(&(a, tag_a.as_str().len(), tag_a.as_str()))
        });
        versions.into_iter().take(newest.unwrap_or(usize::MAX)).map(|(_, tag)| tag.clone()).collect()
    }

    /// The newest of tags by when their images were made. One that does not say it is older than all that do; of those
    /// made at the same time, the one whose name comes last is the newest.
    pub fn newest_of(&self, mut dated: Vec<(Tag, Option<Timestamp>)>) -> BTreeSet<Tag> {
        dated.sort_by(|(tag_a, a), (tag_b, b)| (b, tag_b).cmp(&(a, tag_a)));
        dated.into_iter().take(self.newest.unwrap_or(usize::MAX)).map(|(tag, _)| tag).collect()
    }

    fn excepts(&self, tag: &Tag) -> bool {
        self.except.iter().any(|pattern| pattern.matches(tag))
    }
}

/// Whether a tag is named after a digest: `sha256-<hex>`, with or without an ending.
pub(super) fn belongs_to_digest(tag: &Tag) -> bool {
    let Some((algorithm, rest)) = tag.as_str().split_once('-') else { return false };
    let hex = rest.split('.').next().unwrap_or_default();
    matches!(algorithm, "sha256" | "sha512") && hex.len() >= 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}
