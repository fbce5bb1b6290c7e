//! What a hub makes by itself, although it is killed over it.

use std::io::Cursor;
use std::path::Path;
use std::time::{Duration, Instant};

use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::sample::{Content, Image};
use serde_json::{Value, json};

use crate::command;
use crate::registry::{fetch, pair_of, push};

/// How long a test waits for something that must happen.
const LIMIT: Duration = Duration::from_secs(120);

/// How many deltas the hub has told that it made, since the beginning of its process.
fn made(server: &Server) -> usize {
    server.log().matches("a delta was made").count()
}

async fn wait_until_made(server: &Server, count: usize) {
    let deadline = Instant::now() + LIMIT;
    while made(server) < count {
        assert!(Instant::now() < deadline, "{} of {count} deltas were made\n{}", made(server), server.log());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The layers of the image, with the deltas to each that the registry says there are.
fn list(server: &Server) -> Vec<Value> {
    let words = format!("list {}/team/app:latest --json", server.address());
    let mut listed = command::delta(&words, Path::new("."), "").good().json();
    serde_json::from_value(listed["images"][0]["layers"].take()).unwrap()
}

fn apply(base: &Content, delta: &[u8]) -> Vec<u8> {
    let (mut layer, limits) = (Vec::new(), deltaport_delta::Limits::default());
    let (mut bases, scratch) = ([Cursor::new(&base.bytes)], Cursor::new(Vec::new()));
    deltaport_delta::apply(&mut bases, delta, &mut layer, scratch, &limits).unwrap();
    layer
}

#[tokio::test]
async fn a_hub_that_is_killed_makes_the_deltas_that_it_owed() {
    let mut server = Launch::new(env!("CARGO_BIN_EXE_deltaport")).start().await;
    // Sizes tell which layer replaces which.
    let pairs: Vec<[Content; 2]> = (0..6).map(|n| pair_of(100 + 2 * n, 60 + 40 * n as usize)).collect();
    let version = |n: usize| Image::of("amd64", pairs.iter().map(|pair| pair[n].clone()).collect());
    push(&server, "latest", &version(0)).await;
    push(&server, "latest", &version(1)).await;
    // The first has been made, so all of them have been written down, and the next has begun. It is killed over that,
    // and over the one after it.
    let mut told = 0;
    for _ in 0..2 {
        wait_until_made(&server, 1).await;
        server.kill();
        told += made(&server);
        assert!(told < pairs.len(), "one after the other");
        server.start_again().await;
    }
    // Nobody asks for them: to list is no such question. One may have been finished whose line was not written any more.
    let deadline = Instant::now() + LIMIT;
    let layers = loop {
        let layers = list(&server);
        if layers.iter().all(|layer| layer["deltas"] != json!([])) {
            break layers;
        }
        assert!(Instant::now() < deadline, "{layers:#?}\n{}", server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for ([old, new], layer) in pairs.iter().zip(&layers) {
        let deltas = layer["deltas"].as_array().unwrap();
        let [delta] = &deltas[..] else { panic!("one is enough: {deltas:#?}") };
        let (base, artifact) = (json!(old.digest), Value::Null);
        assert_eq!(
            (&layer["digest"], &delta["base"], &delta["artifact"]),
            (&json!(new.digest), &base, &artifact)
        );
        let path = format!("/v2/team/app/blobs/{}", delta["digest"].as_str().unwrap());
        let bytes = fetch(&server, &path).await;
        assert_eq!(delta["size"], bytes.len());
        assert!(apply(old, &bytes) == new.bytes);
    }
    let shown =
        command::delta(&format!("list {}/team/app:latest", server.address()), Path::new("."), "").good();
    assert_eq!(shown.stdout.matches(", made by the hub\n").count(), pairs.len(), "{}", shown.stdout);
    assert!(server.terminate().success());
    told += made(&server);
    assert!(told <= pairs.len(), "{told} were made of {}", pairs.len());
    let data = server.launch().data();
    let (status, text) = server.launch().run(&["fsck", "--data", data.to_str().unwrap()]);
    assert!(status.success(), "{text}");
}
