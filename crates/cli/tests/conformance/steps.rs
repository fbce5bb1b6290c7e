//! What many requirements do first, and what they expect of answers.

use deltaport_oci::Digest;
use deltaport_testkit::http::{Request, Response};
use deltaport_testkit::sample::{Content, Image};

use crate::harness::Registry;

impl Registry {
    /// Begins an upload and returns where it goes on.
    pub(crate) async fn begin_upload(&self) -> String {
        let response = self.send(Request::post(&self.path("blobs/uploads/"))).await;
        assert_eq!(response.status, 202, "{}", response.text());
        location(&response)
    }

    /// Pushes a blob by POST and PUT.
    pub(crate) async fn push_blob(&self, blob: &Content) {
        let upload = self.begin_upload().await;
        let request = Request::put(&upload).query("digest", blob.digest).body(blob.bytes.clone());
        let response = self.send(request).await;
        assert_eq!(response.status, 201, "{}", response.text());
    }

    /// Sends a manifest to be stored under `reference`.
    pub(crate) async fn put_manifest(
        &self,
        reference: impl std::fmt::Display,
        manifest: &Content,
    ) -> Response {
        let request = Request::put(&self.path(format_args!("manifests/{reference}")));
        let request = request.header("Content-Type", &manifest.media_type).body(manifest.bytes.clone());
        self.send(request).await
    }

    /// Pushes a manifest under `reference`.
    pub(crate) async fn push_manifest(&self, reference: impl std::fmt::Display, manifest: &Content) {
        let response = self.put_manifest(reference, manifest).await;
        assert_eq!(response.status, 201, "{}", response.text());
        assert_eq!(digest(&response), Some(manifest.digest), "of {}", manifest.media_type);
    }

    /// Pushes an image with everything it refers to, under a tag.
    pub(crate) async fn push_image(&self, tag: &str, image: &Image) {
        for blob in image.blobs() {
            self.push_blob(blob).await;
        }
        self.push_manifest(tag, &image.manifest).await;
    }

    /// The blob is there, byte for byte, by GET and by HEAD.
    pub(crate) async fn expect_blob(&self, blob: &Content) {
        let path = format!("blobs/{}", blob.digest);
        expect_content(&self.get(&path).await, blob, true);
        expect_content(&self.head(&path).await, blob, false);
    }

    /// The blob is not there.
    pub(crate) async fn expect_no_blob(&self, digest: &Digest) {
        let path = format!("blobs/{digest}");
        expect_error(&self.get(&path).await, 404, "BLOB_UNKNOWN");
        expect_missing(&self.head(&path).await);
    }

    /// The manifest is there under `reference`, byte for byte, with the media type it was pushed as, by GET and HEAD.
    pub(crate) async fn expect_manifest(&self, reference: impl std::fmt::Display, manifest: &Content) {
        let path = format!("manifests/{reference}");
        for (response, with_body) in [(self.get(&path).await, true), (self.head(&path).await, false)] {
            expect_content(&response, manifest, with_body);
            assert_eq!(response.header("content-type"), Some(manifest.media_type.as_str()));
        }
    }

    /// There is no manifest under `reference`.
    pub(crate) async fn expect_no_manifest(&self, reference: impl std::fmt::Display) {
        let path = format!("manifests/{reference}");
        expect_error(&self.get(&path).await, 404, "MANIFEST_UNKNOWN");
        expect_missing(&self.head(&path).await);
    }

    /// The tags, as the list has them.
    pub(crate) async fn tags(&self) -> Vec<String> {
        let response = self.get("tags/list").await;
        assert_eq!(response.status, 200, "{}", response.text());
        let list = response.json();
        assert_eq!(list["name"], self.repository);
        strings(&list["tags"])
    }

    /// The list of referrers of `subject`, after checking that it is an index.
    pub(crate) async fn referrers(
        &self,
        subject: &Digest,
        query: &str,
    ) -> (Response, Vec<serde_json::Value>) {
        let response = self.get(format_args!("referrers/{subject}{query}")).await;
        assert_eq!(response.status, 200, "{}", response.text());
        let index = response.json();
        assert_eq!(response.header("content-type"), Some(deltaport_oci::media_type::OCI_INDEX));
        assert_eq!(index["schemaVersion"], 2);
        assert_eq!(index["mediaType"], deltaport_oci::media_type::OCI_INDEX);
        let manifests = index["manifests"].as_array().expect("a list, also when it is empty").clone();
        (response, manifests)
    }
}

/// The content itself with its digest and length; without its bytes when it was asked for with HEAD.
fn expect_content(response: &Response, content: &Content, with_body: bool) {
    assert_eq!(response.status, 200, "{} {}", content.digest, response.text());
    assert_eq!(digest(response), Some(content.digest));
    let length = content.bytes.len().to_string();
    assert_eq!(response.header("content-length"), Some(length.as_str()));
    if with_body {
        assert!(response.body == content.bytes, "{}: other bytes than were pushed", content.digest);
    }
}

/// HEAD of what does not exist.
fn expect_missing(response: &Response) {
    assert_eq!(response.status, 404);
    assert!(response.body.is_empty());
}

/// An error with this status and code, in the form that the specification gives it.
pub(crate) fn expect_error(response: &Response, status: u16, code: &str) {
    assert_eq!(response.status, status, "expected {code}: {}", response.text());
    let media_type = response.header("content-type").unwrap_or_default();
    assert!(media_type.starts_with("application/json"), "{media_type:?}");
    let error = &response.json()["errors"][0];
    assert_eq!(error["code"], code, "{}", response.text());
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{}", response.text());
}

/// Where the response says to go on or to look.
pub(crate) fn location(response: &Response) -> String {
    response.header("location").expect("a location").to_owned()
}

/// The digest that the response names.
pub(crate) fn digest(response: &Response) -> Option<Digest> {
    response.header("docker-content-digest")?.parse().ok()
}

/// A list of texts out of JSON.
pub(crate) fn strings(list: &serde_json::Value) -> Vec<String> {
    let list = list.as_array().expect("a list");
    list.iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
}

/// The target of the `Link` to the next page.
pub(crate) fn next_page(response: &Response) -> Option<String> {
    let link = response.header("link")?;
    let (target, relation) = link.strip_prefix('<').and_then(|rest| rest.split_once('>')).expect("RFC 8288");
    assert_eq!(relation.replace(' ', ""), ";rel=\"next\"", "{link}");
    Some(target.to_owned())
}
