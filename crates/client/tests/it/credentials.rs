//! Who we are: passwords, tokens, where they come from, and who gets to see them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltaport_client::{ClientCertificate, CredentialSource, ErrorKind, Upstream};
use deltaport_testkit::tls::Certificates;
use deltaport_testkit::upstream::{Reply, Rule, Upstream as Script};

use serde_json::{Value, json};

use crate::harness::{
    authorizations, blob_path, fetch, given, kind, layer, options, repository, tag, upstream,
};

#[tokio::test]
async fn a_token_is_fetched_once_used_and_fetched_again_when_refused() {
    let content = layer(1, 1000);
    let path = blob_path(&content.digest);
    let script = Script::start(vec![]).await;
    let challenge = format!(
        "Bearer realm=\"{}/token\",service=\"s\",scope=\"repository:library/app:pull\"",
        script.url()
    );
    let refuse = || Reply::status(401).header("WWW-Authenticate", &challenge).body("{}");
    let token =
        |token: &str| Reply::status(200).body(format!("{{\"token\":\"{token}\",\"expires_in\":300}}"));
    script.first(Rule::on("GET", &path).reply(refuse()));
    script.first(
        Rule::on("GET", &path).with_header("authorization", "Bearer two").reply(Reply::content(&content)),
    );
    script.first(
        Rule::on("GET", &path)
            .with_header("authorization", "Bearer one")
            .times(2)
            .reply(Reply::content(&content)),
    );
    script.first(Rule::on("GET", "/token").reply(token("two")));
    script.first(Rule::on("GET", "/token").times(1).reply(token("one")));

    let upstream = upstream(&script);
    for _ in 0..3 {
        let (received, end) = fetch(&upstream, &content.digest, 0).await;
        end.unwrap();
        assert_eq!(received, content.bytes);
    }
    let asked = authorizations(&script);
    let token = "GET /token?service=s&scope=repository%3Alibrary%2Fapp%3Apull".to_owned();
    let basic = Some("Basic dXNlcjpzZWNyZXQ=".to_owned());
    let blob = format!("GET {path}");
    assert_eq!(
        asked,
        [
            (blob.clone(), None),
            (token.clone(), basic.clone()),
            (blob.clone(), Some("Bearer one".to_owned())),
            (blob.clone(), Some("Bearer one".to_owned())),
            (blob.clone(), Some("Bearer one".to_owned())),
            (token, basic),
            (blob, Some("Bearer two".to_owned())),
        ]
    );
    assert!(upstream.received() >= 3000);
}

#[tokio::test]
async fn a_refusal_after_the_token_is_final() {
    let script = Script::start(vec![]).await;
    let challenge = format!("Bearer realm=\"{}/token\"", script.url());
    script.first(Rule::on("GET", "/token").reply(Reply::status(200).body("{\"access_token\":\"t\"}")));
    script.first(
        Rule::on("HEAD", "/v2/library/app/manifests/latest")
            .reply(Reply::status(401).header("WWW-Authenticate", &challenge)),
    );
    let error = upstream(&script).head_manifest(&repository(), &tag()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Denied(_)), "{error}");
    assert_eq!(error.upstream(), "registry.example");
    assert_eq!(script.asked().len(), 3);
}

#[tokio::test]
async fn passwords_go_only_where_they_are_asked_for_and_only_if_there_are_any() {
    let refuse = Reply::status(401).header("WWW-Authenticate", "Basic realm=\"x\"");
    let script = Script::start(vec![
        Rule::on("GET", "/v2/")
            .with_header("authorization", "Basic dXNlcjpzZWNyZXQ=")
            .reply(Reply::status(200)),
        Rule::on("GET", "/v2/").reply(refuse),
    ])
    .await;
    let known = upstream(&script);
    known.ping().await.unwrap();
    known.ping().await.unwrap();
    let sent: Vec<bool> = authorizations(&script).iter().map(|(_, value)| value.is_some()).collect();
    assert_eq!(sent, [false, true, true]);

    let mut options = options(&script);
    options.credentials = None;
    let error = Upstream::new(&options).unwrap().ping().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Denied(_)), "{error}");

    options.credentials = Some(given("wrong"));
    let error = Upstream::new(&options).unwrap().ping().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Denied(_)), "{error}");
    assert!(!format!("{options:?}").contains("wrong"));
}

