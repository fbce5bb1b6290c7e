//! What upstreams say: realms that ask for passwords, redirects into the network of the site, content that is another.

use deltaport_testkit::http::Request;
use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::sample::{self, Image};
use deltaport_testkit::upstream::{Reply, Rule, Upstream};

use crate::send;

const HOST: &str = "hub.example";

/// A site that logs in to `upstream`, open to who is on this machine.
async fn site(upstream: &Upstream, more: &str) -> Server {
    let launch = Launch::new(env!("CARGO_BIN_EXE_deltaport"));
    launch.file("password", "s3cret\n");
    let config = format!(
        "[[upstream]]\nhost = \"{HOST}\"\nurl = \"{}\"\nusername = \"me\"\npassword_file = \"password\"\n{more}\n",
        upstream.url()
    );
    launch.config(&config).start().await
}

/// Whether somebody was told who we are there.
fn was_told(upstream: &Upstream) -> bool {
    upstream.asked().iter().any(|asked| asked.headers.first("authorization").is_some())
}

/// Realms that ask for the password of another: CVE-2026-33540, CVE-2026-48978, CVE-2026-50151, GHSA-vh4v-2xq2-g5cg,
/// CVE-2019-10214, CVE-2026-12566.
#[tokio::test]
async fn a_realm_elsewhere_is_not_told_the_password() {
    let thief =
        Upstream::start(vec![Rule::on("GET", "/token").reply(Reply::status(200).body("{\"token\":\"x\"}"))])
            .await;
    let realm = thief.url().replace("127.0.0.1", "localhost");
    for challenge in [
        format!("Bearer realm=\"{realm}/token\",service=\"hub\",scope=\"repository:app:pull\""),
        format!(
            "Bearer realm=\"http://127.0.0.1@localhost:{}/token\",service=\"hub\"",
            thief.address().port()
        ),
        format!("Bearer realm=\"//localhost:{}/token\",service=\"hub\"", thief.address().port()),
    ] {
        let upstream = Upstream::start(vec![]).await;
        for method in ["GET", "HEAD"] {
            let refuse = Reply::status(401).header("WWW-Authenticate", &challenge);
            upstream.first(Rule::on(method, "/v2/app/manifests/latest").reply(refuse));
        }
        let site = site(&upstream, "").await;
        let answer = send(&site.client(), "GET", &format!("/v2/{HOST}/app/manifests/latest")).await;
        assert!(matches!(answer.status, 404 | 502), "{challenge}: {}", answer.text());
        assert!(!was_told(&thief), "{challenge}");
        assert!(!site.log().contains("s3cret"));
    }
}

/// Passwords that follow redirects and addresses of blobs elsewhere: CVE-2020-15157, CVE-2026-49349.
#[tokio::test]
async fn nobody_that_a_registry_points_to_is_told_the_password() {
    let image = Image::small(1);
    let layer = &image.layers[0];
    let elsewhere = Upstream::start(vec![]).await;
    for method in ["GET", "HEAD"] {
        elsewhere.first(Rule::on(method, "/blob").reply(Reply::content(layer)));
    }
    let refuse = || Reply::status(401).header("WWW-Authenticate", "Basic realm=\"hub\"");
    let upstream = Upstream::start(vec![]).await;
    let path = format!("/v2/app/blobs/{}", layer.digest);
    for method in ["GET", "HEAD"] {
        upstream.first(Rule::on(method, &path).reply(refuse()));
        let place = format!("{}/blob", elsewhere.url().replace("127.0.0.1", "localhost"));
        let moved = Reply::status(307).header("Location", &place);
        upstream
            .first(Rule::on(method, &path).with_header("authorization", "Basic bWU6czNjcmV0").reply(moved));
    }
    let site = site(&upstream, "redirect_hosts = [\"localhost\"]").await;
    let answer = send(&site.client(), "GET", &format!("/v2/{HOST}/app/blobs/{}", layer.digest)).await;
    assert_eq!(answer.body, layer.bytes, "{}\n{}", answer.text(), site.log());
    assert!(!elsewhere.asked().is_empty() && !was_told(&elsewhere));

    // An address in a manifest is a name for others, and nothing that a site goes to.
    let foreign = Upstream::start(vec![]).await;
    let mut descriptor = sample::layer(77, 100).descriptor();
    descriptor["urls"] = serde_json::json!([format!("{}/layer", foreign.url())]);
    let manifest = sample::manifest(&image.config, &[], serde_json::json!({ "layers": [descriptor] }));
    for method in ["GET", "HEAD"] {
        upstream.first(Rule::on(method, "/v2/app/manifests/foreign").reply(Reply::content(&manifest)));
    }
    let answer = send(&site.client(), "GET", &format!("/v2/{HOST}/app/manifests/foreign")).await;
    assert_eq!(answer.body, manifest.bytes);
    let missing = sample::layer(77, 100).digest;
    let answer = send(&site.client(), "GET", &format!("/v2/{HOST}/app/blobs/{missing}")).await;
    assert!(matches!(answer.status, 404 | 502), "{}", answer.text());
    assert!(foreign.asked().is_empty(), "{:?}", foreign.lines());
}

