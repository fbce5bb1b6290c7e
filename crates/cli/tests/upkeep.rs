//! `deltaport fsck` and `deltaport rebuild` on what a real server has stored. What they find and mend is tested with the
//! store; here it is whether an operator is told, and what a script can rely on.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use deltaport_oci::Digest;
use deltaport_testkit::http::Request;
use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::sample::Image;
use serde_json::Value;

/// A server that has acknowledged an image as `team/app:1` and was stopped.
async fn stopped_with(image: &Image) -> Server {
    let mut server = Launch::new(env!("CARGO_BIN_EXE_deltaport")).start().await;
    let client = server.client();
    for blob in image.blobs() {
        let upload = Request::post("/v2/team/app/blobs/uploads/").query("digest", blob.digest);
        assert_eq!(client.send(upload.body(blob.bytes.clone())).await.status, 201);
    }
    let manifest =
        Request::put("/v2/team/app/manifests/1").header("Content-Type", &image.manifest.media_type);
    assert_eq!(client.send(manifest.body(image.manifest.bytes.clone())).await.status, 201);
    assert!(server.terminate().success());
    server
}

/// Runs a command on the data of a server: its exit code and what it wrote.
fn run(server: &Server, command: &[&str]) -> (i32, String) {
    let data = server.launch().data();
    let (status, text) = server.launch().run(&[command, &["--data", data.to_str().unwrap()]].concat());
    (status.code().unwrap(), text)
}

fn blob_file(server: &Server, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    server.launch().data().join("blobs/sha256").join(&hex[..2]).join(&hex)
}

