//! Which name a signature has to give an image: `signedIdentity` of containers-policy.json(5).

use super::super::image_name::{ImageName, is_registry};
use super::super::json::{Fields, JsonError};
use super::{Fault, Problem};

/// What the name in a signature has to be, compared with the name that the image has at its source.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) enum SignedIdentity {
    /// `matchExact`: the same, tag or digest included.
    Exact,
    /// `matchRepoDigestOrExact`, and what holds when nothing is said: the same if the image is asked for by tag, the
    /// same repository if by digest.
    #[default]
    RepositoryByDigestOrExact,
    /// `matchRepository`: the same repository.
    Repository,
    /// `exactReference`: this name.
    ThisImage(ImageName),
    /// `exactRepository`: this repository.
    ThisRepository(ImageName),
    /// `remapIdentity`: as nothing said, after one prefix was put in another's place.
    Remapped { prefix: String, signed_prefix: String },
}

impl SignedIdentity {
    /// Reads the object behind `signedIdentity`.
    pub(super) fn read(mut fields: Fields) -> Result<Self, Fault> {
        let kind = fields.string("type")?;
        let identity = match kind.as_str() {
            "matchExact" => Self::Exact,
            "matchRepoDigestOrExact" => Self::RepositoryByDigestOrExact,
            "matchRepository" => Self::Repository,
            "exactReference" => {
                let name = name(&mut fields, "dockerReference")?;
                if name.is_repository() {
                    return Err(Problem::NoTag(name.to_string()).into());
                }
                Self::ThisImage(name)
            }
            "exactRepository" => Self::ThisRepository(name(&mut fields, "dockerRepository")?),
            "remapIdentity" => Self::Remapped {
                prefix: prefix(&mut fields, "prefix")?,
                signed_prefix: prefix(&mut fields, "signedPrefix")?,
            },
            _ => return Err(Problem::UnknownIdentity(kind).into()),
        };
        fields.end()?;
        Ok(identity)
    }

    /// Whether a signature that calls the image `signed` may be used for `image`, which is named by tag or by digest.
    pub(crate) fn accepts(&self, image: &ImageName, signed: &ImageName) -> bool {
        match self {
            Self::Exact => !image.is_repository() && image == signed,
            Self::RepositoryByDigestOrExact => repository_by_digest_or_exact(image, signed),
            Self::Repository => image.repository() == signed.repository(),
            Self::ThisImage(wanted) => wanted == signed,
            Self::ThisRepository(wanted) => wanted.repository() == signed.repository(),
            Self::Remapped { prefix, signed_prefix } => remap(image, prefix, signed_prefix)
                .is_some_and(|image| repository_by_digest_or_exact(&image, signed)),
        }
    }
}

fn repository_by_digest_or_exact(image: &ImageName, signed: &ImageName) -> bool {
    if signed.is_repository() {
        return false;
    }
    match (image.tag(), image.digest()) {
        (Some(_), _) => image == signed,
        // That the signature is about this digest is checked apart from its name.
        (None, Some(_)) => image.repository() == signed.repository(),
        (None, None) => false,
    }
}

/// The name with `prefix` replaced; the same name when it does not begin so, `None` when no name comes out.
fn remap(image: &ImageName, prefix: &str, signed_prefix: &str) -> Option<ImageName> {
    let text = image.to_string();
    match image.repository().strip_prefix(prefix) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let rest = text.get(prefix.len()..)?;
            ImageName::parse_full(&format!("{signed_prefix}{rest}")).ok()
        }
        _ => Some(image.clone()),
    }
}

fn name(fields: &mut Fields, key: &'static str) -> Result<ImageName, Fault> {
    let text = fields.string(key)?;
    ImageName::parse(&text).map_err(|_| Problem::Name(text).into())
}

/// A registry, or a name that begins with one.
fn prefix(fields: &mut Fields, key: &'static str) -> Result<String, Fault> {
    let text = fields.string(key)?;
    let good = match text.split_once('/') {
        None => is_registry(&text),
        Some((registry, _)) => {
            is_registry(registry) && ImageName::parse(&text).is_ok_and(|name| name.is_repository())
        }
    };
    if good { Ok(text) } else { Err(Problem::Name(text).into()) }
}

impl From<JsonError> for Fault {
    fn from(error: JsonError) -> Self {
        Problem::Json(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn name(text: &str) -> ImageName {
        ImageName::parse(&text.replace('$', DIGEST)).unwrap()
    }

    /// As in the table of containers-policy.json(5).
    #[test]
    fn each_rule_accepts_what_its_name_says() {
        use SignedIdentity as Rule;
        let image = || Rule::ThisImage(name("m.io/a:1"));
        let repository = || Rule::ThisRepository(name("m.io/a"));
        let remapped = |prefix: &str, signed: &str| Rule::Remapped {
            prefix: prefix.into(),
            signed_prefix: signed.into(),
        };
        for (rule, image, signed, accepted) in [
            (Rule::Exact, "m.io/a:1", "m.io/a:1", true),
            (Rule::Exact, "m.io/a:1", "m.io/a:2", false),
            (Rule::Exact, "m.io/a:1", "m.io/a", false),
            (Rule::Exact, "m.io/a@$", "m.io/a:1", false),
            (Rule::Exact, "m.io/a@$", "m.io/a@$", true),
            (Rule::RepositoryByDigestOrExact, "m.io/a:1", "m.io/a:1", true),
            (Rule::RepositoryByDigestOrExact, "m.io/a:1", "m.io/a:2", false),
            (Rule::RepositoryByDigestOrExact, "m.io/a@$", "m.io/a:2", true),
            (Rule::RepositoryByDigestOrExact, "m.io/a@$", "m.io/a", false),
            (Rule::RepositoryByDigestOrExact, "m.io/a@$", "m.io/b:2", false),
            (Rule::Repository, "m.io/a:1", "m.io/a", true),
            (Rule::Repository, "m.io/a:1", "m.io/a:2", true),
            (Rule::Repository, "m.io/a:1", "n.io/a:1", false),
            (Rule::Repository, "debian:1", "docker.io/library/debian", true),
            (image(), "n.io/b:7", "m.io/a:1", true),
            (image(), "n.io/b:7", "m.io/a:2", false),
            (repository(), "n.io/b:7", "m.io/a:2", true),
            (repository(), "n.io/b:7", "m.io/a", true),
            (repository(), "n.io/b:7", "m.io/ab", false),
            (remapped("n.io/x", "m.io/y"), "n.io/x/a:1", "m.io/y/a:1", true),
            (remapped("n.io/x", "m.io/y"), "n.io/x/a@$", "m.io/y/a:1", true),
            (remapped("n.io/x", "m.io/y"), "n.io/xx/a:1", "m.io/yx/a:1", false),
            (remapped("n.io/x", "m.io/y"), "n.io/xx/a:1", "n.io/xx/a:1", true),
            (remapped("n.io", "m.io:5000"), "n.io/a:1", "m.io:5000/a:1", true),
            (remapped("n.io", "docker.io"), "n.io/a:1", "docker.io/library/a:1", false),
        ] {
            assert_eq!(rule.accepts(&name(image), &name(signed)), accepted, "{rule:?} {image} {signed}");
        }
    }
}
