//! Who comes in to the real binary, and how: jobs with identity tokens, programs with tokens, sites with certificates; and what
//! the audit log says of them.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::time::{Duration, Instant};

use deltaport_testkit::http::{Client, Request};
use deltaport_testkit::issuer::CiSystem;
use deltaport_testkit::process::Launch;
use deltaport_testkit::sample::Content;
use deltaport_testkit::tls::{CLIENT_NAME, Certificates};
use deltaport_trust::passwords;
use rustix::process::Signal;
use serde_json::json;

fn launch() -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_deltaport"))
}

/// What a manifest that is not there is answered with: 404 for who may look.
async fn look(client: &Client, repository: &str) -> u16 {
    let request = Request::get(&format!("/v2/{repository}/manifests/x")).header("Via", "1.1 proxy");
    client.send(request).await.status
}

#[tokio::test]
async fn jobs_come_in_with_the_tokens_of_their_system_even_when_it_is_away() {
    let system = CiSystem::start(1).await;
    let config = format!(
        "public_upstreams = false\n[access]\ntokens = true\n\
         [[access.oidc]]\nissuer = {url:?}\naudience = \"us\"\nuser = \"ci\"\nclaims = {{ project = [\"team/*\"] }}\n\
         [[access.rule]]\nrepositories = [\"team/**\"]\nallow = [\"pull\"]\nusers = [\"ci\"]\n",
        url = system.url()
    );
    let mut server = launch().config(&config).start().await;
    let job = system.token("us", &json!({ "project": "team/app" }));
    let client = server.client();
    assert_eq!(look(&client, "team/app").await, 401);
    assert_eq!(look(&client.with_token(&job), "team/app").await, 404);
    assert_eq!(look(&client.with_token(&job), "other/app").await, 403);
    assert_eq!(look(&client.logged_in("oidc", &job), "team/app").await, 404, "docker login");
    assert_eq!(
        look(&client.logged_in("ci", &job), "team/app").await,
        401,
        "it is not a password of that name"
    );
    let exchanged = Request::get("/token?service=deltaport&scope=repository:team/app:pull");
    let exchanged = client.logged_in("oidc", &job).send(exchanged).await.json();
    let access = exchanged["token"].as_str().unwrap();
    assert_eq!(look(&client.with_token(access), "team/app").await, 404);
    for (audience, claims) in [
        ("us", json!({ "project": "other/app" })),
        ("us", json!({})),
        ("them", json!({ "project": "team/app" })),
        ("us", json!({ "project": "team/app", "exp": 1 })),
        ("us", json!({ "project": "team/app", "iss": "https://another.example" })),
    ] {
        let token = system.token(audience, &claims);
        assert_eq!(look(&client.with_token(&token), "team/app").await, 401, "{audience} {claims}");
    }
    server.kill();
    let job = system.token("us", &json!({ "project": "team/app" }));
    drop(system);
    server.start_again().await;
    assert_eq!(look(&server.client().with_token(&job), "team/app").await, 404, "by the keys that were kept");
}

