//! Which tags a repository has.

use deltaport_oci::wire::{Query, Route};
use deltaport_oci::{RepositoryName, Tag};
use http::Method;
use serde::Deserialize;

use crate::auth::Scope;
use crate::error::{ErrorKind, Result};
use crate::referrers::next_page;
use crate::transport::Request;
use crate::upstream::Upstream;

/// How many tags of one repository are looked at.
pub const MAX_TAGS: usize = 100_000;
/// How many tags a page is asked to have; registries give fewer as they like.
const PAGE: &str = "1000";
/// How many pages are asked for.
const MAX_PAGES: usize = 1000;
/// The largest page, in bytes.
const MAX_PAGE: u64 = 16 * 1024 * 1024;

#[derive(Deserialize)]
struct List {
    /// Some registries say `null` for none.
    tags: Option<Vec<String>>,
}

impl Upstream {
    /// Asks for all tags of a repository (distribution-spec, end-8). What is no tag by the specification is left out.
    ///
    /// Fails with [`ErrorKind::Limit`] when there are more than [`MAX_TAGS`]: a part of them would be taken for all.
    pub async fn tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>> {
        let route = Route::Tags(repository.clone());
        let mut url = self.url(&route).map_err(|kind| self.fail(kind))?;
        url.set_query(Some(&Query::render([("n", PAGE)])));
        let (mut found, mut next) = (Vec::new(), Some(url));
        for _ in 0..MAX_PAGES {
            let Some(url) = next else { return Ok(found) };
            let request = Request { follow: true, ..Request::new(Method::GET, url.clone()) };
            let mut answer = self.ask(Scope::pull(repository), request).await?;
            if !answer.status().is_success() {
                return Err(self.fail(answer.into_error().await));
            }
            next = next_page(&answer, &route, &url, self.home()).map_err(|kind| self.fail(kind))?;
            let bytes = answer.read("the list of tags", MAX_PAGE).await.map_err(|kind| self.fail(kind))?;
            let list: List = serde_json::from_slice(&bytes)
                .map_err(|_| self.fail(ErrorKind::protocol("sends a broken list of tags")))?;
            found.extend(list.tags.into_iter().flatten().filter_map(|tag| tag.parse().ok()));
            if found.len() > MAX_TAGS {
                break;
            }
        }
        match next.is_none() && found.len() <= MAX_TAGS {
            true => Ok(found),
            false => Err(self.fail(ErrorKind::Limit { what: "the list of tags", limit: MAX_TAGS as u64 })),
        }
    }
}
