//! What hostile upstreams try: to have us ask places that nobody allowed, and to be told who we are there.

use deltaport_client::{ErrorKind, Upstream};
use deltaport_oci::media_type;
use deltaport_testkit::sample::Content;
use deltaport_testkit::upstream::{Reply, Rule, Upstream as Script};

use crate::harness::{authorizations, blob_path, fetch, kind, layer, options, repository, tag, upstream};

#[tokio::test]
async fn a_foreign_token_service_gets_nothing() {
    let thief = Script::start(vec![Rule::on("GET", "/token")]).await;
    let realm = thief.url().replace("127.0.0.1", "localhost");
    let script =
        Script::start(vec![Rule::on("GET", "/v2/").reply(
            Reply::status(401).header("WWW-Authenticate", &format!("Bearer realm=\"{realm}/token\"")),
        )])
        .await;
    let error = upstream(&script).ping().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Denied(_)), "{error}");
    assert!(error.to_string().contains("token_hosts"), "{error}");
    assert!(thief.asked().is_empty());

    let mut options = options(&script);
    options.token_hosts = vec!["localhost".to_owned()];
    let error = Upstream::new(&options).unwrap().ping().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Protocol(_)), "{error}");
    assert_eq!(thief.asked().len(), 1);
}

#[tokio::test]
async fn a_redirect_to_another_host_or_port_takes_no_credentials_along() {
    let content = layer(2, 5000);
    let path = blob_path(&content.digest);
    let home = Script::start(vec![]).await;
    let storage = Script::start(vec![
        Rule::on("GET", "/storage").reply(Reply::content(&content)),
        Rule::on("GET", "/back").reply(Reply::status(302).header("Location", &format!("{}/own", home.url()))),
        Rule::on("GET", "/asks").reply(Reply::status(401).header("WWW-Authenticate", "Basic realm=\"x\"")),
    ])
    .await;
    home.first(Rule::on("GET", "/own").reply(Reply::content(&content)));
    home.first(
        Rule::on("GET", &path).reply(Reply::status(401).header("WWW-Authenticate", "Basic realm=\"x\"")),
    );
    let send_to = |location: String| {
        home.first(
            Rule::on("GET", &path)
                .with_header("authorization", "Basic dXNlcjpzZWNyZXQ=")
                .reply(Reply::status(307).header("Location", &location)),
        );
    };
    let elsewhere = storage.url().replace("127.0.0.1", "localhost");
    let mut options = options(&home);
    options.redirect_hosts = vec!["localhost".to_owned()];
    let upstream = Upstream::new(&options).unwrap();

    for location in [format!("{}/storage", storage.url()), format!("{elsewhere}/storage"), "/own".to_owned()]
    {
        send_to(location);
        let (received, end) = fetch(&upstream, &content.digest, 0).await;
        end.unwrap();
        assert_eq!(received, content.bytes);
    }
    let last = authorizations(&home).pop().unwrap();
    assert!(last.0 == "GET /own" && last.1.is_some(), "within the registry itself they are kept: {last:?}");

    send_to(format!("{}/back", storage.url()));
    fetch(&upstream, &content.digest, 0).await.1.unwrap();
    let last = authorizations(&home).pop().unwrap();
    assert_eq!(last, ("GET /own".to_owned(), None), "whoever sends us back must not borrow our name");

    send_to(format!("{}/asks", storage.url()));
    let refused = kind(fetch(&upstream, &content.digest, 0).await.1);
    assert!(matches!(refused, ErrorKind::Denied(_)), "{refused}");
    assert!(authorizations(&storage).iter().all(|(_, value)| value.is_none()));
}

#[tokio::test]
async fn redirects_to_the_inside_and_without_end_are_refused() {
    let inside = Script::start(vec![Rule::on("GET", "/secret")]).await;
    let content = layer(3, 10);
    let path = blob_path(&content.digest);
    let script = Script::start(vec![]).await;
    let port = inside.address().port();
    for location in [
        format!("http://localhost:{port}/secret"),
        format!("http://127.0.0.2:{port}/secret"),
        format!("http://[::1]:{port}/secret"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        format!("http://user:pw@127.0.0.1:{port}/secret"),
        "file:///etc/passwd".to_owned(),
        path.clone(),
    ] {
        script.first(Rule::on("GET", &path).reply(Reply::status(302).header("Location", &location)));
        let error = fetch(&upstream(&script), &content.digest, 0).await.1.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Protocol(_)), "{location}: {error}");
    }
    assert!(inside.asked().is_empty());
}

#[tokio::test]
async fn a_token_service_cannot_send_the_password_on() {
    let thief = Script::start(vec![Rule::on("GET", "/token")]).await;
    let script = Script::start(vec![]).await;
    let challenge = format!("Bearer realm=\"{}/token\"", script.url());
    script.first(Rule::on("GET", "/v2/").reply(Reply::status(401).header("WWW-Authenticate", &challenge)));
    for status in [301, 302, 303, 307, 308] {
        let to = Reply::status(status).header("Location", &format!("{}/token", thief.url()));
        script.first(Rule::on("GET", "/token").reply(to));
        let error = upstream(&script).ping().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Protocol(_)), "{error}");
    }
    assert!(thief.asked().is_empty());
}

