//! Layer deltas over HTTP.

use std::time::Duration;

use deltaport_testkit::http::{Request, Response};
use deltaport_testkit::sample::{self, Image};

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

    let none = ask(&running, &format!("/v2/app/_deltaport/delta/layer?to={}", new.digest)).await;
    assert_eq!((none.status, none.header("deltaport-delta-size")), (404, None));
}
