//! What there is: the base path, extensions, repositories, tags, referrers.

use std::borrow::Cow;

use deltaport_oci::wire::{Query, Route};
use deltaport_oci::{Digest, RepositoryName, media_type};
use deltaport_registry::Validate;
use http::StatusCode;
use http::header::HeaderName;
use serde_json::json;

use crate::error::Failure;
use crate::handlers::Asked;
use crate::respond::{Answer, OCI_FILTERS_APPLIED};

const JSON: &str = "application/json";
const DOCKER_API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// Tells clients whether they may push an index without all of its children, in the words of Quay's `/v2/`: `true` or
/// `false`. It is about repositories for which nothing else is configured.
const SPARSE_MANIFESTS: HeaderName = HeaderName::from_static("x-sparse-manifest-support");

/// GET of the base path (end-1).
pub(crate) fn base(asked: &Asked<'_>) -> Answer {
    let answer =
        Answer::new(StatusCode::OK).header(DOCKER_API_VERSION, "registry/2.0").json(JSON, &json!({}));
    let sparse = match asked.registry().options().validate {
        Validate::None => "true",
        Validate::All | Validate::Platforms(_) => "false",
    };
    answer.header(SPARSE_MANIFESTS, sparse)
}

/// GET of the extensions that are offered (distribution-spec, extensions/_oci.md).
pub(crate) fn extensions() -> Answer {
    let deltaport = json!({
        "name": "_deltaport",
        "description": "Layer deltas: a layer as the difference from one that the client holds. \
                        Images: what is here of one, to complete it and to prune it. \
                        Mirrors: rules for what is to be here, to plan and to run them",
        "endpoints": ["_deltaport/delta/layer", "_deltaport/image", "_deltaport/mirror"],
    });
    Answer::new(StatusCode::OK).json(JSON, &json!({ "extensions": [deltaport] }))
}

/// GET of the repositories that the caller may pull from.
pub(crate) async fn catalog(asked: Asked<'_>) -> Result<Answer, Failure> {
    let (n, last) = page(&asked.query)?;
    let page = asked.registry().repositories(asked.caller, last, n).await?;
    let answer = Answer::new(StatusCode::OK).json(JSON, &json!({ "repositories": page.items }));
    let last = page.items.last().filter(|_| page.more).map(RepositoryName::as_str);
    Ok(with_next(answer, &asked, &Route::Catalog, n, last))
}

/// GET of the tags of a repository (end-8).
pub(crate) async fn tags(asked: Asked<'_>, name: RepositoryName) -> Result<Answer, Failure> {
    let (n, last) = page(&asked.query)?;
    let page = asked.registry().tags(&name, last, n).await?;
    let name = asked.link_name(&name);
    let answer = Answer::new(StatusCode::OK).json(JSON, &json!({ "name": name, "tags": page.items }));
    let last = page.items.last().filter(|_| page.more).map(|tag| tag.as_str());
    Ok(with_next(answer, &asked, &Route::Tags(name), n, last))
}

/// GET of the manifests that refer to one (end-12). There always is an answer, an empty one if need be.
pub(crate) async fn referrers(
    asked: Asked<'_>,
    name: RepositoryName,
    subject: Digest,
) -> Result<Answer, Failure> {
    let (n, last) = page(&asked.query)?;
    let last = last.map(str::parse).transpose()?;
    let kind = artifact_type(&asked.query);
    let page = asked.registry().referrers(&name, &subject, kind, last.as_ref(), n).await?;
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": page.items });
    let answer = Answer::new(StatusCode::OK).json(media_type::OCI_INDEX, &index);
    let answer = match kind {
        Some(_) => answer.header(OCI_FILTERS_APPLIED, "artifactType"),
        None => answer,
    };
    let last = page.items.last().filter(|_| page.more).map(|descriptor| descriptor.digest.to_string());
    let route = Route::Referrers(asked.link_name(&name), subject);
    Ok(with_next(answer, &asked, &route, n, last.as_deref()))
}

/// `n` and `last`: how long the page may be, and behind what it begins.
fn page<'q>(query: &'q Query<'_>) -> Result<(Option<usize>, Option<&'q str>), Failure> {
    let n = match query.first("n") {
        None | Some("") => None,
        // More digits than fit are more than any page has.
        Some(n) if n.bytes().all(|digit| digit.is_ascii_digit()) => Some(n.parse().unwrap_or(usize::MAX)),
        Some(_) => return Err(Failure::Query("n is not a number of entries")),
    };
    Ok((n, query.first("last").filter(|last| !last.is_empty())))
}

/// Adds where the next page is, when there is one.
fn with_next(
    answer: Answer,
    asked: &Asked<'_>,
    route: &Route,
    n: Option<usize>,
    last: Option<&str>,
) -> Answer {
    let Some(last) = last else { return answer };
    let mut pairs: Vec<(&str, Cow<'_, str>)> = Vec::new();
    pairs.extend(asked.link_namespace().map(|(key, value)| (key, value.into())));
    pairs.extend(artifact_type(&asked.query).map(|kind| ("artifactType", kind.into())));
    pairs.extend(n.map(|n| ("n", n.to_string().into())));
    pairs.push(("last", last.into()));
    let query = Query::render(pairs.iter().map(|(key, value)| (*key, value.as_ref())));
    answer.next_page(route, &query)
}

/// Which kind of referrers is asked for.
fn artifact_type<'q>(query: &'q Query<'_>) -> Option<&'q str> {
    query.first("artifactType").filter(|kind| !kind.is_empty())
}
