//! Tags, referrers, extensions, and the pages they come in.

use deltaport_oci::media_type;
use deltaport_testkit::http::{Request, Response};
use deltaport_testkit::sample::{self, Content, Image};

use crate::harness::{Running, Setup, push_blob, push_image, push_manifest};

/// The path in a `Link` header.
fn next(answer: &Response) -> Option<String> {
    let link = answer.header("link")?;
    let path = link.strip_prefix('<').and_then(|rest| rest.strip_suffix(">; rel=\"next\""));
    Some(path.unwrap_or_else(|| panic!("not a link to the next page: {link}")).to_owned())
}

/// All pages from `path` on.
async fn pages(running: &Running, path: &str, key: &str) -> Vec<Vec<serde_json::Value>> {
    let mut pages = Vec::new();
    let mut path = Some(path.to_owned());
    while let Some(at) = path {
        let answer = running.send(Request::get(&at)).await;
        assert_eq!(answer.status, 200, "{at}: {}", answer.text());
        pages.push(answer.json()[key].as_array().expect("a list").clone());
        path = next(&answer);
        assert!(pages.len() < 100, "the pages do not end");
    }
    pages
}

async fn tagged(tags: &[&str]) -> Running {
    let running = Setup::new().start().await;
    for tag in tags {
        push_image(&running.client, "a", tag, &Image::small(1)).await;
    }
    running
}

#[tokio::test]
async fn tags_come_in_byte_order_and_in_pages() {
    let running = tagged(&["b", "a", "B", "10", "9", "_", "a.b", "a-b"]).await;
    let sorted = ["10", "9", "B", "_", "a", "a-b", "a.b", "b"];
    for n in [1, 3, 7, 8, 100] {
        let pages = pages(&running, &format!("/v2/a/tags/list?n={n}"), "tags").await;
        assert!(pages.iter().rev().skip(1).all(|page| page.len() == n), "{pages:?}");
        assert_eq!(pages.concat(), sorted, "n={n}");
    }
    let whole = running.send(Request::get("/v2/a/tags/list")).await;
    assert_eq!((whole.json()["name"].as_str(), next(&whole)), (Some("a"), None));
    let behind = running.send(Request::get("/v2/a/tags/list?last=a-b")).await;
    assert_eq!(behind.json()["tags"], serde_json::json!(["a.b", "b"]));
    let behind_nothing_that_exists = running.send(Request::get("/v2/a/tags/list?last=Z&n=1")).await;
    assert_eq!(behind_nothing_that_exists.json()["tags"], serde_json::json!(["_"]));
}

#[tokio::test]
async fn a_page_of_none_is_empty_and_the_last() {
    let running = tagged(&["a"]).await;
    for path in ["/v2/a/tags/list?n=0", "/v2/_catalog?n=0"] {
        let answer = running.send(Request::get(path)).await;
        assert_eq!((answer.status, next(&answer)), (200, None));
        assert!(answer.text().contains("[]"), "{}", answer.text());
    }
    assert_eq!(running.send(Request::get("/v2/none/tags/list?n=0")).await.status, 404);
}

#[tokio::test]
async fn referrers_always_have_an_answer() {
    let running = Setup::new().start().await;
    let answer =
        running.send(Request::get(&format!("/v2/none/referrers/{}", Content::new("", "x").digest))).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(media_type::OCI_INDEX)));
    assert_eq!(
        answer.json(),
        serde_json::json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [] })
    );
    assert_eq!(running.send(Request::get("/v2/none/referrers/sha256:x")).await.status, 400);
}

#[tokio::test]
async fn referrers_are_filtered_and_come_in_pages() {
    let running = Setup::new().start().await;
    let subject = Image::small(1);
    push_image(&running.client, "a", "x", &subject).await;
    push_blob(&running.client, "a", &sample::empty_config()).await;
    let mut all = Vec::new();
    for seed in 0..100_u64 {
        let kind = if seed % 4 == 0 { "application/vnd.one" } else { "application/vnd.two+json" };
        let blob = Content::new("x/y", sample::bytes(seed, 10));
        push_blob(&running.client, "a", &blob).await;
        let artifact = sample::artifact(kind, Some(&subject.manifest), &blob);
        let put = push_manifest(&running.client, "a", &artifact.digest.to_string(), &artifact).await;
        assert_eq!(put.status, 201);
        all.push((artifact.digest.to_string(), kind));
    }
    all.sort_unstable();
    let path = format!("/v2/a/referrers/{}", subject.manifest.digest);
    let digests = |pages: Vec<Vec<serde_json::Value>>| -> Vec<String> {
        pages.concat().iter().map(|entry| entry["digest"].as_str().expect("a digest").to_owned()).collect()
    };
    let expected: Vec<_> = all.iter().map(|(digest, _)| digest.clone()).collect();
    assert_eq!(digests(pages(&running, &path, "manifests").await), expected);
    let paged = pages(&running, &format!("{path}?n=33"), "manifests").await;
    assert_eq!(paged.iter().map(Vec::len).collect::<Vec<_>>(), [33, 33, 33, 1]);
    assert_eq!(digests(paged), expected);

    let filtered = format!("{path}?artifactType=application/vnd.two%2Bjson");
    let expected: Vec<_> =
        all.iter().filter(|(_, kind)| kind.ends_with("+json")).map(|(digest, _)| digest.clone()).collect();
    assert_eq!(digests(pages(&running, &format!("{filtered}&n=10"), "manifests").await), expected);
    let answer = running.send(Request::get(&filtered)).await;
    assert_eq!(answer.header("oci-filters-applied"), Some("artifactType"));
    let entry = &answer.json()["manifests"][0];
    assert_eq!(entry["artifactType"], "application/vnd.two+json");
    assert_eq!(entry["annotations"]["org.example.kind"], "application/vnd.two+json");
    assert_eq!(entry["mediaType"], media_type::OCI_MANIFEST);
    let unfiltered = running.send(Request::get(&path)).await;
    assert_eq!(unfiltered.header("oci-filters-applied"), None);
}

#[tokio::test]
async fn a_page_of_referrers_ends_before_it_is_too_large() {
    let running = Setup::new().start().await;
    let subject = Image::small(1).manifest;
    let blob = sample::empty_config();
    push_blob(&running.client, "a", &blob).await;
    for seed in 0..10 {
        let text = format!("{seed}{}", "x".repeat(1 << 20));
        let more = serde_json::json!({ "subject": subject.descriptor(), "annotations": { "large": text } });
        let artifact = sample::manifest(&blob, &[], more);
        let put = push_manifest(&running.client, "a", &artifact.digest.to_string(), &artifact).await;
        assert_eq!(put.status, 201, "{}", put.text());
    }
    let pages = pages(&running, &format!("/v2/a/referrers/{}", subject.digest), "manifests").await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3, 1]);
}

#[tokio::test]
async fn extensions_are_announced() {
    let running = Setup::new().start().await;
    let answer = running.send(Request::get("/v2/_oci/ext/discover")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["extensions"][0]["name"], "_deltaport");
    assert_eq!(answer.json()["extensions"][0]["endpoints"][0], "_deltaport/delta/layer");
}