#[tokio::test]
async fn a_password_is_sent_for_other_repositories_without_being_asked_again() {
    let refuse = Reply::status(401).header("WWW-Authenticate", "Basic realm=\"x\"");
    let path = |name: &str| format!("/v2/{name}/manifests/latest");
    let mut rules = Vec::new();
    for path in ["a", "b"].map(path) {
        let known = Rule::on("HEAD", &path).with_header("authorization", "Basic dXNlcjpzZWNyZXQ=");
        rules.extend([known, Rule::on("HEAD", &path).reply(refuse.clone())]);
    }
    let script = Script::start(rules).await;
    let ask = async |upstream: &Upstream| {
        for name in ["a", "b"] {
            upstream.head_manifest(&name.parse().unwrap(), &tag()).await.unwrap();
        }
    };
    ask(&upstream(&script)).await;
    assert_eq!(script.lines(), ["a", "a", "b"].map(|name| format!("HEAD {}", path(name))));

    // A file of logins may have another login for each.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("auth.json");
    let login = |password: &str| json!({ "auth": STANDARD.encode(format!("user:{password}")) });
    let address = script.address().to_string();
    let auths = json!({ format!("{address}/a"): login("secret"), address: login("other") });
    fs::write(&file, json!({ "auths": auths }).to_string()).unwrap();
    let mut options = options(&script);
    options.credentials = Some(CredentialSource::ConfigFile(file));
    let upstream = Upstream::new(&options).unwrap();
    upstream.head_manifest(&"a".parse().unwrap(), &tag()).await.unwrap();
    upstream.head_manifest(&"b".parse().unwrap(), &tag()).await.unwrap_err();
    let b = format!("HEAD {}", path("b"));
    let sent: Vec<_> = authorizations(&script).into_iter().rev().take(2).collect();
    assert_eq!(sent[1], (b.clone(), None), "the password for a is not sent for b");
    assert_eq!(sent[0], (b, Some(format!("Basic {}", STANDARD.encode("user:other")))));
}

/// A registry that wants a token for everything, and what its token service answers.
async fn with_tokens(tokens: Vec<Rule>) -> Script {
    let script = Script::start(tokens).await;
    let challenge = format!("Bearer realm=\"{}/token\",service=\"s\"", script.url());
    let path = "/v2/library/app/manifests/latest";
    script.first(Rule::on("HEAD", path).reply(Reply::status(401).header("WWW-Authenticate", &challenge)));
    script
        .first(Rule::on("HEAD", path).with_header("authorization", "Bearer good").reply(Reply::status(200)));
    script
}

fn token(token: &str) -> Reply {
    Reply::status(200).body(format!("{{\"access_token\":\"{token}\"}}"))
}

async fn head(upstream: &Upstream) -> Result<(), deltaport_client::Error> {
    upstream.head_manifest(&repository(), &tag()).await.map(drop)
}

/// A file of logins with one for the script.
fn write_config(path: &Path, script: &Script, entry: &Value) {
    let file = json!({ "auths": { script.address().to_string(): entry } });
    fs::write(path, file.to_string()).unwrap();
}

#[tokio::test]
async fn a_password_that_changes_in_its_file_is_taken_when_the_old_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    let refuse = || Reply::status(401).header("WWW-Authenticate", "Basic realm=\"x\"");
    let script = Script::start(vec![Rule::on("GET", "/v2/").reply(refuse())]).await;
    let accept = |header: &str| {
        script.first(Rule::on("GET", "/v2/").reply(refuse()));
        script.first(Rule::on("GET", "/v2/").with_header("authorization", header));
    };
    let mut options = options(&script);
    options.credentials =
        Some(CredentialSource::PasswordFile { username: "user".to_owned(), path: path.clone() });
    let upstream = Upstream::new(&options).unwrap();

    let unreadable = upstream.ping().await.unwrap_err();
    assert!(matches!(unreadable.kind(), ErrorKind::Unavailable { .. }), "it may be there soon: {unreadable}");
    fs::write(&path, "secret\n").unwrap();
    accept("Basic dXNlcjpzZWNyZXQ=");
    upstream.ping().await.unwrap();
    fs::write(&path, "changed\n").unwrap();
    upstream.ping().await.unwrap();
    accept("Basic dXNlcjpjaGFuZ2Vk");
    upstream.ping().await.unwrap();
    accept("Basic dXNlcjpsYXRlcg==");
    let refused = upstream.ping().await.unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Denied(_)), "{refused}");
}

