//! The token flow, as docker and containerd go through it, and the ways to misuse it.

use std::time::{Duration, Instant};

use deltaport_testkit::http::{Client, Request, Response};
use deltaport_testkit::sample::Image;
use deltaport_trust::{Action, Rule};

use crate::harness::{PASSWORD, Running, SERVICE, Setup, code, grant, push_image, token};

const FORM: &str = "application/x-www-form-urlencoded";

fn setup() -> Setup {
    let everything = [Action::Pull, Action::Push, Action::Delete];
    let public = Rule {
        repositories: vec!["public/**".parse().expect("a pattern")],
        allow: [Action::Pull].into(),
        anonymous: true,
        ..Rule::default()
    };
    let rules =
        vec![grant("anna", &everything, "team/**"), grant("bert", &[Action::Pull], "team/**"), public];
    let robots = vec![("ci", "repository:team/app:pull,push")];
    Setup { tokens: true, robots, ..Setup::rules(&["anna", "bert"], rules) }
}

async fn server() -> Running {
    let running = setup().start().await;
    let anna = running.client.logged_in("anna", PASSWORD);
    push_image(&anna, "team/app", "latest", &Image::small(1)).await;
    running
}

async fn get(client: &Client, path: &str) -> Response {
    client.send(Request::get(path).header("Via", "1.1 proxy")).await
}

/// What a challenge says, by name.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
    Some(rest.split_once('"')?.0.to_owned())
}

async fn form(client: &Client, pairs: &[(&str, &str)]) -> Response {
    let body = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
    client.send(Request::post("/token").header("Content-Type", FORM).body(body)).await
}

#[tokio::test]
async fn a_challenge_leads_to_a_token_and_the_token_in() {
    let running = server().await;
    let refused = get(&running.client, "/v2/team/app/manifests/latest").await;
    assert_eq!((refused.status, code(&refused).as_str()), (401, "UNAUTHORIZED"));
    let challenge = refused.header("www-authenticate").expect("a challenge");
    assert!(challenge.starts_with("Bearer "), "{challenge}");
    assert_eq!(refused.headers.all("www-authenticate").count(), 1);
    let realm = parameter(challenge, "realm").expect("a realm");
    assert_eq!(realm, format!("http://{}/token", running.client.address()));
    assert_eq!(parameter(challenge, "service").as_deref(), Some(SERVICE));
    let scope = parameter(challenge, "scope").expect("a scope");
    assert_eq!(scope, "repository:team/app:pull");

    let bert = running.client.logged_in("bert", PASSWORD);
    let answer = bert.send(Request::get(&realm).query("service", SERVICE).query("scope", &scope)).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    let json = answer.json();
    assert_eq!((&json["expires_in"], &json["token"]), (&300.into(), &json["access_token"]));
    assert!(json["refresh_token"].is_null());
    let bearer = running.client.with_token(json["token"].as_str().expect("a token"));
    assert_eq!(get(&bearer, "/v2/team/app/manifests/latest").await.status, 200);
    assert_eq!(get(&bearer, "/v2/").await.status, 200);
    // Who sends a password unasked is let in by it.
    assert_eq!(get(&bert, "/v2/team/app/manifests/latest").await.status, 200);
}

