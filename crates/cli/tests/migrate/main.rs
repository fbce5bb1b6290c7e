//! `deltaport migrate` on the binary: a registry that is being served is moved to a bucket and a PostgreSQL, and from one
//! directory to several.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

mod split;

use deltaport_testkit::http::{Client, Request};
use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::sample::{self, File, Image};
use deltaport_testkit::{postgres, s3};
use serde_json::Value;

fn image(seed: u64) -> Image {
    let own = sample::layer_of(&[File::new("usr/bin/app", sample::bytes(seed, 40_000))]);
    Image::of("amd64", vec![sample::layer(1, 3000), own])
}

/// Pushes an image; the status of the first answer that is not as it should be.
async fn push(client: &Client, tag: &str, image: &Image) -> Result<(), (u16, Option<String>)> {
    let mut requests: Vec<Request> = image
        .blobs()
        .map(|blob| {
            Request::post("/v2/team/app/blobs/uploads/").query("digest", blob.digest).body(blob.bytes.clone())
        })
        .collect();
    let manifest = Request::put(&format!("/v2/team/app/manifests/{tag}"))
        .header("Content-Type", &image.manifest.media_type)
        .body(image.manifest.bytes.clone());
    requests.push(manifest);
    for request in requests {
        let answer = client.send(request).await;
        if answer.status != 201 {
            return Err((answer.status, answer.header("retry-after").map(str::to_owned)));
        }
    }
    Ok(())
}

/// Fails unless all of it is there, byte for byte.
async fn pull(client: &Client, tag: &str, image: &Image) {
    let accept = &image.manifest.media_type;
    let request = Request::get(&format!("/v2/team/app/manifests/{tag}")).header("Accept", accept);
    let answer = client.send(request).await;
    assert_eq!((answer.status, &answer.body), (200, &image.manifest.bytes), "{tag}");
    for blob in image.blobs() {
        let answer = client.send(Request::get(&format!("/v2/team/app/blobs/{}", blob.digest))).await;
        assert!(answer.status == 200 && answer.body == blob.bytes, "{tag}: {}", answer.status);
    }
}

/// An embedded registry, and the configuration of what it is to become.
struct Move {
    old: Server,
    new: Launch,
    _database: postgres::Database,
    _bytes: s3::Server,
}

impl Move {
    async fn prepare() -> Self {
        let (database, bytes) = (postgres::Database::new(), s3::Server::start());
        let launch = || {
            Launch::new(env!("CARGO_BIN_EXE_deltaport"))
                .variable("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY)
                .variable("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY)
        };
        let old = launch();
        let config = format!("data = '{}'\n[access]\ntrust_loopback = true\n", old.data().display());
        let old = old.config(&config).start().await;
        let new = launch();
        let config = format!(
            "data = '{data}'\n[access]\ntrust_loopback = true\n[storage]\nblobs = 's3://{bucket}/hub'\n\
             metadata = '{names}'\n[storage.s3]\nendpoint = '{endpoint}'\nregion = '{region}'\npath_style = true\n",
            data = new.data().display(),
            bucket = bytes.bucket(),
            names = database.url(),
            endpoint = bytes.endpoint(),
            region = s3::REGION,
        );
        Self { old, new: new.config(&config), _database: database, _bytes: bytes }
    }

    fn configs(&self) -> (String, String) {
        let path = |launch: &Launch| launch.home().join("config.toml").to_str().unwrap().to_owned();
        (path(self.old.launch()), path(&self.new))
    }

    /// Runs the command, and returns whether it succeeded and what it wrote.
    fn run(&self, more: &[&str]) -> (bool, String) {
        let (from, to) = self.configs();
        let mut arguments = vec!["migrate", "--from", &from];
        if !more.contains(&"--release") {
            arguments.extend(["--to", &to]);
        }
        arguments.extend(more);
        // With the variables of the new one, of which only it has need.
        let (status, text) = self.new.run(&arguments);
        (status.success(), text)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_moves_while_it_is_served() {
    let moving = Move::prepare().await;
    let client = moving.old.client();
    push(&client, "1", &image(1)).await.unwrap();
    let (from, _) = moving.configs();
    let (status, secret) = moving.old.launch().run(&[
        "token",
        "create",
        "ci",
        "--config",
        &from,
        "--scope",
        "repository:team/app:pull",
        "--expires",
        "1d",
        "--json",
    ]);
    assert!(status.success(), "{secret}");
    let secret: Value = serde_json::from_str(&secret).unwrap();

    let (good, text) = moving.run(&["--copy", "--json"]);
    assert!(good, "{text}");
    let copied: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&copied["ok"], &copied["switched"]), (&true.into(), &false.into()), "{text}");
    assert!(copied["passes"][0]["blobs"].as_u64().unwrap() >= 4, "{text}");
    // It may not be served yet, and the old one goes on.
    let (status, refused) = moving.new.run(&["gc", "--config", &moving.configs().1]);
    assert!(!status.success() && refused.contains("deltaport migrate"), "{refused}");
    push(&client, "2", &image(2)).await.unwrap();

    let (good, text) = moving.run(&[]);
    assert!(
        good && text.contains("nothing could be pushed") && text.contains("Next: deltaport serve"),
        "{text}"
    );
    // The old one serves what it has, and takes nothing.
    pull(&client, "2", &image(2)).await;
    let (status, retry_after) = push(&client, "3", &image(3)).await.unwrap_err();
    assert_eq!(status, 503);
    assert!(retry_after.is_some());

    let Move { old, new, _database, _bytes } = moving;
    let new = new.start().await;
    let client = new.client();
    for seed in [1, 2] {
        pull(&client, &seed.to_string(), &image(seed)).await;
    }
    push(&client, "3", &image(3)).await.unwrap();
    pull(&client, "3", &image(3)).await;
    let robot = client.logged_in("ci", secret["secret"].as_str().unwrap());
    pull(&robot, "1", &image(1)).await;
    drop(old);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_switch_can_be_taken_back() {
    let moving = Move::prepare().await;
    let client = moving.old.client();
    push(&client, "1", &image(1)).await.unwrap();
    let (good, text) = moving.run(&["--json"]);
    assert!(good, "{text}");
    let done: Value = serde_json::from_str(&text).unwrap();
    assert!(done["switched"] == true && done["held_seconds"].as_f64().unwrap() < 30.0, "{text}");
    assert!(push(&client, "2", &image(2)).await.is_err());
    let (good, text) = moving.run(&["--release"]);
    assert!(good && text.contains("takes pushes again"), "{text}");
    push(&client, "2", &image(2)).await.unwrap();
    // What was made of it is a registry of its own by now.
    let (good, text) = moving.run(&[]);
    assert!(!good && text.contains("empty"), "{text}");
    push(&client, "3", &image(3)).await.unwrap();
}
