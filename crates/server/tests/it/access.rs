//! Logging in.

use std::time::{Duration, Instant};

use deltaport_testkit::http::{Client, Request, Response};
use deltaport_trust::{Access, Action, Rule};

use crate::harness::{PASSWORD, Running, Setup, code, grant, password_file};

async fn server() -> Running {
    Setup::rules(&["alice"], vec![grant("alice", &[Action::Pull], "**")]).start().await
}

async fn status(client: &Client) -> u16 {
    client.send(Request::get("/v2/")).await.status
}

fn assert_challenged(answer: &Response) {
    assert_eq!((answer.status, code(answer).as_str()), (401, "UNAUTHORIZED"));
    let challenge = answer.header("www-authenticate").expect("a challenge");
    assert!(challenge.starts_with("Basic realm="), "{challenge}");
}

#[tokio::test]
async fn a_password_opens_and_a_wrong_one_does_not() {
    let running = server().await;
    assert_eq!(status(&running.client.logged_in("alice", PASSWORD)).await, 200);
    for (user, password) in [("alice", "wrong"), ("alice", ""), ("bob", PASSWORD), ("", PASSWORD)] {
        assert_challenged(&running.client.logged_in(user, password).send(Request::get("/v2/")).await);
    }
    for header in ["Bearer abc", "Basic", "Basic !!!", "Digest x"] {
        let request = Request::get("/v2/").header("Authorization", header);
        assert_challenged(&running.client.send(request).await);
    }
}

#[tokio::test]
async fn wrong_credentials_are_refused_even_where_none_are_needed() {
    let setup = Setup { users: vec!["alice"], ..Setup::new() };
    let access = Access { logins: true, ..setup.access.clone() };
    let running = Setup { access, ..setup }.start().await;
    assert_eq!(status(&running.client).await, 200, "local callers may do everything here");
    assert_eq!(status(&running.client.logged_in("alice", "wrong")).await, 401);
    assert_eq!(status(&running.client.logged_in("", "")).await, 200, "empty credentials are none");
}

#[tokio::test]
async fn nobody_can_log_in_where_there_are_no_users() {
    let running = Setup::new().start().await;
    assert_eq!(status(&running.client.logged_in("alice", PASSWORD)).await, 401);
}

#[tokio::test]
async fn a_password_is_checked_once_and_not_for_every_request() {
    let running = server().await;
    let alice = running.client.logged_in("alice", PASSWORD);
    let begun = Instant::now();
    assert_eq!(status(&alice).await, 200);
    let first = begun.elapsed();
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(status(&alice).await, 200);
    }
    assert!(
        begun.elapsed() < 10 * first,
        "twenty remembered checks took {:?}, one real one {first:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_changed_password_file_counts_at_once() {
    let running = server().await;
    let (alice, bob) =
        (running.client.logged_in("alice", PASSWORD), running.client.logged_in("bob", PASSWORD));
    assert_eq!((status(&alice).await, status(&bob).await), (200, 401));
    std::fs::write(running.file("htpasswd"), password_file(&["bob"])).expect("a file");
    let deadline = Instant::now() + Duration::from_secs(20);
    while status(&alice).await != 401 {
        assert!(Instant::now() < deadline, "the removed user is still let in");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status(&bob).await, 200, "known now");

    for damaged in ["not a password file", ""] {
        std::fs::write(running.file("htpasswd"), damaged).expect("a file");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(status(&bob).await, 200, "a damaged file changes nothing: {damaged:?}");
    }
}

#[tokio::test]
async fn a_proxy_or_a_browser_on_this_machine_is_not_this_machine() {
    let running = Setup::new().start().await;
    assert_eq!(status(&running.client).await, 200);
    for (name, value) in [
        ("X-Forwarded-For", "127.0.0.1"),
        ("Forwarded", "for=127.0.0.1"),
        ("Via", "1.1 proxy"),
        ("Origin", "https://example.com"),
        ("Sec-Fetch-Site", "cross-site"),
    ] {
        let answer = running.client.send(Request::get("/v2/").header(name, value)).await;
        assert_challenged(&answer);
    }
}

#[tokio::test]
async fn everybody_may_where_a_rule_says_everybody() {
    let public = Rule {
        repositories: vec!["public/**".parse().expect("a pattern")],
        allow: [Action::Pull].into(),
        anonymous: true,
        ..Rule::default()
    };
    let running = Setup::rules(&["alice"], vec![public]).start().await;
    let ask = async |client: &Client, method: &str, path: &str| {
        client.send(Request::new(method, path).header("Via", "1.1 proxy")).await.status
    };
    for client in [running.client.clone(), running.client.logged_in("alice", PASSWORD)] {
        assert_eq!(ask(&client, "GET", "/v2/public/a/manifests/x").await, 404);
    }
    assert_eq!(ask(&running.client, "PUT", "/v2/public/a/manifests/x").await, 401);
    assert_eq!(ask(&running.client, "GET", "/v2/private/manifests/x").await, 401);
    let alice = running.client.logged_in("alice", PASSWORD);
    assert_eq!(ask(&alice, "PUT", "/v2/public/a/manifests/x").await, 403);
}
