//! Writing answers: status, headers and content, in one notation for all handlers.

use std::fmt::Display;

use bytes::Bytes;
use deltaport_oci::{Digest, wire};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, LINK, LOCATION};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::body::Content;

pub(crate) const DELTA_SIZE: HeaderName = HeaderName::from_static(wire::DELTA_SIZE);
pub(crate) const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static(wire::DOCKER_CONTENT_DIGEST);
pub(crate) const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static(wire::OCI_FILTERS_APPLIED);
pub(crate) const OCI_NAMESPACE: HeaderName = HeaderName::from_static(wire::OCI_NAMESPACE);
pub(crate) const OCI_SUBJECT: HeaderName = HeaderName::from_static(wire::OCI_SUBJECT);
pub(crate) const OCI_TAG: HeaderName = HeaderName::from_static(wire::OCI_TAG);

/// An answer being written.
#[derive(Debug)]
pub(crate) struct Answer(Response<Content>);

impl Answer {
    /// An answer without content.
    pub(crate) fn new(status: StatusCode) -> Self {
        let mut response = Response::new(Content::Empty);
        *response.status_mut() = status;
        Self(response)
    }

    /// Adds a header. A value that cannot stand in one (a control character in what a client sent) is left out.
    pub(crate) fn header(mut self, name: HeaderName, value: impl IntoValue) -> Self {
        if let Some(value) = value.into_value() {
            self.0.headers_mut().append(name, value);
        }
        self
    }

    /// Where the thing is. Relative, so that it is right however the client got here.
    pub(crate) fn location(self, path: impl Display) -> Self {
        self.header(LOCATION, path.to_string())
    }

    /// The digest of the content that this answer is about.
    pub(crate) fn digest(self, digest: &Digest) -> Self {
        self.header(DOCKER_CONTENT_DIGEST, digest.to_string())
    }

    /// The entity tag of content that has a digest.
    pub(crate) fn etag(self, etag: String) -> Self {
        self.header(ETAG, etag)
    }

    /// Where the next page of a list is.
    pub(crate) fn next_page(self, path: impl Display, query: &str) -> Self {
        self.header(LINK, format!("<{path}?{query}>; rel=\"next\""))
    }

    /// The content, and its length.
    pub(crate) fn content(mut self, media_type: impl IntoValue, content: Content) -> Self {
        self.0.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(content.len()));
        *self.0.body_mut() = content;
        self.header(CONTENT_TYPE, media_type)
    }

    /// A value as JSON.
    pub(crate) fn json(self, media_type: &'static str, value: &impl Serialize) -> Self {
        // The values are ours, maps with text as keys: they have a JSON form.
        let text = serde_json::to_vec(value).unwrap_or_default();
        self.content(media_type, Content::Whole(Bytes::from(text)))
    }

    /// The length of content that is not sent along (HEAD), or that there is none.
    pub(crate) fn length(mut self, length: u64) -> Self {
        self.0.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        self
    }

    /// Done.
    pub(crate) fn into_response(self) -> Response<Content> {
        self.0
    }
}

/// What can be the value of a header.
pub(crate) trait IntoValue {
    fn into_value(self) -> Option<HeaderValue>;
}

impl IntoValue for HeaderValue {
    fn into_value(self) -> Option<HeaderValue> {
        Some(self)
    }
}

impl IntoValue for &'static str {
    fn into_value(self) -> Option<HeaderValue> {
        Some(HeaderValue::from_static(self))
    }
}

impl IntoValue for String {
    fn into_value(self) -> Option<HeaderValue> {
        HeaderValue::from_maybe_shared(Bytes::from(self)).ok()
    }
}

impl IntoValue for &std::sync::Arc<str> {
    fn into_value(self) -> Option<HeaderValue> {
        HeaderValue::from_str(self).ok()
    }
}
