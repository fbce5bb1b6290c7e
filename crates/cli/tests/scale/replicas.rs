//! Replicas of a hub are one registry.

use std::time::Duration;

use deltaport_testkit::http::Request;
use deltaport_testkit::s3::Kind;

use crate::hub::{Hub, MANIFEST, blob, push, push_in, tagged};
use crate::objects::Objects;

/// Longer than `fail_timeout` of deploy/nginx.conf.
const LEFT_OUT: Duration = Duration::from_millis(2500);

#[tokio::test]
async fn what_is_pushed_through_some_is_pulled_through_every_other() {
    let hub = Hub::start(3, Objects::start()).await;
    let clients = [0, 1, 2].map(|replica| hub.client(replica));
    // Every request through another: chunks of one upload, too.
    let pushed = push(&clients, "team/app", "latest", 1, 11 << 20).await;
    for client in &clients {
        let found = tagged(client, "team/app", "latest").await;
        assert_eq!((found.status, found.body), (200, pushed.manifest.clone()));
        let found = blob(client, "team/app", &pushed.layer_digest).await;
        assert!(found.status == 200 && found.body == pushed.layer, "{}", found.status);
    }
    // A tag that moves is seen at once, whoever remembered the old one.
    for round in 2..5 {
        let moved = push(&clients[..1], "team/app", "latest", round, 1000).await;
        for client in &clients {
            assert_eq!(tagged(client, "team/app", "latest").await.body, moved.manifest, "round {round}");
        }
    }
    let delete = Request::delete(&format!("/v2/team/app/manifests/{}", pushed.digest));
    assert_eq!(clients[1].send(delete).await.status, 202);
    for client in &clients {
        assert_eq!(tagged(client, "team/app", &pushed.digest).await.status, 404);
    }
}

#[tokio::test]
async fn behind_the_balancer_nobody_notices_that_one_is_killed() {
    let mut hub = Hub::start(3, Objects::start()).await;
    let balancer = hub.balancer();
    let client = [balancer.client()];
    let pushed = push(&client, "team/app", "latest", 7, 6 << 20).await;
    for killed in 0..3 {
        hub.replicas[killed].kill();
        for _ in 0..6 {
            let found = tagged(&client[0], "team/app", "latest").await;
            assert_eq!((found.status, found.body), (200, pushed.manifest.clone()));
        }
        let found = blob(&client[0], "team/app", &pushed.layer_digest).await;
        assert!(found.status == 200 && found.body == pushed.layer, "{}", found.status);
        // Nor does who puts a manifest, whoever of the three he would have come to.
        tokio::time::sleep(LEFT_OUT).await;
        for tag in ["one", "two", "three"] {
            let put = Request::put(&format!("/v2/team/app/manifests/{tag}"));
            let put = put.header("content-type", MANIFEST).body(pushed.manifest.clone());
            let answer = client[0].send(put).await;
            assert_eq!(answer.status, 201, "{tag}: {}", answer.text());
        }
        hub.replicas[killed].start_again().await;
        // So long nginx leaves it out.
        tokio::time::sleep(LEFT_OUT).await;
    }
}

#[tokio::test]
async fn a_blob_of_64_mib_takes_six_requests_to_push_and_one_to_pull() {
    let hub = Hub::start(1, Objects::kit()).await;
    let (client, objects) = (hub.client(0), hub.objects.counting());
    let before = objects.counts();
    let pushed = push_in(1, std::slice::from_ref(&client), "team/app", "latest", 3, 64 << 20).await;
    let of_push = objects.counts() - before;
    // The layer; configuration and manifest are an object each.
    assert!(of_push.total() <= 6 + 2, "{of_push:?}");
    let before = objects.counts();
    let found = blob(&client, "team/app", &pushed.layer_digest).await;
    assert_eq!(found.body.len(), 64 << 20);
    let of_pull = objects.counts() - before;
    assert_eq!((of_pull.of(Kind::Get), of_pull.total()), (1, 1), "{of_pull:?}");
}