#[tokio::test]
async fn a_token_service_that_refuses_is_asked_again_only_with_other_credentials() {
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let script = with_tokens(vec![
        Rule::on("GET", "/token").with_header("authorization", &basic("me:new")).reply(token("good")),
        Rule::on("GET", "/token").reply(Reply::status(401)),
    ])
    .await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    let mut options = options(&script);
    options.credentials = Some(CredentialSource::ConfigFile(path.clone()));
    let upstream = Upstream::new(&options).unwrap();

    write_config(&path, &script, &json!({ "auth": STANDARD.encode("me:old") }));
    let refused = head(&upstream).await.unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Denied(_)), "{refused}");
    assert_eq!(script.lines().iter().filter(|line| line.contains("/token")).count(), 1);
    write_config(&path, &script, &json!({ "auth": STANDARD.encode("me:new") }));
    head(&upstream).await.unwrap();
}

#[tokio::test]
async fn an_identity_token_is_posted_and_never_in_an_address() {
    let script = with_tokens(vec![Rule::on("POST", "/token").reply(token("good"))]).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("auth.json");
    write_config(&path, &script, &json!({ "identitytoken": "refresh&me" }));
    let mut options = options(&script);
    options.credentials = Some(CredentialSource::ConfigFile(path));
    head(&Upstream::new(&options).unwrap()).await.unwrap();
    let asked = script.asked();
    let post = asked.iter().find(|asked| asked.method == "POST").unwrap();
    assert_eq!((post.target.as_str(), post.headers.first("authorization")), ("/token", None));
    assert_eq!(post.headers.first("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(
        str::from_utf8(&post.body).unwrap(),
        "grant_type=refresh_token&client_id=deltaport&refresh_token=refresh%26me\
         &service=s&scope=repository%3Alibrary%2Fapp%3Apull"
    );
}

#[tokio::test]
async fn who_is_not_in_the_file_asks_anonymously() {
    let script = with_tokens(vec![Rule::on("GET", "/token").reply(token("good"))]).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    let login = json!({ "auth": STANDARD.encode("me:secret") });
    fs::write(&path, json!({ "auths": { "127.0.0.1": login, "registry.example": login } }).to_string())
        .unwrap();
    let mut options = options(&script);
    options.credentials = Some(CredentialSource::ConfigFile(path));
    head(&Upstream::new(&options).unwrap()).await.unwrap();
    let sent = authorizations(&script);
    assert!(
        sent.iter().all(|(_, value)| value.as_deref().is_none_or(|value| value == "Bearer good")),
        "{sent:?}"
    );
}

#[tokio::test]
async fn a_token_is_not_made_out_for_more_because_the_registry_says_so() {
    let script = Script::start(vec![Rule::on("GET", "/token").reply(token("good"))]).await;
    let challenge =
        format!("Bearer realm=\"{}/token\",scope=\"repository:library/app:pull,push,delete\"", script.url());
    let path = "/v2/library/app/manifests/latest";
    script.first(Rule::on("HEAD", path).reply(Reply::status(401).header("WWW-Authenticate", &challenge)));
    let _ = head(&upstream(&script)).await;
    assert_eq!(script.lines()[1], "GET /token?scope=repository%3Alibrary%2Fapp%3Apull");
}

#[tokio::test]
async fn a_token_that_expires_in_mid_blob_is_replaced_and_the_registry_is_asked_again() {
    let content = layer(7, 100_000);
    let path = blob_path(&content.digest);
    let storage = Script::start(vec![
        Rule::on("GET", "/first").times(1).reply(Reply::content(&content).truncated_after(40_000)),
        Rule::on("GET", "/second").reply(Reply::content(&content)),
    ])
    .await;
    let script = Script::start(vec![
        Rule::on("GET", "/token").times(1).reply(token("one")),
        Rule::on("GET", "/token").reply(token("two")),
    ])
    .await;
    let to = |place: &str| Reply::status(307).header("Location", &format!("{}{place}", storage.url()));
    let challenge = format!("Bearer realm=\"{}/token\"", script.url());
    script.first(Rule::on("GET", &path).reply(Reply::status(401).header("WWW-Authenticate", &challenge)));
    script.first(Rule::on("GET", &path).with_header("authorization", "Bearer two").reply(to("/second")));
    script.first(
        Rule::on("GET", &path).with_header("authorization", "Bearer one").times(1).reply(to("/first")),
    );

    let upstream = upstream(&script);
    let (mut received, end) = fetch(&upstream, &content.digest, 0).await;
    assert!(matches!(kind(end), ErrorKind::Unavailable { .. }));
    let (rest, end) = fetch(&upstream, &content.digest, received.len() as u64).await;
    end.unwrap();
    let begun = received.len();
    received.extend_from_slice(&rest);
    assert_eq!(received, content.bytes);
    assert_eq!(storage.lines(), ["GET /first", "GET /second"]);
    assert_eq!(storage.asked()[1].headers.first("range"), Some(format!("bytes={begun}-").as_str()));
    let sent: Vec<_> =
        authorizations(&script).into_iter().map(|(_, value)| value.unwrap_or_default()).collect();
    let basic = "Basic dXNlcjpzZWNyZXQ=";
    assert_eq!(sent, ["", basic, "Bearer one", "Bearer one", basic, "Bearer two"]);
}

fn write_client(certificates: &Certificates, directory: &Path) -> ClientCertificate {
    let (chain, key) = (directory.join("client.pem"), directory.join("client.key"));
    fs::write(&chain, &certificates.client_pem).unwrap();
    fs::write(&key, &certificates.client_key_pem).unwrap();
    ClientCertificate { chain, key }
}

#[tokio::test]
async fn a_client_certificate_that_changes_is_taken_without_a_restart() {
    let (certificates, foreign) = (Certificates::new(), Certificates::new());
    let directory = tempfile::tempdir().unwrap();
    let script = Script::start_tls(vec![Rule::on("GET", "/v2/")], &certificates).await;
    let mut options = options(&script);
    options.ca = Some(certificates.authority_pem.clone().into_bytes());
    options.certificate = Some(write_client(&foreign, directory.path()));
    let upstream = Upstream::new(&options).unwrap();
    let refused = upstream.ping().await.unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Unavailable { .. }), "{refused}");
    fs::write(directory.path().join("client.pem"), "half of a file").unwrap();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert!(upstream.ping().await.is_err(), "the old one is shown while the new one is not whole");
    write_client(&certificates, directory.path());
    tokio::time::sleep(Duration::from_millis(2100)).await;
    upstream.ping().await.unwrap();
    assert!(script.asked().iter().all(|asked| asked.certified));
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_the_registry_and_to_nobody_behind_it() {
    let certificates = Certificates::new();
    let content = layer(8, 1000);
    let path = blob_path(&content.digest);
    let storage =
        Script::start_tls(vec![Rule::on("GET", "/blob").reply(Reply::content(&content))], &certificates)
            .await;
    let to = Reply::status(307).header("Location", &format!("{}/blob", storage.url()));
    let home = Script::start_tls(vec![Rule::on("GET", &path).reply(to)], &certificates).await;
    let mut options = options(&home);
    options.ca = Some(certificates.authority_pem.clone().into_bytes());
    let directory = tempfile::tempdir().unwrap();
    options.certificate = Some(write_client(&certificates, directory.path()));
    let (received, end) = fetch(&Upstream::new(&options).unwrap(), &content.digest, 0).await;
    end.unwrap();
    assert_eq!(received, content.bytes);
    let certified = |script: &Script| script.asked().iter().map(|asked| asked.certified).collect::<Vec<_>>();
    assert_eq!((certified(&home), certified(&storage)), (vec![true], vec![false]));

    fs::write(directory.path().join("client.key"), "secret").unwrap();
    let error = Upstream::new(&options).unwrap_err().to_string();
    assert!(error.contains("certificate") && !error.contains("secret"), "{error}");
}

#[tokio::test]
async fn a_token_service_that_is_allowed_sees_the_certificate_too() {
    let certificates = Certificates::new();
    let tokens = Script::start_tls(vec![Rule::on("GET", "/token").reply(token("good"))], &certificates).await;
    let realm = format!("{}/token", tokens.url()).replace("127.0.0.1", "localhost");
    let refuse = Reply::status(401).header("WWW-Authenticate", &format!("Bearer realm=\"{realm}\""));
    let home = Script::start_tls(vec![Rule::on("GET", "/v2/").reply(refuse)], &certificates).await;
    home.first(Rule::on("GET", "/v2/").with_header("authorization", "Bearer good"));
    let mut options = options(&home);
    options.token_hosts = vec!["localhost".to_owned()];
    options.ca = Some(certificates.authority_pem.clone().into_bytes());
    let directory = tempfile::tempdir().unwrap();
    options.certificate = Some(write_client(&certificates, directory.path()));
    Upstream::new(&options).unwrap().ping().await.unwrap();
    assert!(tokens.asked()[0].certified);
}
