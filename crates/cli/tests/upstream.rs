//! A site that logs in to its upstream, as a process: every way to tell it who it is.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use deltaport_oci::media_type;
use deltaport_testkit::http::Request;
use deltaport_testkit::process::Launch;
use deltaport_testkit::sample::Content;
use deltaport_testkit::upstream::{Reply, Rule, Upstream};

const BLOB: &str = "a blob that only `me` may read";

fn launch() -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_deltaport"))
}

/// A registry that lets in `me` with the password `secret`; two of its repositories have the blob.
async fn upstream() -> (Upstream, Content) {
    let blob = Content::new(media_type::OCTET_STREAM, BLOB);
    let refuse = || Reply::status(401).header("WWW-Authenticate", "Basic realm=\"x\"");
    let mut rules = Vec::new();
    for (name, method) in [("app", "HEAD"), ("app", "GET"), ("other", "HEAD"), ("other", "GET")] {
        let path = format!("/v2/{name}/blobs/{}", blob.digest);
        let known = Rule::on(method, &path).with_header("authorization", "Basic bWU6c2VjcmV0");
        rules.extend([known.reply(Reply::content(&blob)), Rule::on(method, &path).reply(refuse())]);
    }
    (Upstream::start(rules).await, blob)
}

#[tokio::test]
async fn a_site_logs_in_with_what_it_is_given() {
    let (upstream, blob) = upstream().await;
    let launch = launch();
    let home = launch.home().to_owned();
    let helper = "#!/bin/sh\n[ \"$1\" = get ] && printf '{\"Username\":\"me\",\"Secret\":\"secret\"}'\n";
    let helper = launch.file("docker-credential-sample", helper);
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o700)).unwrap();
    launch.file("password", "secret\n");
    let auths = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"bWU6c2VjcmV0\"}}}}}}", upstream.address());
    launch.file("auth.json", auths);

    let path = format!("{}:{}", home.display(), std::env::var("PATH").unwrap());
    let mut launch = launch.variable("PATH", &path).variable("SAMPLE_PASSWORD", "secret");
    let ways = [
        ("file", "username = \"me\"\npassword_file = \"password\""),
        ("variable", "username = \"me\"\npassword_env = \"SAMPLE_PASSWORD\""),
        ("logins", "credentials_file = \"auth.json\""),
        ("helper", "credential_helper = \"sample\""),
        ("nobody", ""),
    ];
    let config: String = ways
        .iter()
        .map(|(host, keys)| {
            format!("[[upstream]]\nhost = \"{host}.example\"\nurl = \"{}\"\n{keys}\n", upstream.url())
        })
        .collect();
    launch = launch.config(&config);
    let server = launch.start().await;
    for (host, _) in ways {
        let target = format!("/v2/{host}.example/app/blobs/{}", blob.digest);
        let answer = server.client().send(Request::get(&target)).await;
        let expected = if host == "nobody" { 404 } else { 200 };
        assert_eq!(answer.status, expected, "{host}: {}", server.log());
    }
    assert!(!server.log().contains("secret"), "{}", server.log());
}

#[tokio::test]
async fn a_helper_is_asked_again_when_its_last_answer_is_refused() {
    let (upstream, blob) = upstream().await;
    let launch = launch();
    let home = launch.home().to_owned();
    let helper = "#!/bin/sh\necho asked >> \"${0%/*}/asked\"\ncat \"${0%/*}/answer\"\n";
    let helper = launch.file("docker-credential-sample", helper);
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o700)).unwrap();
    let answer = |password: &str| format!("{{\"Username\":\"me\",\"Secret\":\"{password}\"}}");
    launch.file("answer", answer("outdated"));
    let path = format!("{}:{}", home.display(), std::env::var("PATH").unwrap());
    let config = format!(
        "[[upstream]]\nhost = \"a.example\"\nurl = \"{}\"\ncredential_helper = \"sample\"\n",
        upstream.url()
    );
    let server = launch.variable("PATH", &path).config(&config).start().await;
    let asked = || fs::read_to_string(home.join("asked")).unwrap_or_default().lines().count();
    assert_eq!(asked(), 0, "nobody has wanted to know yet");
    // That a repository has nothing for us is remembered for a while, so another one is asked afterwards.
    let get = async |name: &str| {
        let target = format!("/v2/a.example/{name}/blobs/{}", blob.digest);
        server.client().send(Request::get(&target)).await.status
    };
    assert_eq!(get("app").await, 404);
    let before = asked();
    fs::write(home.join("answer"), answer("secret")).unwrap();
    assert_eq!(get("other").await, 200, "{}", server.log());
    assert!(asked() > before);
}

#[tokio::test]
async fn what_cannot_be_used_is_said_at_the_start() {
    let launch = launch();
    launch.file("broken.json", "{\"auths\": \"secret\"}");
    for (keys, expected) in [
        ("username = \"me\"\npassword_file = \"none\"", "cannot read"),
        ("username = \"me\"\npassword_env = \"SAMPLE_NONE\"", "the environment has no SAMPLE_NONE"),
        ("credentials_file = \"broken.json\"", "not a file of logins"),
        ("client_certificate = \"broken.json\"\nclient_key = \"broken.json\"", "client certificate"),
    ] {
        let config = format!("[[upstream]]\nhost = \"a.example\"\nurl = \"https://a.example\"\n{keys}\n");
        let path = launch.file("sample.toml", config);
        let (status, text) = launch.run(&["config", "check", "--config", path.to_str().unwrap()]);
        assert!(!status.success() && text.contains(expected), "{keys}: {text}");
        assert!(!text.contains("secret"), "{text}");
    }
}
