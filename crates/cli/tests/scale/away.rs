//! When the database or the bucket is away: what is remembered is served, what would change something is refused in good
//! order, and everything goes on by itself afterwards.

use std::time::{Duration, Instant};

use deltaport_testkit::http::{Client, Request, Response};
use deltaport_testkit::postgres;
use deltaport_testkit::s3::Fault;

use crate::hub::{Hub, blob, push, tagged};
use crate::objects::Objects;

/// How long recovery may take. Only a hang takes this long.
const RECOVERY: Duration = Duration::from_secs(60);

async fn begin_upload(client: &Client) -> Response {
    client.send(Request::post("/v2/team/app/blobs/uploads/")).await
}

/// Waits until `ask` is answered with `status`.
async fn recovers<F: Future<Output = Response>>(status: u16, ask: impl Fn() -> F) {
    let deadline = Instant::now() + RECOVERY;
    loop {
        let answer = ask().await;
        if answer.status == status {
            return;
        }
        assert!(Instant::now() < deadline, "still {}: {}", answer.status, answer.text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A refusal that tells when to come again.
fn assert_later(answer: &Response) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some_and(|after| after.parse::<u64>().is_ok()), "{answer:?}");
}

#[tokio::test]
async fn without_the_database_what_is_remembered_is_served_and_changes_are_refused() {
    let server = postgres::Server::start();
    let database = server.database();
    let hub = Hub::over(2, Objects::kit(), &database.url()).await;
    let client = hub.client(0);
    let pushed = push(std::slice::from_ref(&client), "team/app", "latest", 1, 1000).await;
    // Remembered by the one, and not by the other.
    assert_eq!(tagged(&client, "team/app", &pushed.digest).await.status, 200);
    server.stop();
    let answer = tagged(&client, "team/app", &pushed.digest).await;
    assert_eq!((answer.status, answer.body), (200, pushed.manifest.clone()));
    assert_later(&begin_upload(&client).await);
    assert_later(&tagged(&hub.client(1), "team/app", &pushed.digest).await);
    assert_eq!(client.send(Request::get("/readyz")).await.status, 200, "it is not the replica's fault");
    server.start_again();
    recovers(202, || begin_upload(&client)).await;
    recovers(200, || tagged(&client, "team/app", "latest")).await;
    push(&[hub.client(0), hub.client(1)], "team/app", "next", 2, 1000).await;
}

#[tokio::test]
async fn without_the_bucket_manifests_are_served_and_bytes_come_back_by_themselves() {
    let hub = Hub::start(2, Objects::kit()).await;
    let clients = [hub.client(0), hub.client(1)];
    let pushed = push(&clients, "team/app", "latest", 1, 6 << 20).await;
    let objects = hub.objects.counting();
    objects.breaks(Fault::Status(503), |_| true);
    let answer = blob(&clients[0], "team/app", &pushed.layer_digest).await;
    assert_later(&answer);
    objects.mends();
    recovers(200, || blob(&clients[0], "team/app", &pushed.layer_digest)).await;
    objects.stop();
    assert_later(&blob(&clients[1], "team/app", &pushed.layer_digest).await);
    objects.start_again();
    recovers(200, || blob(&clients[1], "team/app", &pushed.layer_digest)).await;
    // Answers that get lost, requests that come twice, torn bodies: a push ends well all the same.
    for seed in 1..4 {
        objects.breaks_by_chance(
            seed,
            4,
            &[
                Fault::LoseAnswer,
                Fault::Twice,
                Fault::Status(500),
                Fault::CutRequest(100),
                Fault::CutAnswer(0),
            ],
        );
        let pushed = push(&clients, "team/app", "rough", 100 + seed, 6 << 20).await;
        objects.mends();
        let found = blob(&clients[0], "team/app", &pushed.layer_digest).await;
        assert!(found.status == 200 && found.body == pushed.layer, "seed {seed}: {}", found.status);
    }
}
