//! What crosses the link between a hub and its site: an update is three requests, however large the image.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::time::Duration;

use deltaport_testkit::clients::Relay;
use deltaport_testkit::http::{Client, Request, Response};
use deltaport_testkit::process::Launch;
use deltaport_testkit::sample::{self, Image};

async fn push(hub: &Client, image: &Image) {
    for blob in image.blobs() {
        let upload = Request::post("/v2/app/blobs/uploads/").query("digest", blob.digest);
        assert_eq!(hub.send(upload.body(blob.bytes.clone())).await.status, 201);
    }
    let manifest =
        Request::put("/v2/app/manifests/latest").header("Content-Type", &image.manifest.media_type);
    assert_eq!(hub.send(manifest.body(image.manifest.bytes.clone())).await.status, 201);
}

async fn get(client: &Client, path: &str) -> Response {
    client.send(Request::get(path)).await
}

/// Pulls the image as clients do.
async fn pull(site: &Client, image: &Image) {
    let manifest = get(site, "/v2/app/manifests/latest").await;
    assert_eq!((manifest.status, &manifest.body), (200, &image.manifest.bytes));
    for blob in image.blobs() {
        let pulled = get(site, &format!("/v2/app/blobs/{}", blob.digest)).await;
        assert_eq!((pulled.status, &pulled.body), (200, &blob.bytes));
    }
}

/// The requests since the first `before`, without those that only open a connection.
fn since(link: &Relay, before: usize) -> Vec<String> {
    let requests = link.requests().into_iter().skip(before);
    requests.filter(|line| line != "GET /v2/ HTTP/1.1").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_three_requests_and_none_when_nothing_has_changed_but_one() {
    let hub = Launch::new(env!("CARGO_BIN_EXE_deltaport")).start().await;
    let link = Relay::to(hub.address());
    let config = format!(
        "[[upstream]]\nhost = \"hub.example\"\nurl = \"http://{}\"\ndefault = true\ndeltas = \"always\"\nmax_age = \"0s\"\n",
        link.address()
    );
    let site = Launch::new(env!("CARGO_BIN_EXE_deltaport")).config(&config).start().await;
    let files = sample::files(5, 60, 40_000);
    let [old, new] = [files.clone(), sample::changed(&files, 6, 20)]
        .map(|files| Image::of("amd64", vec![sample::layer_of(&files)]));

    push(&hub.client(), &old).await;
    pull(&site.client(), &old).await;
    push(&hub.client(), &new).await;
    let question = |from: &Image, to: &Image| {
        format!("/v2/app/_deltaport/delta/layer?to={}&from={}", to.layers[0].digest, from.layers[0].digest)
    };
    while get(&hub.client(), &question(&old, &new)).await.status == 202 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let (before, traffic) = (link.requests().len(), link.traffic());
    pull(&site.client(), &new).await;
    let asked = since(&link, before);
    let expected = ["manifests/latest", "_deltaport/delta/layer?to=", "blobs/"]
        .map(|path| format!("GET /v2/app/{path}"));
    assert_eq!(asked.len(), expected.len(), "{asked:#?}");
    for begin in &expected {
        assert!(asked.iter().any(|line| line.starts_with(begin)), "{begin}: {asked:#?}");
    }
    assert!(asked[0].starts_with(&expected[0]), "{asked:#?}");
    let bytes = (link.traffic() - traffic).total();
    assert!(bytes * 4 < new.layers[0].bytes.len() as u64, "{bytes}");

    let before = link.requests().len();
    pull(&site.client(), &new).await;
    assert_eq!(since(&link, before), ["GET /v2/app/manifests/latest HTTP/1.1"]);
}
