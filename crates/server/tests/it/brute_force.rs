//! Guessing passwords.

use std::time::Duration;

use deltaport_testkit::http::{Request, Response};
use deltaport_trust::{Action, Rule};

use crate::harness::{PASSWORD, Running, Setup, code, grant};

/// More than are looked at.
const GUESSES: usize = 14;

async fn server() -> Running {
    let public = Rule {
        repositories: vec!["public/**".parse().expect("a pattern")],
        allow: [Action::Pull].into(),
        anonymous: true,
        ..Rule::default()
    };
    Setup::rules(&["alice", "bob"], vec![grant("alice", &[Action::Pull], "**"), public]).start().await
}

async fn guess(running: &Running, user: &str, password: &str) -> Response {
    running.client.logged_in(user, password).send(Request::get("/v2/")).await
}

#[tokio::test]
async fn guesses_are_looked_at_until_there_are_too_many() {
    let running = server().await;
    let mut answers = Vec::new();
    for n in 0..GUESSES {
        answers.push(guess(&running, "alice", &format!("guess {n}")).await);
    }
    let looked_at = answers.iter().take_while(|answer| answer.status == 401).count();
    assert!((10..GUESSES).contains(&looked_at), "{looked_at}");
    let refused = &answers[looked_at];
    assert_eq!((refused.status, code(refused).as_str()), (429, "TOOMANYREQUESTS"));
    let wait: u64 = refused.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=10).contains(&wait), "{wait}");
    assert_eq!(guess(&running, "alice", PASSWORD).await.status, 429, "nor is the right one told apart");

    // Nobody else is: not who does not log in, nor who was here before.
    let anonymous = Request::get("/v2/public/a/manifests/x").header("Via", "1.1 proxy");
    assert_eq!(running.send(anonymous).await.status, 404);
    assert_eq!(running.send(Request::get("/healthz")).await.status, 200);
    let lines = running.audited(GUESSES + 1).await;
    let events = |name: &str| lines.iter().filter(|line| line["event"] == name).count();
    assert_eq!((events("login_failed"), events("login_throttled")), (looked_at, GUESSES - looked_at + 1));
    assert!(lines.iter().all(|line| line["claimed"] == "alice" && line["user"].is_null()), "{lines:?}");
}

#[tokio::test]
async fn who_has_logged_in_before_is_not_locked_out_by_others() {
    let running = server().await;
    assert_eq!(guess(&running, "bob", PASSWORD).await.status, 200);
    for n in 0..GUESSES {
        guess(&running, "alice", &format!("guess {n}")).await;
    }
    for n in 0..GUESSES {
        guess(&running, &format!("user {n}"), "guess").await;
    }
    assert_eq!(guess(&running, "carol", "guess").await.status, 429, "the address has used up its allowance");
    assert_eq!(guess(&running, "bob", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn a_client_with_an_old_password_is_not_somebody_who_guesses() {
    let running = server().await;
    for _ in 0..3 * GUESSES {
        assert_eq!(guess(&running, "alice", "the old one").await.status, 401);
    }
    assert_eq!(guess(&running, "alice", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn a_flood_takes_no_more_than_its_turns() {
    let running = server().await;
    let flood = (0..40).map(|n| {
        let client = running.client.logged_in(&format!("user {n}"), "guess");
        tokio::spawn(async move { client.send(Request::get("/v2/")).await.status })
    });
    let mut counts = std::collections::BTreeMap::new();
    for answer in futures_util::future::join_all(flood).await {
        *counts.entry(answer.expect("an answer")).or_insert(0) += 1;
    }
    // Twenty of an address, and a few that were on their way when the last of them was counted.
    assert!(counts[&401] <= 24, "{counts:?}");
    assert_eq!(counts[&401] + counts[&429], 40, "{counts:?}");
    tokio::time::sleep(Duration::from_millis(1)).await;
}
