//! Which repositories a registry has.

use deltaport_oci::RepositoryName;
use deltaport_oci::wire::{Query, Route};
use http::Method;
use serde::Deserialize;

use crate::auth::Scope;
use crate::error::{ErrorKind, Result};
use crate::referrers::next_page;
use crate::transport::Request;
use crate::upstream::Upstream;

/// How many repositories of one registry are looked at.
const MAX_REPOSITORIES: usize = 100_000;
/// How many repositories a page is asked to have; registries give fewer as they like.
const PAGE: &str = "1000";
/// How many pages are asked for.
const MAX_PAGES: usize = 2000;
/// The largest page, in bytes.
const MAX_PAGE: u64 = 16 * 1024 * 1024;

#[derive(Deserialize)]
struct Catalog {
    /// Some registries say `null` for none.
    repositories: Option<Vec<String>>,
}

impl Upstream {
    /// Asks for the names of all repositories, as far as we may see them (`_catalog`, an extension that the distribution
    /// specification reserves the name of). What is no name by the specification is left out.
    ///
    /// Fails with [`ErrorKind::NotFound`], [`ErrorKind::Denied`] or [`ErrorKind::Protocol`] where the registry does not
    /// tell, as many public ones, and with [`ErrorKind::Limit`] when there are more than 100 000.
    pub async fn catalog(&self) -> Result<Vec<RepositoryName>> {
        let mut url = self.url(&Route::Catalog).map_err(|kind| self.fail(kind))?;
        url.set_query(Some(&Query::render([("n", PAGE)])));
        let (mut found, mut next) = (Vec::new(), Some(url));
        for _ in 0..MAX_PAGES {
            let Some(url) = next else { return Ok(found) };
            let request = Request { follow: true, ..Request::new(Method::GET, url.clone()) };
            let mut answer = self.ask(Scope::CATALOG, request).await?;
            if !answer.status().is_success() {
                return Err(self.fail(answer.into_error().await));
            }
            next = next_page(&answer, &Route::Catalog, &url, self.home()).map_err(|kind| self.fail(kind))?;
            let bytes = answer.read("the catalog", MAX_PAGE).await.map_err(|kind| self.fail(kind))?;
            let page: Catalog = serde_json::from_slice(&bytes)
                .map_err(|_| self.fail(ErrorKind::protocol("sends a broken catalog")))?;
            found.extend(page.repositories.into_iter().flatten().filter_map(|name| name.parse().ok()));
            if found.len() > MAX_REPOSITORIES {
                break;
            }
        }
        match next.is_none() && found.len() <= MAX_REPOSITORIES {
            true => Ok(found),
            false => Err(self.fail(ErrorKind::Limit { what: "the catalog", limit: MAX_REPOSITORIES as u64 })),
        }
    }
}