#[tokio::test]
async fn what_a_push_needs_is_asked_for() {
    let running = server().await;
    let refused = running.send(Request::post("/v2/team/app/blobs/uploads/").header("Via", "1.1 proxy")).await;
    let challenge = refused.header("www-authenticate").expect("a challenge");
    assert_eq!(parameter(challenge, "scope").as_deref(), Some("repository:team/app:pull,push"));
    let catalog = get(&running.client, "/v2/_catalog").await;
    let challenge = catalog.header("www-authenticate").expect("a challenge");
    assert_eq!(parameter(challenge, "scope").as_deref(), Some("registry:catalog:*"));
    let anna = running.client.logged_in("anna", PASSWORD);
    let pusher = running.client.with_token(&token(&anna, "repository:team/new:pull,push").await);
    push_image(&pusher, "team/new", "1", &Image::small(2)).await;
    // To mount, both repositories have to be in the token.
    let layer = Image::small(1).layers[0].digest;
    let mount = format!("/v2/team/new/blobs/uploads/?mount={layer}&from=team/app");
    assert_eq!(pusher.send(Request::post(&mount)).await.status, 202);
    let both = "repository:team/new:pull,push%20repository:team/app:pull";
    let mounter = running.client.with_token(&token(&anna, both).await);
    assert_eq!(mounter.send(Request::post(&mount)).await.status, 201);
    let lister = running.client.with_token(&token(&anna, "registry:catalog:*").await);
    assert_eq!(
        get(&lister, "/v2/_catalog").await.json()["repositories"].to_string(),
        r#"["team/app","team/new"]"#
    );
    assert_eq!(
        get(&mounter, "/v2/_catalog").await.json()["repositories"].to_string(),
        r#"["team/app","team/new"]"#
    );
    assert_eq!(get(&pusher, "/v2/_catalog").await.json()["repositories"].to_string(), r#"["team/new"]"#);
}

#[tokio::test]
async fn anonymous_callers_take_tokens_for_what_everyone_may() {
    let running = server().await;
    let refused = get(&running.client, "/v2/").await;
    assert_eq!(refused.status, 401, "where there are users, the first question is answered with: log in");
    let anonymous = running.client.with_token(&token(&running.client, "repository:public/a:pull,push").await);
    assert_eq!(get(&anonymous, "/v2/public/a/manifests/x").await.status, 404);
    assert_eq!(get(&anonymous, "/v2/team/app/manifests/latest").await.status, 401);
    let put = anonymous.send(Request::put("/v2/public/a/manifests/x").header("Via", "1.1 proxy")).await;
    assert_eq!(put.status, 401);
}

#[tokio::test]
async fn forms_of_oauth() {
    let running = server().await;
    let answered = async |pairs: &[(&str, &str)]| {
        let answer = form(&running.client, pairs).await;
        (answer.status, answer.json()["access_token"].as_str().map(str::to_owned))
    };
    let common =
        [("service", SERVICE), ("client_id", "containerd-client"), ("scope", "repository:team/app:pull")];
    let with = |more: &[(&'static str, &'static str)]| [&common[..], more].concat();
    let password = PASSWORD.replace(' ', "+");
    let pairs =
        [&common[..], &[("grant_type", "password"), ("username", "bert"), ("password", &password)]].concat();
    let (status, token) = answered(&pairs).await;
    assert_eq!(status, 200);
    let bearer = running.client.with_token(&token.expect("a token"));
    assert_eq!(get(&bearer, "/v2/team/app/manifests/latest").await.status, 200);

    let secret = running.secret("ci");
    let pairs = [&common[..], &[("grant_type", "refresh_token"), ("refresh_token", secret)]].concat();
    let (status, token) = answered(&pairs).await;
    assert_eq!(status, 200);
    let bearer = running.client.with_token(&token.expect("a token"));
    assert_eq!(get(&bearer, "/v2/team/app/manifests/latest").await.status, 200);

    for (expected, pairs) in [
        (401, with(&[("grant_type", "password"), ("username", "bert"), ("password", "wrong")])),
        (401, with(&[("grant_type", "password")])),
        (401, with(&[("grant_type", "refresh_token"), ("refresh_token", "x")])),
        (400, with(&[("grant_type", "client_credentials")])),
        (400, with(&[])),
        (400, vec![("grant_type", "password"), ("service", "another")]),
    ] {
        let (status, token) = answered(&pairs).await;
        assert_eq!((status, token), (expected, None), "{pairs:?}");
    }
    let long = "x".repeat(70_000);
    assert_eq!(form(&running.client, &[("grant_type", &long)]).await.status, 400);
    assert_eq!(running.send(Request::post("/token").body("grant_type=password")).await.status, 400);
    assert_eq!(running.send(Request::put("/token")).await.status, 405);
}

#[tokio::test]
async fn a_token_is_no_way_to_another_one() {
    let running = server().await;
    let anna = running.client.logged_in("anna", PASSWORD);
    let narrow = token(&anna, "repository:team/app:pull").await;
    let wider =
        running.client.with_token(&narrow).send(Request::get("/token?scope=repository:team/app:push")).await;
    assert_eq!(wider.status, 401);
    let refreshed =
        form(&running.client, &[("grant_type", "refresh_token"), ("refresh_token", &narrow)]).await;
    assert_eq!(refreshed.status, 401);
    for (user, password) in [("anna", &*narrow), ("", &narrow), ("robot:ci", running.secret("ci"))] {
        let login = running.client.logged_in(user, password).send(Request::get("/v2/")).await;
        assert_eq!(login.status, 401, "{user}");
    }
}

#[tokio::test]
async fn a_token_ends_with_its_user() {
    let running = server().await;
    let bert = running.client.logged_in("bert", PASSWORD);
    let bearer = running.client.with_token(&token(&bert, "repository:team/app:pull").await);
    let ci = running.client.logged_in("ci", running.secret("ci"));
    let of_robot = running.client.with_token(&token(&ci, "repository:team/app:pull").await);
    assert_eq!(get(&ci, "/v2/team/app/manifests/latest").await.status, 200);
    assert_eq!(get(&of_robot, "/v2/team/app/manifests/latest").await.status, 200);

    running.robots.change(|robots| robots.revoke("ci")).expect("revoked");
    std::fs::write(running.file("htpasswd"), crate::harness::password_file(&["anna"])).expect("a file");
    let deadline = Instant::now() + Duration::from_secs(20);
    for client in [&ci, &of_robot, &bearer] {
        while get(client, "/v2/team/app/manifests/latest").await.status != 401 {
            assert!(Instant::now() < deadline, "{client:?} is still let in");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let challenge = get(&bearer, "/v2/team/app/manifests/latest").await;
    let challenge = challenge.header("www-authenticate").expect("a challenge");
    assert_eq!(parameter(challenge, "error").as_deref(), Some("invalid_token"));
}

#[tokio::test]
async fn tokens_of_another_registry_are_none_here() {
    let (one, two) = (server().await, server().await);
    let anna = one.client.logged_in("anna", PASSWORD);
    let foreign = token(&anna, "repository:team/app:pull").await;
    assert_eq!(get(&one.client.with_token(&foreign), "/v2/team/app/manifests/latest").await.status, 200);
    assert_eq!(get(&two.client.with_token(&foreign), "/v2/team/app/manifests/latest").await.status, 401);
    assert_eq!(
        get(&two.client.with_token(one.secret("ci")), "/v2/").await.status,
        200,
        "made from the same bytes"
    );
    for wrong in
        ["", "a.b.c", "..", "eyJhbGciOiJub25lIn0.e30.", &"x".repeat(20_000), &foreign[..foreign.len() - 2]]
    {
        assert_eq!(get(&one.client.with_token(wrong), "/v2/").await.status, 401, "{wrong}");
    }
}

#[tokio::test]
async fn without_tokens_a_password_is_asked_for_and_there_is_no_endpoint() {
    let running = Setup { tokens: false, ..setup() }.start().await;
    let refused = get(&running.client, "/v2/team/app/manifests/latest").await;
    assert!(refused.header("www-authenticate").expect("a challenge").starts_with("Basic "));
    assert_eq!(get(&running.client, "/token").await.status, 404);
    assert_eq!(get(&running.client.with_token(running.secret("ci")), "/v2/").await.status, 200);
}

/// A realm is where clients send their password, so that nobody but the operator has a say in it.
#[tokio::test]
async fn nobody_else_says_where_the_password_goes() {
    let running = server().await;
    for host in ["evil.example", "evil.example\"", "127.0.0.1:1\",realm=\"http://evil.example", "10.0.0.1"] {
        let request = Request::get("/v2/").header("Host", host).header("X-Forwarded-Host", "evil.example");
        let answer = running.send(request.header("Forwarded", "host=evil.example;proto=https")).await;
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        assert!(!challenge.contains("evil") && !challenge.starts_with("Bearer"), "{host}: {challenge}");
    }
    let url = Some("https://registry.example");
    let running = Setup { url, ..setup() }.start().await;
    let answer = running.send(Request::get("/v2/").header("Host", "evil.example")).await;
    let challenge = answer.header("www-authenticate").expect("a challenge");
    assert_eq!(parameter(challenge, "realm").as_deref(), Some("https://registry.example/token"));
}