#[tokio::test]
async fn a_token_for_a_program_is_made_and_revoked_while_the_server_runs() {
    let server = launch().config("public_upstreams = false\n[access]\ntokens = true\n").start().await;
    let data = server.launch().data().display().to_string();
    let token = |arguments: &[&str]| {
        let (status, text) = server.launch().run(&[&["token"], arguments, &["--data", &data]].concat());
        (status.success(), text.trim().to_owned())
    };
    let scope = "repository:team/**:pull,push";
    let (made, secret) = token(&["create", "ci", "--scope", scope, "--expires", "90d"]);
    assert!(made && secret.starts_with("dpr_"), "{secret}");
    let client = server.client();
    let within = async |client: Client, status: u16| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while look(&client, "team/app").await != status {
            assert!(Instant::now() < deadline, "{client:?} is not answered {status}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(client.logged_in("ci", &secret), 404).await;
    within(client.with_token(&secret), 404).await;
    assert_eq!(look(&client.logged_in("other", &secret), "team/app").await, 401);
    assert_eq!(look(&client.with_token(&secret), "other").await, 403);

    let (listed, text) = token(&["list"]);
    assert!(listed && text.contains("ci  ends in 90 days") && text.contains(scope), "{text}");
    assert!(!text.contains("dpr_"));
    let (_, text) = token(&["list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&list[0]["name"], &list[0]["valid"]), (&"ci".into(), &true.into()));
    for (arguments, says) in [
        (&["create", "ci", "--scope", scope, "--expires", "1d"][..], "there is a token \"ci\" already"),
        (&["create", "C I", "--scope", scope, "--expires", "1d"], "not a name for a token"),
        (&["create", "x", "--scope", "team/app:pull", "--expires", "1d"], "write repository:NAME:ACTIONS"),
        (&["create", "x", "--scope", "repository:a:read", "--expires", "1d"], "use pull, push and delete"),
        (&["create", "x", "--scope", scope], "--expires"),
        (&["create", "x", "--scope", scope, "--expires", "soon"], "90d or 12h, or never"),
        (&["revoke", "x"], "there is no token \"x\""),
    ] {
        let (done, text) = token(arguments);
        assert!(!done && text.contains(says), "{arguments:?}: {text}");
    }
    assert!(token(&["revoke", "ci"]).0);
    within(client.logged_in("ci", &secret), 401).await;
    within(client.with_token(&secret), 401).await;
    assert!(token(&["list"]).1.contains("There are no tokens"));
    assert!(!server.log().contains(&secret), "the secret is in the log");
}

/// A site shows its certificate to the hub, which knows it by that, and counts it.
#[tokio::test]
async fn a_site_comes_to_its_hub_with_its_certificate() {
    let certificates = Certificates::new();
    let hub = launch();
    let path = |name: &str| hub.home().join(name).display().to_string();
    let config = format!(
        "public_upstreams = false\n\
         [tls]\ncertificate = {:?}\nkey = {:?}\nclient_ca = {:?}\n\
         [access]\ncounted_users = [\"site7\"]\n\
         [[access.certificate]]\nuser = \"site7\"\ncommon_name = {CLIENT_NAME:?}\n\
         [[access.rule]]\nrepositories = [\"**\"]\nallow = [\"pull\"]\nusers = [\"site7\"]\n",
        path("server.crt"),
        path("server.key"),
        path("ca.crt"),
    );
    let hub = hub.config(&config).tls(certificates.clone()).start().await;

    let site = launch();
    let file = |name: &str, text: &str| site.file(name, text).display().to_string();
    let with = |certificate: &str| {
        format!(
            "public_upstreams = false\n[[upstream]]\nhost = \"hub.example\"\nurl = \"https://{}\"\nca = {:?}\n{certificate}",
            hub.address(),
            file("ca.pem", &certificates.authority_pem),
        )
    };
    let shown = format!(
        "client_certificate = {:?}\nclient_key = {:?}\n",
        file("client.pem", &certificates.client_pem),
        file("client.key", &certificates.client_key_pem),
    );
    let (known, unknown) = (with(&shown), with(""));
    let site = site.config(&known).start().await;
    let other = launch().config(&unknown).start().await;
    let ask = async |client: Client| client.send(Request::get("/v2/hub.example/a/manifests/x")).await.status;
    let refused = || hub.log().matches("status=401").count();
    assert_eq!((ask(site.client()).await, refused()), (404, 0), "the hub was asked and has nothing");
    ask(other.client()).await;
    assert!(refused() > 0, "who shows no certificate is let in");
    let metrics = hub.client().send(Request::get("/metrics")).await.body;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("deltaport_user_requests_total{user=\"site7\"}"))
        .unwrap();
    let count: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(count >= 1.0, "{line}");
}

/// Our own way of asking goes through the same flow as everybody's.
#[tokio::test]
async fn a_site_takes_tokens_from_a_hub_that_wants_them() {
    let hub = launch();
    let line = passwords::line("site7", "secret", [7; passwords::SALT_LEN]).unwrap();
    let config = format!(
        "public_upstreams = false\n[access]\ntokens = true\nhtpasswd = {:?}\n\
         [[access.rule]]\nrepositories = [\"team/**\"]\nallow = [\"pull\", \"push\"]\nusers = [\"site7\"]\n",
        hub.file("htpasswd", line + "\n"),
    );
    let hub = hub.config(&config).start().await;
    let blob = Content::new("x/y", b"what a site wants".to_vec());
    let push =
        Request::post("/v2/team/app/blobs/uploads/").query("digest", blob.digest).body(blob.bytes.clone());
    assert_eq!(hub.client().logged_in("site7", "secret").send(push).await.status, 201);

    let site = launch();
    let config = format!(
        "public_upstreams = false\n[[upstream]]\nhost = \"hub.example\"\nurl = \"http://{}\"\nusername = \"site7\"\n\
         password_file = {:?}\n",
        hub.address(),
        site.file("password", "secret\n"),
    );
    let site = site.config(&config).start().await;
    let path = format!("/v2/hub.example/team/app/blobs/{}", blob.digest);
    let pulled = site.client().send(Request::get(&path)).await;
    assert_eq!((pulled.status, pulled.body), (200, blob.bytes));
    assert!(hub.log().contains("route=\"token\" status=200"), "no token was taken\n{}", hub.log());
}

#[tokio::test]
async fn the_audit_log_is_begun_anew_after_a_rotation() {
    let launch = launch();
    let (file, old) = (launch.home().join("audit"), launch.home().join("audit.1"));
    let config = format!("public_upstreams = false\n[access]\ntokens = true\n[audit]\nfile = {file:?}\n");
    let mut server = launch.config(&config).start().await;
    let client = server.client();
    look(&client.logged_in("anna", "wrong"), "a").await;
    let lines = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    let within = async |path: &std::path::Path, count: usize| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while lines(path) < count {
            assert!(Instant::now() < deadline, "{} has {} lines", path.display(), lines(path));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(&file, 1).await;
    std::fs::rename(&file, &old).unwrap();
    server.signal(Signal::HUP);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !file.exists() {
        assert!(Instant::now() < deadline, "no new file was begun");
        look(&client.logged_in("anna", "wrong"), "a").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    within(&file, 1).await;
    assert!(server.terminate().success());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"login_failed\"") && text.contains("\"claimed\":\"anna\""), "{text}");
}
