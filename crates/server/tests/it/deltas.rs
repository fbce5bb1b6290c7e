//! Layer deltas over HTTP.

use std::time::Duration;

use deltaport_testkit::http::{Request, Response};
use deltaport_testkit::sample::{self, Content, Image};
use serde_json::json;

use crate::harness::{Running, Setup, push_image};

/// Asks until the answer is final.
async fn ask(running: &Running, target: &str) -> Response {
    for _ in 0..1000 {
        let answer = running.send(Request::get(target)).await;
        if answer.status != 202 {
            return answer;
        }
        assert_eq!(answer.header("retry-after"), Some("1"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the delta is never ready");
}

#[tokio::test]
async fn a_delta_is_a_blob_of_the_repository_and_its_size_is_told_with_its_place() {
    let running = Setup::new().start().await;
    let files = sample::files(1, 60, 10_000);
    let (old, new) = (sample::layer_of(&files), sample::layer_of(&sample::changed(&files, 2, 20)));
    for (tag, layer) in [("1", &old), ("2", &new)] {
        push_image(&running.client, "app", tag, &Image::of("amd64", vec![layer.clone()])).await;
    }
    let target = format!("/v2/app/_deltaport/delta/layer?to={}&from={}", new.digest, old.digest);
    let found = ask(&running, &target).await;
    assert_eq!(found.status, 307, "{}", found.text());
    let delta = running.send(Request::get(found.header("location").expect("a place"))).await;
    assert_eq!(delta.status, 200);
    assert_eq!(found.header("deltaport-delta-size"), Some(delta.body.len().to_string().as_str()));
    assert!(delta.body.len() < new.bytes.len() / 2);

    let place = found.header("location").expect("a place");
    for (most, sent) in
        [(delta.body.len(), true), (usize::MAX, true), (delta.body.len() - 1, false), (0, false)]
    {
        let answer = running.send(Request::get(&format!("{target}&inline={most}"))).await;
        let digest = answer.header("docker-content-digest").expect("the delta's digest");
        assert!(place.ends_with(digest));
        if !sent {
            assert_eq!((answer.status, answer.header("location"), answer.body.len()), (307, Some(place), 0));
            continue;
        }
        assert_eq!((answer.status, &answer.body), (200, &delta.body), "{most}");
        for (name, value) in [
            ("content-type", "application/vnd.deltaport.layer-delta.v1"),
            ("content-location", place),
            ("etag", &format!("\"{digest}\"")),
            ("deltaport-delta-size", &delta.body.len().to_string()),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
        // Who was cut off goes on with the blob.
        let rest =
            Request::get(place).header("Range", "bytes=100-").header("If-Range", format!("\"{digest}\""));
        let rest = running.send(rest).await;
        assert_eq!((rest.status, &rest.body[..]), (206, &delta.body[100..]));
    }
    for wrong in ["", "-1", "many"] {
        let refused = running.send(Request::get(&format!("{target}&inline={wrong}"))).await;
        assert_eq!(refused.status, 400, "{wrong}");
    }

    // Who has nothing to offer is told what there is.
    let list = async |layer: &Content| {
        running.send(Request::get(&format!("/v2/app/_deltaport/delta/layer?to={}", layer.digest))).await
    };
    let made = list(&new).await;
    let digest = found.header("docker-content-digest").expect("its digest").to_owned();
    let expected = json!({ "base": old.digest, "digest": digest, "size": delta.body.len() });
    assert_eq!((made.status, made.json()), (200, json!({ "deltas": [expected] })));
    let none = list(&old).await;
    assert_eq!((none.status, none.header("deltaport-delta-size")), (404, None));
}
