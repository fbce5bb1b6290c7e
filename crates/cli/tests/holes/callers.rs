//! Who asks, and what they may: reads across repositories, sessions of others, lists, revocation, headers of proxies.

use std::time::{Duration, Instant};

use deltaport_testkit::http::Request;
use deltaport_testkit::process::Launch;
use deltaport_testkit::sample::{Image, layer};
use rustix::process::Signal;

use crate::{PASSWORD, is_refused, passwords, push, push_blob, rules, send, two_teams, user};

/// How long something may take that must happen.
const SOON: Duration = Duration::from_secs(20);

/// Reads across repositories by what they share: CVE-2024-39897 (mount), CVE-2026-35172 (stale membership),
/// CVE-2026-27771, CVE-2025-68944.
#[tokio::test]
async fn what_two_repositories_share_is_not_read_or_mounted_across() {
    let server = two_teams().await;
    let (anna, bert) = (user(&server, "anna"), user(&server, "bert"));
    let image = Image::small(1);
    push(&anna, "a/app", "latest", &image).await;
    let layer = image.layers[0].digest;
    is_refused(&send(&bert, "GET", &format!("/v2/a/app/blobs/{layer}")).await, 403);
    // By a repository of his own, whether he asks for the place it came from or for any.
    is_refused(&send(&bert, "GET", &format!("/v2/b/app/blobs/{layer}")).await, 404);
    for from in ["&from=a/app", ""] {
        let mount = send(&bert, "POST", &format!("/v2/b/app/blobs/uploads/?mount={layer}{from}")).await;
        assert_eq!(mount.status, 202, "an upload instead of the blob: {}", mount.text());
        assert_eq!(send(&bert, "HEAD", &format!("/v2/b/app/blobs/{layer}")).await.status, 404);
    }
    // What the content is does not tell who else has it: he has to send all of it.
    let mut part = image.layers[0].clone();
    part.bytes = part.bytes.slice(..10);
    let path = format!("/v2/b/app/blobs/uploads/?digest={layer}");
    is_refused(&bert.send(Request::post(&path).body(part.bytes)).await, 400);
    // Once it was his, and is not any more, it is gone for him at once.
    push_blob(&bert, "b/app", &image.layers[0]).await;
    assert_eq!(send(&bert, "DELETE", &format!("/v2/b/app/blobs/{layer}")).await.status, 202);
    is_refused(&send(&bert, "GET", &format!("/v2/b/app/blobs/{layer}")).await, 404);
    assert_eq!(send(&anna, "GET", &format!("/v2/a/app/blobs/{layer}")).await.status, 200);
}

/// Sessions of others: CVE-2026-32589.
#[tokio::test]
async fn an_upload_is_of_no_use_to_others_and_its_name_cannot_be_guessed() {
    let server = two_teams().await;
    let (anna, bert) = (user(&server, "anna"), user(&server, "bert"));
    let mut names = Vec::new();
    for _ in 0..2 {
        let begun = send(&anna, "POST", "/v2/a/app/blobs/uploads/").await;
        let location = begun.header("location").unwrap().to_owned();
        for method in ["GET", "PATCH", "PUT", "DELETE"] {
            for path in [location.clone(), location.replace("/v2/a/", "/v2/b/")] {
                let answer = send(&bert, method, &path).await;
                assert!(matches!(answer.status, 400 | 403 | 404), "{method} {path}: {}", answer.status);
            }
        }
        assert_eq!(send(&anna, "GET", &location).await.status, 204, "it is still hers");
        let name = location.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
        assert!(name.len() >= 22, "128 bits take as many characters: {name}");
        names.push(name);
    }
    assert_ne!(names[0], names[1]);
}

/// Deleting around a rule: CVE-2026-41888, CVE-2026-31801, by tag, by digest, and by pushing over it.
#[tokio::test]
async fn deleting_and_moving_need_the_right_on_what_they_change() {
    let server = two_teams().await;
    let (anna, bert) = (user(&server, "anna"), user(&server, "bert"));
    let (image, other) = (Image::small(1), Image::small(2));
    push(&anna, "a/app", "latest", &image).await;
    let manifest = image.manifest.digest;
    for path in [
        "/v2/a/app/manifests/latest".to_owned(),
        format!("/v2/a/app/manifests/{manifest}"),
        format!("/v2/a/app/blobs/{}", image.layers[0].digest),
    ] {
        is_refused(&send(&bert, "DELETE", &path).await, 403);
    }
    for path in
        ["/v2/a/app/manifests/latest".to_owned(), format!("/v2/a/app/manifests/{manifest}?tag=latest")]
    {
        let request = Request::put(&path)
            .header("Content-Type", &other.manifest.media_type)
            .body(other.manifest.bytes.clone());
        is_refused(&bert.send(request).await, 403);
    }
    assert_eq!(send(&anna, "GET", "/v2/a/app/manifests/latest").await.body, image.manifest.bytes);
}