#[tokio::test]
async fn a_realm_inside_of_our_network_is_not_asked() {
    let script = Script::start(vec![]).await;
    let port = script.address().port();
    for realm in [
        format!("http://127.0.0.2:{port}/token"),
        format!("http://[::ffff:127.0.0.1]:{port}/token"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://user:pw@127.0.0.1/token".to_owned(),
        format!("http://127.0.0.1:{port}@10.0.0.1/token"),
        "gopher://127.0.0.1/token".to_owned(),
        "file:///etc/passwd".to_owned(),
        "token".to_owned(),
    ] {
        let challenge = format!("Bearer realm=\"{realm}\"");
        script
            .first(Rule::on("GET", "/v2/").reply(Reply::status(401).header("WWW-Authenticate", &challenge)));
        let error = upstream(&script).ping().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Denied(_) | ErrorKind::Protocol(_)), "{realm}: {error}");
        assert!(!error.to_string().contains("pw"), "{error}");
    }
    assert!(script.lines().iter().all(|line| line == "GET /v2/"));
}

#[tokio::test]
async fn each_step_of_a_chain_of_redirects_is_judged() {
    let content = layer(9, 100);
    let path = blob_path(&content.digest);
    let home = Script::start(vec![]).await;
    let port = home.address().port();
    let inside = format!("http://localhost:{port}/inside");
    let storage = Script::start(vec![
        Rule::on("GET", "/1").reply(Reply::status(302).header("Location", "/2")),
        Rule::on("GET", "/2").reply(Reply::status(302).header("Location", "3")),
        Rule::on("GET", "/3").reply(Reply::content(&content)),
        Rule::on("GET", "/to-name").reply(Reply::status(302).header("Location", &inside)),
        Rule::on("GET", "/to-link-local")
            .reply(Reply::status(302).header("Location", "http://[fe80::1]/secret")),
        Rule::on("GET", "/to-number").reply(Reply::status(302).header("Location", "http://2852039166/")),
        Rule::on("GET", "/to-user").reply(Reply::status(302).header("Location", "http://a:b@127.0.0.1/")),
        Rule::on("GET", "/to-nowhere").reply(Reply::status(302)),
    ])
    .await;
    home.first(
        Rule::on("GET", &path).reply(Reply::status(401).header("WWW-Authenticate", "Basic realm=\"x\"")),
    );
    for (place, good) in [
        ("/1", true),
        ("/to-name", false),
        ("/to-link-local", false),
        ("/to-number", false),
        ("/to-user", false),
        ("/to-nowhere", false),
    ] {
        let to = Reply::status(307).header("Location", &format!("{}{place}", storage.url()));
        home.first(Rule::on("GET", &path).with_header("authorization", "Basic dXNlcjpzZWNyZXQ=").reply(to));
        let (_, end) = fetch(&upstream(&home), &content.digest, 0).await;
        let refused = end.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::Protocol(_)));
        assert_eq!((end.is_ok(), refused), (good, !good), "{place}: {end:?}");
    }
    assert!(home.lines().iter().all(|line| *line == format!("GET {path}")), "{:?}", home.lines());
    assert!(authorizations(&storage).iter().all(|(_, value)| value.is_none()));
}

/// registry.k8s.io keeps nothing itself: it sends everything, manifests too, to the nearest of many registries.
#[tokio::test]
async fn a_registry_may_send_all_of_its_clients_elsewhere() {
    let manifest = Content::new(media_type::OCI_MANIFEST, "{}");
    let blob = layer(10, 1000);
    let inner = |path: &str| path.replace("library/app", "k8s-artifacts-prod/images/library/app");
    let (tag_path, blob_path) = ("/v2/library/app/manifests/latest".to_owned(), blob_path(&blob.digest));
    let storage = Script::start(vec![Rule::on("GET", "/bucket").reply(Reply::content(&blob))]).await;
    let to = |place: String| Reply::status(307).header("Location", &place);
    let regional = Script::start(vec![
        Rule::on("HEAD", &inner(&tag_path)).reply(Reply::content(&manifest)),
        Rule::on("GET", &inner(&tag_path)).reply(Reply::content(&manifest)),
        Rule::on("GET", &inner(&blob_path)).reply(to(format!("{}/bucket", storage.url()))),
    ])
    .await;
    let there = |path: &str| to(format!("{}{}", regional.url(), inner(path)));
    let home = Script::start(vec![
        Rule::on("HEAD", &tag_path).reply(there(&tag_path)),
        Rule::on("GET", &tag_path).reply(there(&tag_path)),
        Rule::on("GET", &blob_path).reply(there(&blob_path)),
    ])
    .await;
    let upstream = upstream(&home);
    let head = upstream.head_manifest(&repository(), &tag()).await.unwrap();
    assert_eq!(head.digest, Some(manifest.digest));
    assert_eq!(upstream.manifest(&repository(), &tag()).await.unwrap().bytes, manifest.bytes);
    let (received, end) = fetch(&upstream, &blob.digest, 0).await;
    end.unwrap();
    assert_eq!(received, blob.bytes);
}
