//! Which children of an index are wanted. Settings, rules of mirrors and commands all mean the same by it.

use std::collections::BTreeSet;
use std::fmt;

use super::{Pattern, Platform};
use crate::manifest::View;
use crate::{Descriptor, Digest, media_type};

/// What a child that is not an image says of itself, as BuildKit writes it.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// It is about how another child was built, or what is in it.
const ATTESTATION: &str = "attestation-manifest";
/// Which other child it is about.
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// How many platforms an error names.
const NAMED: usize = 32;

/// Which children of an index are wanted: those for some platforms, with what belongs to them, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Empty is everything.
    patterns: Vec<Pattern>,
    platformless: bool,
}

impl Filter {
    /// Everything is wanted.
    pub const ALL: Self = Self { patterns: Vec::new(), platformless: true };

    /// What is for a platform that one of `patterns` means is wanted, and what is for none in particular. Without any
    /// pattern, everything is.
    pub fn new(patterns: Vec<Pattern>) -> Self {
        Self { patterns, platformless: true }
    }

    /// Whether children are wanted that are for no platform in particular.
    #[must_use]
    pub fn with_platformless(self, platformless: bool) -> Self {
        Self { platformless, ..self }
    }

    /// Whether everything is wanted.
    pub fn is_all(&self) -> bool {
        self.patterns.is_empty()
    }

    /// What was asked for; empty when that is everything.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Whether an image for `platform` is wanted. One that is unknown is none.
    pub fn matches(&self, platform: &Platform) -> bool {
        let meant = || self.patterns.iter().any(|pattern| pattern.matches(platform));
        self.is_all() || !platform.is_unknown() && meant()
    }

    /// Whether what is for no platform in particular is wanted.
    fn keeps_platformless(&self) -> bool {
        self.is_all() || self.platformless
    }

    /// Tells the children of an index that are wanted from those that are not:
    ///
    /// - images, and indexes for a platform: when it is wanted;
    /// - attestations: with the image that they are about;
    /// - indexes for no platform: always, since what is wanted may be in them;
    /// - everything else for no platform: by [`Filter::with_platformless`].
    ///
    /// Fails when there are children and none is wanted, and when there are images for platforms, none of which is
    /// wanted, and nothing else to look into: whoever asks for a platform that there is not has made a mistake, and must
    /// be given neither everything nor nothing for it.
    pub fn select<'a>(&self, view: &'a View) -> Result<Selection<'a>, NothingMatches> {
        let mut children: Vec<Child<'a>> = view.manifests.iter().map(|child| self.judge(child)).collect();
        let images: BTreeSet<Digest> = children
            .iter()
            .filter(|child| child.kept && !child.is_attestation())
            .map(|c| c.descriptor.digest)
            .collect();
        let known: BTreeSet<Digest> = view.manifests.iter().map(|child| child.digest).collect();
        for child in &mut children {
            if let Role::Attestation(about) = child.role {
                // One about something that is elsewhere is as any other child for no platform.
                child.kept =
                    if known.contains(&about) { images.contains(&about) } else { self.keeps_platformless() };
            }
        }
        let hit = children.iter().any(|child| child.kept && matches!(child.role, Role::Image | Role::Index));
        let missed =
            children.iter().any(|child| !child.kept && matches!(child.role, Role::Image | Role::Index));
        let kept = children.iter().any(|child| child.kept);
        if !self.is_all() && (!hit && missed || !kept && !children.is_empty()) {
            return Err(NothingMatches::new(self, view));
        }
        Ok(Selection { children })
    }

    /// Judges a child by itself; attestations have to wait for the others.
    fn judge<'a>(&self, descriptor: &'a Descriptor) -> Child<'a> {
        let platform = descriptor.platform.as_ref().filter(|platform| !platform.is_unknown());
        let role = match (attested(descriptor), platform) {
            (Some(about), _) => Role::Attestation(about),
            _ if media_type::is_index(&descriptor.media_type) => Role::Index,
            (None, Some(_)) => Role::Image,
            (None, None) => Role::Platformless,
        };
        let kept = match (role, platform) {
            (Role::Image | Role::Index, Some(platform)) => self.matches(platform),
            (Role::Index, None) => true,
            _ => self.keeps_platformless(),
        };
        Child { descriptor, role, kept }
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Display for Filter {
    /// The patterns, with commas between them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("every platform");
        }
        let patterns: Vec<String> = self.patterns.iter().map(ToString::to_string).collect();
        f.write_str(&patterns.join(", "))
    }
}

/// The child that an attestation is about.
fn attested(descriptor: &Descriptor) -> Option<Digest> {
    let note = |key: &str| descriptor.annotations.get(key);
    note(REFERENCE_TYPE).filter(|kind| *kind == ATTESTATION)?;
    note(REFERENCE_DIGEST)?.parse().ok()
}

/// The children of an index, in its order, each with whether it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection<'a> {
    /// All of them.
    pub children: Vec<Child<'a>>,
}

impl<'a> Selection<'a> {
    /// Those that are wanted.
    pub fn kept(&self) -> impl Iterator<Item = &Child<'a>> {
        self.children.iter().filter(|child| child.kept)
    }

    /// Whether a child of this digest is wanted, in any of its places.
    pub fn keeps(&self, digest: &Digest) -> bool {
        self.kept().any(|child| child.descriptor.digest == *digest)
    }
}

/// A child of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child<'a> {
    /// How the index refers to it.
    pub descriptor: &'a Descriptor,
    /// What it is there.
    pub role: Role,
    /// Whether it is wanted.
    pub kept: bool,
}