/// Requests that a site makes for who has no way there: CVE-2026-2376, CVE-2026-7471, CVE-2020-13788, CVE-2025-59346,
/// CVE-2026-24117.
#[tokio::test]
async fn no_name_and_no_redirect_makes_a_site_ask_where_it_was_not_told_to() {
    let inside = Upstream::start(vec![]).await;
    let upstream = Upstream::start(vec![]).await;
    let blob = sample::layer(5, 100).digest;
    let port = inside.address().port();
    for target in [
        format!("http://localhost:{port}/latest/meta-data"),
        format!("http://[::1]:{port}/"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "file:///etc/passwd".to_owned(),
        format!("gopher://localhost:{port}/"),
    ] {
        for method in ["GET", "HEAD"] {
            let moved = Reply::status(307).header("Location", &target);
            upstream.first(Rule::on(method, &format!("/v2/app/blobs/{blob}")).reply(moved));
        }
        let site = site(&upstream, "negative_age = \"0s\"").await;
        let answer = send(&site.client(), "GET", &format!("/v2/{HOST}/app/blobs/{blob}")).await;
        assert!(matches!(answer.status, 404 | 502 | 503), "{target}: {} {}", answer.status, answer.text());
    }
    let site = site(&upstream, "").await;
    for name in [
        format!("/v2/localhost:{}/app/manifests/latest", port),
        format!("/v2/app/manifests/latest?ns=localhost:{}", port),
        format!("/v2/app/manifests/latest?ns=http://localhost:{}/", port),
        "/v2/app/manifests/latest?ns=169.254.169.254".to_owned(),
        format!("/v2/app/manifests/latest?ns={HOST}@localhost:{}", port),
    ] {
        let answer = send(&site.client(), "GET", &name).await;
        assert!(matches!(answer.status, 400 | 404), "{name}: {}", answer.status);
    }
    let request = Request::get("/v2/app/manifests/latest").header("Host", format!("localhost:{}", port));
    assert_eq!(site.client().send(request).await.status, 404);
    assert!(inside.asked().is_empty(), "{:?}", inside.lines());
}

/// Content that is not what was pinned: GHSA-qv35-3gw6-8q4j.
#[tokio::test]
async fn what_an_upstream_sends_for_a_digest_is_that_or_nothing() {
    let (wanted, other) = (Image::small(1), Image::small(2));
    let upstream = Upstream::start(vec![Rule::no_hub()]).await;
    for method in ["GET", "HEAD"] {
        let path = format!("/v2/app/manifests/{}", wanted.manifest.digest);
        let lie = Reply::content(&other.manifest)
            .header("Docker-Content-Digest", &wanted.manifest.digest.to_string());
        upstream.first(Rule::on(method, &path).reply(lie));
        let path = format!("/v2/app/blobs/{}", wanted.config.digest);
        upstream.first(Rule::on(method, &path).reply(Reply::content(&other.config)));
    }
    let site = site(&upstream, "").await;
    for path in [format!("manifests/{}", wanted.manifest.digest), format!("blobs/{}", wanted.config.digest)] {
        let answer = site.client().try_send(Request::get(&format!("/v2/{HOST}/app/{path}"))).await;
        let told = answer.as_ref().is_ok_and(|answer| answer.status == 200);
        assert!(!told, "{path}: {answer:?}");
    }
}
