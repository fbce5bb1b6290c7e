//! Client certificates: who comes with one, and how those are counted who are counted by name.

use deltaport_testkit::http::{Client, Request};
use deltaport_testkit::tls::{CLIENT_NAME, Certificates};
use deltaport_trust::Action;
use deltaport_trust::certificates::{Identity, Name};

use crate::harness::{PASSWORD, Running, Setup, grant};

fn identity(name: &str, user: &str) -> Identity {
    Identity { name: Name::Common(name.to_owned()), user: user.into() }
}

async fn server(certificates: &Certificates, identities: Vec<Identity>) -> Running {
    let rules = vec![grant("site7", &[Action::Pull], "**"), grant("anna", &[Action::Push], "**")];
    let setup = Setup::rules(&["anna"], rules);
    let counted_users = vec!["site7", "site8"];
    Setup { certificates: Some(certificates.clone()), identities, counted_users, tokens: true, ..setup }
        .start()
        .await
}

async fn ask(client: &Client, method: &str) -> u16 {
    client.send(Request::new(method, "/v2/a/manifests/x")).await.status
}

#[tokio::test]
async fn a_certificate_says_who_comes_unless_credentials_do() {
    let certificates = Certificates::new();
    let running =
        server(&certificates, vec![identity("somebody else", "anna"), identity(CLIENT_NAME, "site7")]).await;
    let site = Client::tls(running.client.address(), certificates.client_with_certificate());
    assert_eq!((ask(&site, "GET").await, ask(&site, "PUT").await), (404, 403));
    assert_eq!(ask(&running.client, "GET").await, 401, "no certificate, nobody");
    let anna = site.logged_in("anna", PASSWORD);
    assert_eq!((ask(&anna, "GET").await, ask(&anna, "PUT").await), (403, 400));
    assert_eq!(ask(&site.logged_in("anna", "wrong"), "GET").await, 401, "wrong credentials are not none");
    // The token endpoint knows it too, and what it gives is the certificate's.
    let token = crate::harness::token(&site, "repository:a:pull,push").await;
    let bearer = running.client.with_token(&token);
    assert_eq!((ask(&bearer, "GET").await, ask(&bearer, "PUT").await), (404, 403));
}

#[tokio::test]
async fn a_certificate_that_is_nobodys_or_not_of_our_authority_is_none() {
    let (ours, theirs) = (Certificates::new(), Certificates::new());
    let running = server(&ours, vec![identity("somebody else", "site7")]).await;
    let address = running.client.address();
    let unlisted = Client::tls(address, ours.client_with_certificate());
    assert_eq!(ask(&unlisted, "GET").await, 401);
    let mut mixed = ours.clone();
    mixed.client_pem.clone_from(&theirs.client_pem);
    mixed.client_key_pem.clone_from(&theirs.client_key_pem);
    let foreign = Client::tls(address, mixed.client_with_certificate());
    assert!(foreign.try_send(Request::get("/v2/")).await.is_err(), "the handshake must fail");
}

#[tokio::test]
async fn the_metrics_count_those_who_are_listed_and_nobody_else() {
    let certificates = Certificates::new();
    let running = server(&certificates, vec![identity(CLIENT_NAME, "site7")]).await;
    let site = Client::tls(running.client.address(), certificates.client_with_certificate());
    for _ in 0..3 {
        ask(&site, "GET").await;
    }
    ask(&running.client.logged_in("anna", PASSWORD), "GET").await;
    let body = running.send(Request::get("/metrics")).await.body;
    let text = String::from_utf8(body.to_vec()).expect("text");
    assert!(text.contains("deltaport_user_requests_total{user=\"site7\"} 3\n"), "{text}");
    assert!(text.contains("deltaport_user_requests_total{user=\"site8\"} 0\n"), "{text}");
    assert!(text.contains("deltaport_user_sent_bytes_total{user=\"site7\"}"), "{text}");
    assert!(!text.contains("anna"), "{text}");
}