/// Lists that tell what there is: CVE-2020-29662, CVE-2019-19030, CVE-2020-13794, CVE-2022-46463.
#[tokio::test]
async fn nobody_learns_what_there_is_beyond_what_they_may_see() {
    let server = two_teams().await;
    let anna = user(&server, "anna");
    push(&anna, "a/secret", "latest", &Image::small(1)).await;
    let bert = user(&server, "bert");
    let catalog = send(&bert, "GET", "/v2/_catalog").await;
    assert!(catalog.status == 200 && !catalog.text().contains("secret"), "{}", catalog.text());
    is_refused(&send(&server.client(), "GET", "/v2/_catalog").await, 401);
    for path in ["tags/list", "manifests/latest", "referrers/sha256:00"] {
        let there = send(&bert, "GET", &format!("/v2/a/secret/{path}")).await;
        let missing = send(&bert, "GET", &format!("/v2/a/nowhere/{path}")).await;
        assert_eq!(there.status, missing.status, "{path}");
        let words = |text: &str| text.replace("a/secret", "X").replace("a/nowhere", "X");
        assert_eq!(words(&there.text()), words(&missing.text()), "{path}");
    }
}

/// Rights that outlive who gave them: CVE-2025-23208, CVE-2022-31668, CVE-2024-22278.
#[tokio::test]
async fn who_leaves_a_group_or_the_password_file_is_out_at_once() {
    let server = two_teams().await;
    let gina = user(&server, "gina");
    push(&gina, "g/app", "latest", &Image::small(1)).await;
    let status = async || send(&gina, "GET", "/v2/g/app/manifests/latest").await.status;
    let until = async |wanted: u16| {
        let deadline = Instant::now() + SOON;
        while status().await != wanted {
            assert!(Instant::now() < deadline, "never {wanted}\n{}", server.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(status().await, 200);
    server.launch().file("config.toml", rules("nobody"));
    server.signal(Signal::HUP);
    until(403).await;
    // What was remembered of her password is forgotten with it.
    server.launch().file("htpasswd", passwords(&["anna", "bert"]));
    until(401).await;
}

/// Passwords that everybody knows, and such as stand in logs: CVE-2026-4404, CVE-2025-48374, GHSA-prh4-vhfh-24mj.
#[tokio::test]
async fn there_is_no_password_to_begin_with_and_none_in_the_log() {
    let launch = Launch::new(env!("CARGO_BIN_EXE_deltaport"));
    launch.file("htpasswd", "");
    let server = launch.config("[access]\nhtpasswd = \"htpasswd\"\n[log]\nlevel = \"trace\"").start().await;
    for (name, password) in [("admin", "admin"), ("admin", ""), ("root", "root"), ("admin", "Harbor12345")] {
        is_refused(&server.client().send(Request::get("/v2/").basic(name, password)).await, 401);
    }
    drop(server);
    let launch = Launch::new(env!("CARGO_BIN_EXE_deltaport"));
    launch.file("htpasswd", passwords(&["anna"]));
    let mut server =
        launch.config("[access]\nhtpasswd = \"htpasswd\"\n[log]\nlevel = \"trace\"").start().await;
    let basic = "YW5uYTpjb3JyZWN0IGhvcnNl"; // anna and her password, as the header has them
    assert_eq!(server.client().send(Request::get("/v2/").basic("anna", PASSWORD)).await.status, 200);
    is_refused(&server.client().send(Request::get("/v2/").basic("anna", "another horse")).await, 401);
    let header = Request::get("/v2/").header("Authorization", "Bearer not-a-token-of-ours");
    is_refused(&server.client().send(header).await, 401);
    server.terminate();
    for secret in [PASSWORD, "another horse", basic, "not-a-token-of-ours", "argon2id"] {
        assert!(!server.log().contains(secret), "{secret}");
    }
}

/// Time that tells whether there is such a user: CVE-2023-20902, CVE-2025-59350. That comparisons take the same time is
/// for a review; that a user who is not there costs as much as one who is can be counted.
#[tokio::test]
async fn a_user_who_is_not_there_takes_as_long_as_one_who_is() {
    let server = two_teams().await;
    let took = async |name: &str| {
        let mut least = Duration::MAX;
        for n in 0..5 {
            let begun = Instant::now();
            let wrong = format!("wrong {n}");
            is_refused(&server.client().send(Request::get("/v2/").basic(name, &wrong)).await, 401);
            least = least.min(begun.elapsed());
        }
        least
    };
    let (there, missing) = (took("anna").await, took("nobody").await);
    // One without the hash takes a hundredth. Between those with it, machines differ by less than this.
    assert!(missing * 4 > there && there * 4 > missing, "{there:?} and {missing:?}");
}

/// Headers that only a proxy may set: CVE-2026-20896.
#[tokio::test]
async fn headers_of_proxies_give_nobody_anything() {
    let server = two_teams().await;
    push(&user(&server, "anna"), "a/app", "latest", &Image::small(1)).await;
    for (name, value) in [
        ("X-Forwarded-For", "127.0.0.1"),
        ("Forwarded", "for=127.0.0.1"),
        ("X-Real-IP", "127.0.0.1"),
        ("X-Forwarded-User", "anna"),
        ("X-Remote-User", "anna"),
        ("X-WEBAUTH-USER", "anna"),
        ("X-Forwarded-Client-Cert", "Subject=\"CN=anna\""),
    ] {
        let request = Request::get("/v2/a/app/manifests/latest").header(name, value);
        is_refused(&server.client().send(request).await, 401);
    }
    // Where this machine is trusted, what comes through a proxy on it is not.
    let open = Launch::new(env!("CARGO_BIN_EXE_deltaport")).start().await;
    assert_eq!(send(&open.client(), "POST", "/v2/x/blobs/uploads/").await.status, 202);
    let proxied = Request::post("/v2/x/blobs/uploads/").header("X-Forwarded-For", "203.0.113.9");
    is_refused(&open.client().send(proxied).await, 401);
}

/// Web pages that have the browser ask: CVE-2019-19025, CVE-2024-22244, CVE-2025-32019; and names of a page's own that
/// lead to this machine.
#[tokio::test]
async fn a_page_in_a_browser_is_not_this_machine_and_answers_are_no_pages() {
    let server = Launch::new(env!("CARGO_BIN_EXE_deltaport")).start().await;
    let client = server.client();
    for (name, value) in
        [("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site"), ("Host", "evil.example")]
    {
        is_refused(&client.send(Request::post("/v2/x/blobs/uploads/").header(name, value)).await, 401);
    }
    let script = "<script>alert(1)</script>";
    for path in
        [format!("/v2/{script}/manifests/x"), format!("/v2/x/manifests/{script}"), format!("/{script}")]
    {
        let answer = send(&client, "GET", &path).await;
        assert!(answer.status >= 400 && !answer.text().contains("<script>"), "{}", answer.text());
        assert_eq!(answer.header("set-cookie"), None);
        assert_ne!(answer.header("content-type"), Some("text/html"), "{path}");
    }
    // What was pushed is not taken for a page either.
    let page = layer(1, 100);
    push_blob(&client, "x", &page).await;
    let blob = send(&client, "GET", &format!("/v2/x/blobs/{}", page.digest)).await;
    assert_eq!(blob.header("content-type"), Some("application/octet-stream"));
    assert_eq!(blob.header("x-content-type-options"), Some("nosniff"));
}

/// SQL in what callers send: CVE-2019-19026, CVE-2019-19029, CVE-2024-22261, CVE-2025-30086.
#[tokio::test]
async fn quotes_are_letters_like_others_or_none() {
    let server = Launch::new(env!("CARGO_BIN_EXE_deltaport")).start().await;
    let client = server.client();
    push(&client, "x", "latest", &Image::small(1)).await;
    let quotes = ["%27", "%27%20OR%20%271%27%3D%271", "%22%3B%20DROP%20TABLE%20tags%3B--", "%00", "%25"];
    for quote in quotes {
        for path in [
            format!("/v2/x{quote}/tags/list"),
            format!("/v2/x/manifests/latest{quote}"),
            format!("/v2/x/tags/list?last={quote}&n={quote}"),
            format!("/v2/_catalog?last={quote}"),
            format!("/v2/x/referrers/sha256:{quote}?artifactType={quote}"),
            format!("/v2/x/blobs/uploads/{quote}"),
            format!("/v2/x/manifests/latest?ns={quote}"),
        ] {
            let answer = send(&client, "GET", &path).await;
            assert!(answer.status < 500, "{path}: {} {}", answer.status, answer.text());
        }
    }
    assert_eq!(send(&client, "GET", "/v2/x/tags/list").await.json()["tags"][0], "latest");
}
