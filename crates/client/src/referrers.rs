//! Which manifests say something about another one (distribution-spec, "Listing Referrers").

use deltaport_oci::manifest::{Limits, View};
use deltaport_oci::wire::{Query, Route};
use deltaport_oci::{Descriptor, Digest, Reference, RepositoryName, Tag, media_type};
use http::header::{ACCEPT, CONTENT_TYPE, LINK};
use http::{HeaderMap, HeaderValue, Method};
use reqwest::Url;

use crate::auth::Scope;
use crate::error::{ErrorKind, Result};
use crate::transport::{Answer, Request};
use crate::upstream::{MAX_MANIFEST, Upstream, without_parameters};

/// How many referrers of one manifest are looked at, however many there are.
pub const MAX_REFERRERS: usize = 1024;
/// How many pages of a list are asked for.
const MAX_PAGES: usize = 16;
/// How many characters of a digest stand in the tag of a list (distribution-spec, "Referrers Tag Schema").
const TAG_HEX: usize = 64;

/// A page of the list, and where the next one is.
struct Page {
    referrers: Vec<Descriptor>,
    next: Option<Url>,
}

impl Upstream {
    /// Asks which manifests of `repository` refer to `subject`, if given only those of an artifact type; at most
    /// [`MAX_REFERRERS`]. Where there is no such list, the index that clients keep under a tag instead is read
    /// (distribution-spec, "Unavailable Referrers API").
    ///
    /// What is returned is what the upstream says; nothing of it has been fetched or checked.
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        let route = Route::Referrers(repository.clone(), *subject);
        let mut url = self.url(&route).map_err(|kind| self.fail(kind))?;
        url.set_query(artifact_type.map(|kind| Query::render([("artifactType", kind)])).as_deref());
        let (mut found, mut next) = (Vec::new(), Some(url));
        for page in 0..MAX_PAGES {
            let Some(url) = next else { break };
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(media_type::OCI_INDEX))]);
            let request = Request { headers, follow: true, ..Request::new(Method::GET, url.clone()) };
            let answer = self.ask(Scope::pull(repository), request).await?;
            if page == 0 && !is_list(&answer) {
                return self.tagged_referrers(repository, subject, artifact_type, answer).await;
            }
            let page = self.read_page(answer, &route, &url).await?;
            found.extend(page.referrers.into_iter().filter(|referrer| is_of(referrer, artifact_type)));
            if found.len() >= MAX_REFERRERS {
                break;
            }
            next = page.next;
        }
        found.truncate(MAX_REFERRERS);
        Ok(found)
    }

    async fn read_page(&self, mut answer: Answer, route: &Route, url: &Url) -> Result<Page> {
        if !answer.status().is_success() {
            return Err(self.fail(answer.into_error().await));
        }
        let next = next_page(&answer, route, url, self.home()).map_err(|kind| self.fail(kind))?;
        let bytes =
            answer.read("the list of referrers", MAX_MANIFEST).await.map_err(|kind| self.fail(kind))?;
        let list = View::parse(media_type::OCI_INDEX, &bytes, Limits::DEFAULT);
        let broken =
            |error| self.fail(ErrorKind::protocol(format!("sends a broken list of referrers: {error}")));
        Ok(Page { referrers: list.map_err(broken)?.manifests, next })
    }

    /// The list under its tag, after `answer` was not what a registry with a list of its own says.
    async fn tagged_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
        answer: Answer,
    ) -> Result<Vec<Descriptor>> {
        match answer.status().as_u16() {
            // How registries answer paths that they do not know; some have a web page for all of them.
            200 | 404 | 405 | 501 => answer.drain().await,
            _ => return Err(self.fail(answer.into_error().await)),
        }
        let tag = fallback_tag(subject).map_err(|kind| self.fail(kind))?;
        let manifest = match self.manifest(repository, &Reference::Tag(tag)).await {
            Err(error) if *error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        // Anybody may have given that tag to anything.
        let list = View::parse(&manifest.media_type, &manifest.bytes, Limits::DEFAULT);
        let mut found = list.map(|list| list.manifests).unwrap_or_default();
        found.retain(|referrer| is_of(referrer, artifact_type));
        found.truncate(MAX_REFERRERS);
        Ok(found)
    }
}

/// The tag that the list is kept under where the registry keeps none.
pub(crate) fn fallback_tag(subject: &Digest) -> Result<Tag, ErrorKind> {
    let hex = subject.hex();
    let tag = format!("{}-{}", subject.algorithm(), hex.get(..TAG_HEX).unwrap_or(&hex));
    tag.parse().map_err(|_| ErrorKind::protocol("cannot have a tag for that digest"))
}

fn is_of(referrer: &Descriptor, artifact_type: Option<&str>) -> bool {
    artifact_type.is_none_or(|wanted| referrer.artifact_type.as_deref() == Some(wanted))
}

/// Whether an answer comes from a registry that keeps lists of referrers: an index, or an error that says nothing about it.
fn is_list(answer: &Answer) -> bool {
    match answer.status().as_u16() {
        200 => {
            answer.header(CONTENT_TYPE).is_some_and(|kind| without_parameters(kind) == media_type::OCI_INDEX)
        }
        404 | 405 | 501 => false,
        _ => true,
    }
}

/// Where a list goes on (RFC 8288): with the same question at the same registry, or the upstream could send us anywhere.
pub(crate) fn next_page(
    answer: &Answer,
    route: &Route,
    url: &Url,
    home: &Url,
) -> Result<Option<Url>, ErrorKind> {
    let Some(target) = answer.header(LINK).and_then(link_to_next) else { return Ok(None) };
    let next = url.join(target).map_err(|_| ErrorKind::protocol("says that a list goes on nowhere"))?;
    let same = Route::parse(next.path()).is_ok_and(|next| next == *route);
    match same && next.origin() == home.origin() && next != *url {
        true => Ok(Some(next)),
        false => Err(ErrorKind::protocol("says that a list goes on where it cannot")),
    }
}

/// The target of the link with the relation `next`.
fn link_to_next(field: &str) -> Option<&str> {
    let mut rest = field;
    while let Some((target, after)) = rest.split_once('<').and_then(|(_, rest)| rest.split_once('>')) {
        let end = after.find(",<").or_else(|| after.find(", <")).unwrap_or(after.len());
        let is_next = |parameter: &str| {
            let value = parameter.trim().strip_prefix("rel=");
            value.is_some_and(|value| value.trim_matches('"').eq_ignore_ascii_case("next"))
        };
        if after[..end].split(';').any(is_next) {
            return Some(target);
        }
        rest = &after[end..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_as_registries_write_them() {
        for (field, expected) in [
            (r#"</v2/a?last=x&n=2>; rel="next""#, Some("/v2/a?last=x&n=2")),
            ("</v2/a>;rel=next", Some("/v2/a")),
            (r#"</first>; rel="prev", </second>; title="x"; rel="next""#, Some("/second")),
            (r#"</first>; rel="prev""#, None),
            ("</first>", None),
            ("<", None),
            ("", None),
            ("rel=next", None),
        ] {
            assert_eq!(link_to_next(field), expected, "{field}");
        }
    }

    #[test]
    fn lists_have_tags_of_limited_length() {
        let tag = |digest: &str| fallback_tag(&digest.parse().unwrap()).unwrap().to_string();
        let (short, long) = ("ab".repeat(32), "cd".repeat(64));
        assert_eq!(tag(&format!("sha256:{short}")), format!("sha256-{short}"));
        assert_eq!(tag(&format!("sha512:{long}")), format!("sha512-{}", &long[..64]));
    }
}
