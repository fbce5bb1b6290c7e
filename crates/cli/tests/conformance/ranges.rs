//! Parts of blobs (end-2 with `Range`; RFC 9110, section 14).

use deltaport_testkit::http::{Request, Response};
use deltaport_testkit::sample::{Content, bytes};

use crate::harness::{Registry, requirements};
use crate::steps::digest;

const SIZE: usize = 2048;

fn blob() -> Content {
    Content::new("application/octet-stream", bytes(99, SIZE))
}

async fn get(registry: &Registry, range: &str) -> Response {
    registry.push_blob(&blob()).await;
    let path = registry.path(format_args!("blobs/{}", blob().digest));
    registry.send(Request::get(&path).header("Range", range)).await
}

async fn expect_part(registry: &Registry, range: &str, part: std::ops::Range<usize>) {
    let response = get(registry, range).await;
    let content_range = format!("bytes {}-{}/{SIZE}", part.start, part.end - 1);
    assert_eq!(response.status, 206, "{range}");
    assert_eq!(response.header("content-range"), Some(content_range.as_str()), "{range}");
    assert_eq!(response.header("content-length"), Some(part.len().to_string().as_str()), "{range}");
    assert_eq!(digest(&response), Some(blob().digest));
    assert_eq!(response.body, blob().bytes[part], "{range}");
}

async fn expect_unsatisfiable(registry: &Registry, range: &str) {
    let response = get(registry, range).await;
    assert_eq!(response.status, 416, "{range}");
    assert_eq!(response.header("content-range"), Some(format!("bytes */{SIZE}").as_str()), "{range}");
}

async fn expect_whole(registry: &Registry, range: &str) {
    let response = get(registry, range).await;
    assert_eq!((response.status, response.body), (200, blob().bytes), "{range}");
}

/// The parts of a `multipart/byteranges` body: the header lines and the bytes of each.
fn parts(response: &Response) -> Vec<(String, Vec<u8>)> {
    let media_type = response.header("content-type").expect("a media type");
    let boundary = media_type.strip_prefix("multipart/byteranges; boundary=").expect(media_type);
    let delimiter = format!("\r\n--{}", boundary.trim_matches('"'));
    // The first delimiter may stand at the very beginning, without a line break before it.
    let body = [b"\r\n", response.body.strip_prefix(b"\r\n").unwrap_or(&response.body)].concat();
    let find =
        |haystack: &[u8], needle: &[u8]| haystack.windows(needle.len()).position(|bytes| bytes == needle);
    let mut rest = &body[find(&body, delimiter.as_bytes()).expect("a first delimiter") + delimiter.len()..];
    let mut parts = Vec::new();
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let head = find(part, b"\r\n\r\n").expect("headers");
        let content = &part[head + 4..];
        let end = find(content, delimiter.as_bytes()).expect("a last delimiter");
        parts.push((String::from_utf8(part[..head].to_vec()).expect("text"), content[..end].to_vec()));
        rest = &content[end + delimiter.len()..];
    }
    assert!(rest.starts_with(b"--"), "the last delimiter ends the body");
    parts
}

requirements! {
    /// Both ends are named.
    async fn a_part_in_the_middle(registry: &Registry) {
        expect_part(registry, "bytes=500-1499", 500..1500).await;
    }

    /// From an offset to the end: how a download is resumed.
    async fn a_part_to_the_end(registry: &Registry) {
        expect_part(registry, "bytes=500-", 500..SIZE).await;
    }

    /// The last bytes.
    async fn a_suffix(registry: &Registry) {
        expect_part(registry, "bytes=-500", SIZE - 500..SIZE).await;
    }

    /// A range that ends behind the content ends with it.
    async fn a_part_that_begins_inside_ends_with_the_content(registry: &Registry) {
        expect_part(registry, "bytes=2000-5000", 2000..SIZE).await;
    }

    /// A range that ends before it begins.
    async fn a_reversed_range_is_unsatisfiable(registry: &Registry) {
        expect_unsatisfiable(registry, "bytes=500-0").await;
    }

    /// A range behind the content.
    async fn a_range_behind_the_content_is_unsatisfiable(registry: &Registry) {
        expect_unsatisfiable(registry, "bytes=5000-10000").await;
        expect_unsatisfiable(registry, "bytes=2048-").await;
    }

    /// A unit or a form that is not understood is ignored (RFC 9110, section 14.2).
    async fn what_is_not_understood_is_ignored(registry: &Registry) {
        for range in ["lines=1-2", "bytes=a-b", "bytes"] {
            expect_whole(registry, range).await;
        }
    }

    /// Several parts come as `multipart/byteranges`, which partial pulls of chunked layers ask for.
    async fn several_parts_come_together(registry: &Registry) {
        let response = get(registry, "bytes=0-9,500-509,-8").await;
        assert_eq!(response.status, 206);
        assert_eq!(response.header("content-range"), None);
        assert_eq!(response.header("content-length"), Some(response.body.len().to_string().as_str()));
        let parts = parts(&response);
        let expected = [(0, 10), (500, 510), (2040, 2048)];
        assert_eq!(parts.len(), expected.len());
        for ((head, content), (start, end)) in parts.iter().zip(expected) {
            let range = format!("content-range: bytes {start}-{}/{SIZE}", end - 1);
            assert!(head.to_lowercase().contains(&range), "{head}");
            assert_eq!(content, &blob().bytes[start..end]);
        }
    }

    /// Parts that touch or overlap are one part, so a request cannot ask for the same bytes many times.
    async fn parts_that_touch_are_one(registry: &Registry) {
        expect_part(registry, "bytes=0-9,10-19,5-24", 0..25).await;
    }

    /// `If-Range`: a part if it is still that content, else everything.
    async fn a_part_of_other_content_is_not_sent(registry: &Registry) {
        registry.push_blob(&blob()).await;
        let path = registry.path(format_args!("blobs/{}", blob().digest));
        let etag = registry.send(Request::head(&path)).await.header("etag").expect("an ETag").to_owned();
        let get = |etag: &str| Request::get(&path).header("Range", "bytes=0-9").header("If-Range", etag);
        assert_eq!(registry.send(get(&etag)).await.status, 206);
        let other = registry.send(get("\"other\"")).await;
        assert_eq!((other.status, other.body.len()), (200, SIZE));
    }

    /// HEAD says that parts may be asked for.
    async fn ranges_are_announced(registry: &Registry) {
        registry.push_blob(&blob()).await;
        let response = registry.head(format_args!("blobs/{}", blob().digest)).await;
        assert_eq!(response.header("accept-ranges"), Some("bytes"));
    }
}
