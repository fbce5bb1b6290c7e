//! A replica that is killed in the middle of a delta and of a mirror run: each is taken up by another when its lease is
//! over, and done once.

use std::time::{Duration, Instant};

use deltaport_testkit::http::Request;
use deltaport_testkit::postgres::Database;
use deltaport_testkit::process::Server;
use deltaport_testkit::sample::{self, Content, Image, bytes};
use deltaport_testkit::upstream::{Gate, Reply, Rule, Upstream};

use crate::hub::launch;
use crate::objects::Objects;

const HOST: &str = "registry.example";
/// How long a replica that has died is believed to be at work (`Replicas::lease`).
const LEASE: Duration = Duration::from_secs(30);
/// How long others may then take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An upstream with `app:v1`, whose layer stops in the middle the first time.
async fn upstream(image: &Image, held: &Gate) -> Upstream {
    let (digest, layer) = (image.manifest.digest, &image.layers[0]);
    let path = format!("/v2/app/blobs/{}", layer.digest);
    let first = Reply::content(layer).ranged().held_after(100_000, held);
    let mut rules = vec![Rule::no_hub(), Rule::on("GET", &path).times(1).reply(first)];
    for method in ["HEAD", "GET"] {
        for reference in ["v1".to_owned(), digest.to_string()] {
            let path = format!("/v2/app/manifests/{reference}");
            rules.push(Rule::on(method, &path).reply(Reply::content(&image.manifest)));
        }
        for blob in image.blobs() {
            let path = format!("/v2/app/blobs/{}", blob.digest);
            rules.push(Rule::on(method, &path).reply(Reply::content(blob).ranged()));
        }
    }
    let nothing = sample::index(&[], serde_json::json!({}));
    rules.push(Rule::on("GET", &format!("/v2/app/referrers/{digest}")).reply(Reply::content(&nothing)));
    for ending in [".sig", ".att", ".sbom", ""] {
        let path = format!("/v2/app/manifests/{}{ending}", digest.to_string().replace(':', "-"));
        rules.push(Rule::on("HEAD", &path).reply(Reply::status(404)));
    }
    Upstream::start(rules).await
}

fn asked(upstream: &Upstream, end: &str) -> usize {
    upstream.asked().iter().filter(|asked| asked.target.ends_with(end)).count()
}

async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether the database says so.
fn is_so(database: &Database, condition: &str) -> bool {
    database.execute(&format!("SELECT CASE WHEN {condition} THEN 1 ELSE 0 END")) == "1"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_replica_was_doing_is_done_by_another_and_once() {
    let (objects, database) = (Objects::kit(), Database::new());
    let held = Gate::new();
    let image = Image::of("amd64", vec![Content::new(sample::LAYER_TAR, bytes(1, 400_000))]);
    let upstream = upstream(&image, &held).await;
    let more = format!(
        "[[upstream]]\nhost = \"{HOST}\"\nurl = \"{}\"\n\
         [[mirror]]\nname = \"all\"\nsource = \"{HOST}/app\"\ntags = [\"v1\"]\nevery = \"1h\"\n",
        upstream.url()
    );
    // The first one to be there runs the rule.
    let first = launch(&objects, &database.url(), &more).start().await;
    let layer = image.layers[0].digest.to_string();
    until("the first replica is in the middle of a layer", async || asked(&upstream, &layer) == 1).await;
    let others = [
        launch(&objects, &database.url(), &more).start().await,
        launch(&objects, &database.url(), &more).start().await,
    ];
    let mut replicas: Vec<Server> = [first].into_iter().chain(others).collect();

    // A delta that takes a while.
    let client = replicas[0].client();
    let files = sample::files(3, 60, 250_000);
    let [old, new] = [sample::layer_of(&files), sample::layer_of(&sample::changed(&files, 1, 4))];
    for (tag, layer) in [("old", &old), ("new", &new)] {
        let image = Image::of("amd64", vec![layer.clone()]);
        for blob in image.blobs() {
            let push = Request::post("/v2/own/app/blobs/uploads/").query("digest", blob.digest);
            assert_eq!(client.send(push.body(blob.bytes.clone())).await.status, 201);
        }
        let put = Request::put(&format!("/v2/own/app/manifests/{tag}"));
        let put = put.header("Content-Type", &image.manifest.media_type).body(image.manifest.bytes.clone());
        assert_eq!(client.send(put).await.status, 201);
    }
    let delta = format!("/v2/own/app/_deltaport/delta/layer?to={}&from={}", new.digest, old.digest);
    assert_eq!(client.send(Request::get(&delta)).await.status, 202);
    until("it is being made", async || {
        is_so(&database, "EXISTS (SELECT 1 FROM delta_job WHERE claimed IS NOT NULL)")
    })
    .await;

    replicas[0].kill();
    let died = Instant::now();
    held.open();
    let client = replicas[1].client();
    until("the delta is there", async || client.send(Request::get(&delta)).await.status != 202).await;
    assert!(died.elapsed() > LEASE / 2, "it was believed to be at work: {:?}", died.elapsed());
    until("the rule was run", async || {
        is_so(&database, "EXISTS (SELECT 1 FROM slot WHERE name = 'mirror all' AND done IS NOT NULL)")
    })
    .await;
    assert!(died.elapsed() < LEASE + PATIENCE, "{:?}", died.elapsed());
    assert_eq!(
        asked(&upstream, "manifests/v1"),
        2,
        "each of two runs has looked once: {:#?}",
        upstream.lines()
    );
    assert!(is_so(
        &database,
        "(SELECT count(*) FROM layer_delta) = 1 AND NOT EXISTS (SELECT 1 FROM delta_job)"
    ));
    let path = format!("/v2/{HOST}/app/manifests/v1");
    assert_eq!(client.send(Request::get(&path)).await.body, image.manifest.bytes);
}
