//! Identity tokens of a CI system on loopback: where its keys come from, and for how long they are believed.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use deltaport_client::IssuerKeys;
use deltaport_registry::issuers::{Issuers, KeySource, Provider};
use deltaport_testkit::issuer::{CiSystem, DOCUMENT, KEYS};
use deltaport_testkit::upstream::Reply;
use deltaport_trust::tokens::{Issuer, TokenError};
use serde_json::{Value, json};
use tempfile::TempDir;

const DAY: u64 = 24 * 3600;

fn provider(system: &CiSystem, keys: KeySource) -> Provider {
    let (issuer, audience, claims) = (system.url(), "deltaport".to_owned(), BTreeMap::new());
    let issuer = Issuer { issuer, audience, claims, user: "ci".into() };
    Provider { issuer, keys, max_age: Duration::from_secs(7 * DAY) }
}

/// What a process makes of it that begins on the data in `home`.
fn open(home: &Path, system: &CiSystem) -> Issuers {
    let keys = KeySource::Fetched(Box::new(IssuerKeys::new(&system.url(), None).expect("an address")));
    Issuers::open(home, vec![provider(system, keys)])
}

async fn verify(issuers: &Issuers, system: &CiSystem) -> Result<(), TokenError> {
    let token = system.token("deltaport", &json!({}));
    issuers.verify(&system.url(), &token).await.map(|user| assert_eq!(&*user, "ci"))
}

/// The file in which fetched keys are kept.
fn kept(home: &TempDir) -> PathBuf {
    let mut files = std::fs::read_dir(home.path().join("private")).expect("a directory");
    files.next().expect("a file").expect("an entry").path()
}

/// Makes what is kept so much older.
fn age(home: &TempDir, seconds: i64) {
    let path = kept(home);
    let mut value: Value = serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
    value["fetched"] = (value["fetched"].as_i64().expect("a time") - seconds).into();
    std::fs::write(path, value.to_string()).expect("a file");
}

#[tokio::test]
async fn keys_are_fetched_once_and_kept_for_when_the_issuer_is_away() {
    let (home, system) = (TempDir::new().expect("a directory"), CiSystem::start(1).await);
    let issuers = open(home.path(), &system);
    assert!(issuers.knows(&system.url()) && !issuers.knows("https://another.example"));
    for _ in 0..5 {
        assert_eq!(verify(&issuers, &system).await, Ok(()));
    }
    assert_eq!(system.asked(), [format!("GET {DOCUMENT}"), format!("GET {KEYS}")]);
    assert_eq!(kept(&home).metadata().expect("a file").permissions().mode() & 0o777, 0o600);

    system.answer(DOCUMENT, Reply::status(503));
    assert_eq!(verify(&open(home.path(), &system), &system).await, Ok(()), "after a restart");
    age(&home, 7 * DAY as i64 - 60);
    assert_eq!(verify(&open(home.path(), &system), &system).await, Ok(()), "nearly a week later");
    age(&home, 120);
    assert_eq!(verify(&open(home.path(), &system), &system).await, Err(TokenError::Key), "too late");
    age(&home, -30 * DAY as i64);
    assert_eq!(verify(&open(home.path(), &system), &system).await, Err(TokenError::Key), "from the future");
    std::fs::write(kept(&home), "{").expect("a file");
    assert_eq!(verify(&open(home.path(), &system), &system).await, Err(TokenError::Key), "damaged");
}

#[tokio::test]
async fn a_new_key_is_fetched_when_the_first_token_names_it_and_nobody_can_have_it_fetched_all_the_time() {
    let (home, mut system) = (TempDir::new().expect("a directory"), CiSystem::start(1).await);
    assert_eq!(verify(&open(home.path(), &system), &system).await, Ok(()));
    let old = system.token("deltaport", &json!({}));
    system.publish(2);
    let issuers = open(home.path(), &system);
    assert_eq!(verify(&issuers, &system).await, Ok(()));
    assert_eq!(
        issuers.verify(&system.url(), &old).await,
        Err(TokenError::Key),
        "the issuer has withdrawn it"
    );
    let asked = system.asked().len();
    let forged = CiSystem::start(9).await.token("deltaport", &json!({ "iss": system.url() }));
    for _ in 0..20 {
        assert_eq!(issuers.verify(&system.url(), &forged).await, Err(TokenError::Key));
    }
    assert_eq!(system.asked().len(), asked, "it was asked a moment ago");
}

#[tokio::test]
async fn answers_that_are_not_those_of_the_issuer() {
    let other = CiSystem::start(1).await;
    for (path, reply) in [
        (DOCUMENT, Reply::status(404)),
        (DOCUMENT, Reply::status(200).body("{}")),
        (DOCUMENT, Reply::status(200).body("x".repeat(100_000))),
        (DOCUMENT, Reply::status(302).header("Location", &format!("{}{DOCUMENT}", other.url()))),
        (
            DOCUMENT,
            Reply::status(200).body(json!({ "issuer": other.url(), "jwks_uri": other.url() }).to_string()),
        ),
        (KEYS, Reply::status(200).body("not keys")),
        (KEYS, Reply::status(200).body(format!(r#"{{"keys":[],"x":"{}"}}"#, "x".repeat(300_000)))),
        (KEYS, Reply::status(200).body(r#"{"keys":[{"kty":"oct","kid":"key 1","k":"AAAA"}]}"#)),
        (KEYS, Reply::status(302).header("Location", &format!("{}{KEYS}", other.url()))),
        (KEYS, Reply::status(200).body(other.keys()).reset_after(20)),
    ] {
        let (home, system) = (TempDir::new().expect("a directory"), CiSystem::start(1).await);
        let shown = format!("{path} {reply:?}");
        system.answer(path, reply);
        assert_eq!(verify(&open(home.path(), &system), &system).await, Err(TokenError::Key), "{shown}");
    }
    // Whoever could have the keys of another host believed would be the issuer.
    let (home, system) = (TempDir::new().expect("a directory"), CiSystem::start(1).await);
    for place in [
        "http://localhost:1/keys",
        "https://127.0.0.1/keys",
        "file:///etc/passwd",
        "keys",
        "http://a@127.0.0.1/",
    ] {
        let document = json!({ "issuer": system.url(), "jwks_uri": place }).to_string();
        system.answer(DOCUMENT, Reply::status(200).body(document));
        assert_eq!(verify(&open(home.path(), &system), &system).await, Err(TokenError::Key), "{place}");
    }
    assert!(other.asked().is_empty(), "{:?}", other.asked());
    for wrong in ["", "ci.example", "ftp://ci.example", "https://", "https://ci.example/?x"] {
        assert!(IssuerKeys::new(wrong, None).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn keys_in_a_file_need_no_issuer() {
    let (home, system) = (TempDir::new().expect("a directory"), CiSystem::start(1).await);
    let file = home.path().join("keys.json");
    std::fs::write(&file, system.keys()).expect("a file");
    let old = SystemTime::now() - Duration::from_secs(365 * DAY);
    std::fs::File::options().write(true).open(&file).and_then(|file| file.set_modified(old)).expect("a time");
    let issuers = Issuers::open(home.path(), vec![provider(&system, KeySource::File(file))]);
    assert_eq!(verify(&issuers, &system).await, Ok(()));
    let wrong = system.token("another", &json!({}));
    assert_eq!(issuers.verify(&system.url(), &wrong).await, Err(TokenError::Audience));
    assert!(system.asked().is_empty());
}