/// Writes over a file that is not meant to be written to.
fn overwrite(path: &PathBuf, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

async fn tag_status(server: &mut Server) -> u16 {
    server.start_again().await;
    let status = server.client().send(Request::get("/v2/team/app/manifests/1")).await.status;
    assert!(server.terminate().success());
    status
}

#[tokio::test]
async fn good_data_are_called_good() {
    let server = stopped_with(&Image::small(1)).await;
    let (code, text) = run(&server, &["fsck"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.ends_with("All is well.\n") && text.contains("1 manifests"), "{text}");
    assert!(!text.contains('\x1b'), "progress is for terminals: {text}");
    let (code, text) = run(&server, &["fsck", "--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["ok"], &json["report"]["tags"]), (0, &Value::Bool(true), &Value::from(1)));
}

#[tokio::test]
async fn what_takes_the_room_is_told_beside_a_running_server_and_is_taken_back_without_one() {
    let image = Image::small(3);
    let mut server = stopped_with(&image).await;
    server.start_again().await;
    let (code, text) = run(&server, &["usage", "--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    let bytes: usize = image.blobs().chain([&image.manifest]).map(|content| content.bytes.len()).sum();
    assert_eq!(
        (code, &json["blobs"], &json["alone"]),
        (0, &Value::from(bytes), &Value::from(bytes)),
        "{text}"
    );
    assert_eq!(json["repositories"][0]["repository"], "team/app");
    let (code, text) = run(&server, &["usage"]);
    assert!(code == 0 && text.contains("team/app") && text.contains("alone"), "{text}");

    let manifest = format!("/v2/team/app/manifests/{}", image.manifest.digest);
    assert_eq!(server.client().send(Request::delete(&manifest)).await.status, 202);
    assert!(server.terminate().success());
    let config = format!("data = {:?}\n[collect]\ngrace = \"0s\"\n", server.launch().data());
    let config = server.launch().file("gc.toml", config);
    // Links go first; the bytes that nobody holds then have a grace of their own.
    let mut collected = 0;
    for _ in 0..2 {
        let (status, text) = server.launch().run(&["gc", "--json", "--config", config.to_str().unwrap()]);
        let json: Value = serde_json::from_str(&text).unwrap();
        assert!(status.success() && json["ok"] == true, "{text}");
        collected += json["collected"]["bytes"].as_u64().unwrap();
    }
    assert_eq!(collected, u64::try_from(bytes).unwrap());
    let (_, text) = run(&server, &["usage", "--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["blobs"], &json["repositories"]), (&Value::from(0), &Value::Array(Vec::new())));
}

/// A server without grace, with blobs that nothing refers to, that was killed once.
async fn crowded_with(image: &Image) -> Server {
    let mut server = Launch::new(env!("CARGO_BIN_EXE_deltaport"))
        .config("[collect]\ngrace = \"0s\"\ninterval = \"1h\"\n")
        .start()
        .await;
    let client = server.client();
    for blob in image.blobs() {
        let upload = Request::post("/v2/team/app/blobs/uploads/").query("digest", blob.digest);
        assert_eq!(client.send(upload.body(blob.bytes.clone())).await.status, 201);
    }
    // What a server that was killed left behind is in nobody's way.
    server.kill();
    assert!(server.launch().data().join("private/commands").exists());
    server.start_again().await;
    server
}

#[tokio::test]
async fn a_running_server_takes_back_room_itself_when_it_is_told_to() {
    let image = Image::small(7);
    let mut server = crowded_with(&image).await;
    let bytes: usize = image.blobs().map(|content| content.bytes.len()).sum();
    let socket = server.launch().data().join("private/commands");
    let mode = std::fs::metadata(socket.parent().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "nobody else may give commands");
    let mut collected = 0;
    for _ in 0..2 {
        let (code, text) = run(&server, &["gc", "--json"]);
        let json: Value = serde_json::from_str(&text).unwrap();
        assert!(code == 0 && json["ok"] == true, "{text}");
        collected += json["collected"]["bytes"].as_u64().unwrap();
    }
    assert_eq!(collected, u64::try_from(bytes).unwrap());
    let (code, text) = run(&server, &["gc"]);
    assert!(code == 0 && text.starts_with("Evicted 0 images"), "{text}");
    let metrics = server.client().send(Request::get("/metrics")).await.text();
    let runs = metrics.lines().find(|line| line.contains("collector_runs_total ")).unwrap();
    assert!(runs.ends_with(" 3"), "{runs}");
    assert!(server.terminate().success());
    assert!(!socket.exists(), "who stopped takes no commands");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_told() {
    let mut server = crowded_with(&Image::small(8)).await;
    let socket = server.launch().data().join("private/commands");
    // Somebody who is not asked again.
    for strange in ["", "nonsense\n", &format!("{}\n", "x".repeat(100_000))] {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        // It may hang up before it has heard everything.
        let _ = stream.write_all(strange.as_bytes());
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.is_empty() || answer.starts_with("{\"failed\":"), "{answer}");
    }
    assert_eq!(run(&server, &["gc"]).0, 0);

    std::fs::remove_file(&socket).unwrap();
    let (code, text) = run(&server, &["gc"]);
    assert_eq!(code, 1);
    assert!(
        text.contains(&format!("only process {}", server.pid())) && text.contains("takes no commands"),
        "{text}"
    );
    // One that takes the command and dies.
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let dying = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let (code, text) = run(&server, &["gc", "--json"]);
    dying.join().unwrap();
    assert_eq!(code, 1);
    assert!(text.contains("does not answer, so this may be done or not"), "{text}");
    assert!(server.terminate().success(), "{}", server.log());
}

#[tokio::test]
async fn damage_is_found_named_and_put_aside() {
    let image = Image::small(2);
    let server = stopped_with(&image).await;
    let layer = blob_file(&server, &image.layers[0].digest);
    overwrite(&layer, b"something else");
    let (code, text) = run(&server, &["fsck"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(&format!("error: blob-corrupt: {}", image.layers[0].digest)), "{text}");
    assert!(text.contains("`deltaport fsck --repair` mends"), "{text}");
    assert!(layer.exists(), "it only looked");
    let (code, text) = run(&server, &["fsck", "--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["ok"]), (1, &Value::Bool(false)));
    assert_eq!(json["report"]["findings"][0]["code"], "blob-corrupt");

    let (code, text) = run(&server, &["fsck", "--repair"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("; mended") && text.contains("quarantine"), "{text}");
    assert!(!layer.exists());
    let quarantine = std::fs::read_dir(server.launch().data().join("quarantine")).unwrap();
    let kept: Vec<Vec<u8>> = quarantine.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(kept.contains(&b"something else".to_vec()), "the damaged bytes are kept");
    let (code, text) = run(&server, &["fsck"]);
    assert_eq!(code, 0, "{text}");
}

#[tokio::test]
async fn a_lost_database_is_made_again() {
    let image = Image::small(3);
    let mut server = stopped_with(&image).await;
    std::fs::remove_file(server.launch().data().join("names.db")).unwrap();
    // Starting with an empty one would look as if everything was deleted.
    let (code, text) = run(&server, &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("run `deltaport rebuild`"), "{text}");

    let (code, text) = run(&server, &["rebuild"]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("1 repositories, 1 manifests, 1 tags") && text.contains("Nothing is lost"),
        "{text}"
    );
    assert_eq!(run(&server, &["fsck"]).0, 0);
    assert_eq!(tag_status(&mut server).await, 200);

    let (code, text) = run(&server, &["rebuild", "--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["ok"], &json["rebuilt"]["lost"]), (0, &Value::Bool(true), &Value::from(0)));
}

#[tokio::test]
async fn what_cannot_be_given_back_is_told() {
    let image = Image::small(4);
    let server = stopped_with(&image).await;
    std::fs::remove_file(blob_file(&server, &image.manifest.digest)).unwrap();
    let (code, text) = run(&server, &["rebuild"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("could not be given back; push them again:"), "{text}");
    assert!(text.contains("team/app"), "{text}");
}

#[tokio::test]
async fn nothing_is_checked_beside_a_running_server() {
    let mut server = stopped_with(&Image::small(5)).await;
    server.start_again().await;
    for command in ["fsck", "rebuild"] {
        let (code, text) = run(&server, &[command]);
        assert_eq!(code, 3, "{text}");
        assert!(text.contains("another deltaport") || text.contains("in use"), "{text}");
    }
}

#[test]
fn a_directory_without_data_is_not_good_data() {
    let launch = Launch::new(env!("CARGO_BIN_EXE_deltaport"));
    for command in ["fsck", "rebuild"] {
        let (status, text) = launch.run(&[command, "--data", launch.home().to_str().unwrap()]);
        assert_eq!(status.code(), Some(3), "{text}");
        assert!(text.contains("is not a data directory"), "{text}");
        assert_eq!(std::fs::read_dir(launch.home()).unwrap().count(), 0, "it made nothing there");
    }
}

#[tokio::test]
async fn the_configuration_says_where_the_data_are() {
    let server = stopped_with(&Image::small(6)).await;
    let config = server.launch().file("elsewhere.toml", "data = \"data\"");
    let (status, text) = server.launch().run(&["fsck", "--config", config.to_str().unwrap()]);
    assert_eq!(status.code(), Some(0), "{text}");
}
