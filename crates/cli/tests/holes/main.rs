//! Holes that registries and their clients have had, each tried on the real binary: one test or more for every class, with
//! the advisories that it is named after. docs/security.md says what closes each of them.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

mod callers;
mod content;
mod upstreams;

use deltaport_testkit::http::{Client, Request, Response};
use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::sample::{Content, Image};

/// The password of every user.
const PASSWORD: &str = "correct horse";

/// A registry with two teams that have nothing to do with each other. `anna` may do everything below `a/`, `bert` below
/// `b/`, and so may whoever is in the group `guests` below `g/`, which is `gina`.
async fn two_teams() -> Server {
    let launch = Launch::new(env!("CARGO_BIN_EXE_deltaport"));
    launch.file("htpasswd", passwords(&["anna", "bert", "gina"]));
    launch.config(&rules("gina")).start().await
}

fn passwords(users: &[&str]) -> String {
    let line = |user: &&str| deltaport_trust::passwords::line(user, PASSWORD, [1; 16]).unwrap() + "\n";
    users.iter().map(line).collect()
}

fn rules(guest: &str) -> String {
    let rule = |who: &str, repositories: &str| {
        format!(
            "[[access.rule]]\nrepositories = [\"{repositories}\"]\nallow = [\"pull\", \"push\", \"delete\"]\n{who}\n"
        )
    };
    format!(
        "[access]\nhtpasswd = \"htpasswd\"\ngroups = {{ guests = [\"{guest}\"] }}\n{}{}{}",
        rule("users = [\"anna\"]", "a/**"),
        rule("users = [\"bert\"]", "b/**"),
        rule("groups = [\"guests\"]", "g/**"),
    )
}

fn user(server: &Server, name: &str) -> Client {
    server.client().logged_in(name, PASSWORD)
}

async fn send(client: &Client, method: &str, path: &str) -> Response {
    client.send(Request::new(method, path)).await
}

async fn push_blob(client: &Client, repository: &str, blob: &Content) {
    let path = format!("/v2/{repository}/blobs/uploads/");
    let answer =
        client.send(Request::post(&path).query("digest", blob.digest).body(blob.bytes.clone())).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}

async fn push_manifest(client: &Client, repository: &str, reference: &str, manifest: &Content) -> Response {
    let path = format!("/v2/{repository}/manifests/{reference}");
    client
        .send(Request::put(&path).header("Content-Type", &manifest.media_type).body(manifest.bytes.clone()))
        .await
}

async fn push(client: &Client, repository: &str, tag: &str, image: &Image) {
    for blob in image.blobs() {
        push_blob(client, repository, blob).await;
    }
    let answer = push_manifest(client, repository, tag, &image.manifest).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}

/// An error of the registry in the words of the specification, and nothing of what went on inside.
fn is_refused(answer: &Response, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.json()["errors"][0]["code"].is_string(), "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
}