impl Child<'_> {
    fn is_attestation(&self) -> bool {
        matches!(self.role, Role::Attestation(_))
    }
}

/// What a child is in its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An image for a platform.
    Image,
    /// Another index.
    Index,
    /// How the child of this digest was built, or what is in it.
    Attestation(Digest),
    /// For no platform in particular.
    Platformless,
}

/// An index has nothing for the platforms that are wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the index has nothing for {wanted}; it has {offered}")]
pub struct NothingMatches {
    /// What was asked for.
    wanted: Filter,
    /// What there is, in words.
    offered: String,
}

impl NothingMatches {
    /// Says that `wanted` means nothing of the children of `view`, and what there would be.
    pub fn new(wanted: &Filter, view: &View) -> Self {
        let platforms: BTreeSet<String> = view
            .manifests
            .iter()
            .filter_map(|child| child.platform.as_ref())
            .filter(|platform| !platform.is_unknown())
            .map(ToString::to_string)
            .collect();
        let more = platforms.len().saturating_sub(NAMED);
        let mut offered = platforms.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
        if more > 0 {
            offered.push_str(&format!(" and {more} more"));
        } else if offered.is_empty() {
            offered.push_str("nothing for a platform");
        }
        Self { wanted: wanted.clone(), offered }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A child of an index: its name, and `os/arch`, `-` for none, `?` for BuildKit's unknown; `index` makes it one;
    /// `of NAME` makes it an attestation.
    fn child(text: &str) -> Descriptor {
        let words: Vec<&str> = text.split(' ').collect();
        let platform = match words[1] {
            "-" => None,
            "?" => Some("unknown/unknown".parse().expect("a platform")),
            text => Some(text.parse().expect("a platform")),
        };
        let about = words.iter().position(|word| *word == "of").map(|at| digest(words[at + 1]).to_string());
        let annotations = about.into_iter().flat_map(|digest| {
            [(REFERENCE_TYPE.to_owned(), ATTESTATION.to_owned()), (REFERENCE_DIGEST.to_owned(), digest)]
        });
        let media_type =
            if words.contains(&"index") { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST };
        Descriptor {
            media_type: media_type.to_owned(),
            digest: digest(words[0]),
            size: 1,
            urls: Vec::new(),
            artifact_type: None,
            platform,
            annotations: annotations.collect::<BTreeMap<_, _>>(),
        }
    }

    fn digest(name: &str) -> Digest {
        Digest::sha256(name.as_bytes())
    }

    fn index(children: &[&str]) -> View {
        View {
            media_type: media_type::OCI_INDEX.to_owned(),
            config: None,
            layers: Vec::new(),
            manifests: children.iter().map(|text| child(text)).collect(),
            subject: None,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }

    fn filter(text: &str) -> Filter {
        Filter::new(text.split_whitespace().map(|one| one.parse().expect("a pattern")).collect())
    }

    /// As Docker Hub has them: two platforms with their attestations.
    const BUILT: &[&str] = &["a linux/amd64", "b linux/arm64/v8", "a-att ? of a", "b-att ? of b"];
    const MIXED: &[&str] =
        &["a linux/amd64", "b linux/arm64", "helm -", "more - index", "far ? of elsewhere"];
    const NESTED: &[&str] = &["x - index", "y - index"];

    #[test]
    fn what_is_kept() {
        for (children, wanted, platformless, kept) in [
            (BUILT, "", true, "a b a-att b-att"),
            (BUILT, "linux/amd64", true, "a a-att"),
            (BUILT, "linux/arm64", false, "b b-att"),
            (BUILT, "linux/amd64 linux/arm64/v8", true, "a b a-att b-att"),
            (BUILT, "*/*", true, "a b a-att b-att"),
            (MIXED, "linux/amd64", true, "a helm more far"),
            (MIXED, "linux/amd64", false, "a more"),
            (MIXED, "", false, "a b helm more far"),
            (NESTED, "linux/amd64", false, "x y"),
            (&["a linux/amd64 index", "b linux/arm64 index"], "linux/arm64", true, "b"),
            (&["helm -"], "linux/amd64", true, "helm"),
            // The same image for two platforms.
            (&["a linux/amd64", "a linux/386"], "linux/386", true, "a"),
            (&[], "linux/amd64", true, ""),
        ] {
            let view = index(children);
            let filter = filter(wanted).with_platformless(platformless);
            let selection =
                filter.select(&view).unwrap_or_else(|error| panic!("{children:?} {wanted}: {error}"));
            let names: Vec<Digest> = kept.split_whitespace().map(digest).collect();
            let found: Vec<Digest> = selection.kept().map(|child| child.descriptor.digest).collect();
            assert_eq!(found, names, "{children:?} {wanted} {platformless}");
            assert_eq!(selection.children.len(), children.len());
            assert!(names.iter().all(|name| selection.keeps(name)));
        }
    }

    #[test]
    fn what_matches_nothing_is_an_error() {
        for (children, wanted, platformless, says) in [
            (BUILT, "linux/s390x", true, "nothing for linux/s390x; it has linux/amd64, linux/arm64/v8"),
            (&["a linux/amd64", "helm -"], "windows/*", true, "nothing for windows/*; it has linux/amd64"),
            (&["helm -"], "linux/amd64", false, "nothing for linux/amd64; it has nothing for a platform"),
            (
                &["a linux/amd64 index"],
                "linux/arm64 linux/arm",
                true,
                "nothing for linux/arm64, linux/arm; it has",
            ),
        ] {
            let error =
                filter(wanted).with_platformless(platformless).select(&index(children)).expect_err(wanted);
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
