//! A server on a free port with everything behind it, and the requests that most tests begin with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use deltaport_registry::Registry;
use deltaport_registry::tokens::{AccessTokens, RobotTokens};
use deltaport_server::{AuditLog, Limits, Options, Redirect, Server, Tls};
use deltaport_store::{ByteStore, Faults, Store};
use deltaport_testkit::http::{Client, Request, Response};
use deltaport_testkit::sample::{Content, Image};
use deltaport_testkit::tls::Certificates;
use deltaport_trust::certificates::Identity;
use deltaport_trust::tokens::Scopes;
use deltaport_trust::{Access, Action, Rule, Rules, passwords};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The password of every user in these tests.
pub(crate) const PASSWORD: &str = "correct horse";

/// What is not as usual. Usual is: plain HTTP, no users, everything allowed from this machine.
pub(crate) struct Setup {
    pub(crate) registry: deltaport_registry::Options,
    pub(crate) limits: Limits,
    pub(crate) users: Vec<&'static str>,
    pub(crate) access: Access,
    pub(crate) certificates: Option<Certificates>,
    pub(crate) faults: Faults,
    /// Whether access tokens are asked for.
    pub(crate) tokens: bool,
    /// Robots: their names and scopes.
    pub(crate) robots: Vec<(&'static str, &'static str)>,
    /// Who comes with which certificate of [`Certificates`]; with any, the server asks for one.
    pub(crate) identities: Vec<Identity>,
    pub(crate) counted_users: Vec<&'static str>,
    pub(crate) url: Option<&'static str>,
    pub(crate) bytes: ByteStore,
    pub(crate) redirect: Option<Redirect>,
    pub(crate) trusted_proxies: Vec<&'static str>,
}

/// What tokens are for in these tests.
pub(crate) const SERVICE: &str = "registry.test";

impl Setup {
    pub(crate) fn new() -> Self {
        let limits = Limits { reload_interval: Duration::from_millis(20), ..Limits::DEFAULT };
        let access = Access { trust_loopback: Some(true), ..Access::default() };
        Self {
            registry: deltaport_registry::Options::default(),
            limits,
            users: Vec::new(),
            access,
            certificates: None,
            faults: Faults::none(),
            tokens: false,
            robots: Vec::new(),
            identities: Vec::new(),
            counted_users: Vec::new(),
            url: None,
            bytes: ByteStore::Directory,
            redirect: None,
            trusted_proxies: Vec::new(),
        }
    }

    /// Users who can log in, and rules; nothing else is allowed.
    pub(crate) fn rules(users: &[&'static str], rules: Vec<Rule>) -> Self {
        let access = Access { logins: true, trust_loopback: Some(false), rules, ..Access::default() };
        Self { users: users.to_vec(), access, ..Self::new() }
    }

    pub(crate) async fn start(self) -> Running {
        let home = TempDir::new().expect("a temporary directory");
        let store = Store::open(deltaport_store::Options {
            root: home.path().join("data"),
            bytes: self.bytes,
            keep_free: 0,
            manifest_cache: 1 << 20,
            grace: Duration::from_secs(3600),
            upload_expiry: Duration::from_secs(3600),
            partial_expiry: Duration::from_secs(3600),
            names: deltaport_store::NamesOptions::Directory,
            faults: self.faults,
        });
        let store = store.await.expect("an empty store opens");
        let passwords = (!self.users.is_empty()).then(|| {
            let path = home.path().join("htpasswd");
            std::fs::write(&path, password_file(&self.users)).expect("a file");
            path
        });
        let tls = self.certificates.as_ref().map(|certificates| {
            certificates.write(home.path());
            Tls {
                certificate: home.path().join("server.crt"),
                key: home.path().join("server.key"),
                awaited: false,
                client_ca: (!self.identities.is_empty()).then(|| home.path().join("ca.crt")),
            }
        });
        let robots = RobotTokens::new(&store.secrets());
        let mut secrets = BTreeMap::new();
        for (number, (name, scope)) in self.robots.iter().enumerate() {
            let (scopes, random) = (Scopes::parse([*scope]).expect("a scope"), [number as u8; 32]);
            let secret = robots.change(|robots| robots.create(name, scopes.clone(), None, 0, random));
            secrets.insert(*name, secret.expect("a robot"));
        }
        let rules = Rules::new(self.access).expect("rules");
        let registry = Registry::new(self.registry, store.clone(), rules);
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let access_tokens = self.tokens.then(|| AccessTokens::open(&store.secrets(), SERVICE));
        let audit = AuditLog::open(&home.path().join("audit")).expect("an audit log");
        let options = Options {
            tls,
            passwords,
            access_tokens,
            robots: Some(robots.clone()),
            url: self.url.map(str::to_owned),
            certificates: self.identities,
            counted_users: self.counted_users.into_iter().map(str::to_owned).collect(),
            audit: Some(audit),
            limits: self.limits,
            redirect: self.redirect,
            trusted_proxies: self
                .trusted_proxies
                .iter()
                .map(|text| text.parse().expect("a network"))
                .collect(),
            ..Options::new(listen)
        };
        let server = Server::bind(options, registry.clone()).await.expect("a free port");
        let address = server.local_addr();
        let client = match &self.certificates {
            Some(certificates) => Client::tls(address, certificates.client()),
            None => Client::plain(address),
        };
        let stop = CancellationToken::new();
        let running = tokio::spawn(server.run(stop.clone()));
        Running { home, client, registry, store, stop, running, robots, secrets }
    }
}

/// A password file with these users.
pub(crate) fn password_file(users: &[&str]) -> String {
    let line =
        |user: &&str| passwords::line(user, PASSWORD, [7; passwords::SALT_LEN]).expect("a user") + "\n";
    users.iter().map(line).collect()
}

/// A grant to one user.
pub(crate) fn grant(user: &str, allow: &[Action], repositories: &str) -> Rule {
    Rule {
        repositories: vec![repositories.parse().expect("a pattern")],
        allow: allow.iter().copied().collect(),
        users: [user.to_owned()].into(),
        ..Rule::default()
    }
}

/// A server that serves until it is dropped.
pub(crate) struct Running {
    home: TempDir,
    pub(crate) client: Client,
    pub(crate) registry: Registry,
    pub(crate) store: Store,
    pub(crate) stop: CancellationToken,
    pub(crate) running: JoinHandle<bool>,
    pub(crate) robots: RobotTokens,
    secrets: BTreeMap<&'static str, String>,
}

impl Running {
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The secret of a robot.
    pub(crate) fn secret(&self, robot: &str) -> &str {
        &self.secrets[robot]
    }

    /// The lines of the audit log, once there are `count` of them, or with what is missing when they do not come.
    pub(crate) async fn audited(&self, count: usize) -> Vec<serde_json::Value> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let text = std::fs::read_to_string(self.file("audit")).expect("an audit log");
            let whole = text.ends_with('\n') || text.is_empty();
            if whole && text.lines().count() >= count || Instant::now() > deadline {
                return text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn send(&self, request: Request) -> Response {
        self.client.send(request).await
    }

    /// What a metric says, summed over its labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let metrics = self.send(Request::get("/metrics")).await;
        assert_eq!(metrics.status, 200);
        let text = String::from_utf8(metrics.body.to_vec()).expect("text");
        let values = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        values
            .map(|line| {
                line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")
            })
            .sum()
    }
}

/// Takes an access token, as docker does.
pub(crate) async fn token(client: &Client, scope: &str) -> String {
    let answer = client.send(Request::get("/token").query("service", SERVICE).query("scope", scope)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["token"].as_str().expect("a token").to_owned()
}

/// Pushes a blob in one request.
pub(crate) async fn push_blob(client: &Client, repository: &str, content: &Content) -> Response {
    let path = format!("/v2/{repository}/blobs/uploads/");
    let request = Request::post(&path).query("digest", content.digest).body(content.bytes.clone());
    client.send(request).await
}

/// Pushes a manifest under a tag or digest.
pub(crate) async fn push_manifest(
    client: &Client,
    repository: &str,
    reference: &str,
    manifest: &Content,
) -> Response {
    let path = format!("/v2/{repository}/manifests/{reference}");
    let request =
        Request::put(&path).header("Content-Type", &manifest.media_type).body(manifest.bytes.clone());
    client.send(request).await
}

/// Pushes an image with all that it needs.
pub(crate) async fn push_image(client: &Client, repository: &str, tag: &str, image: &Image) {
    for blob in image.blobs() {
        let pushed = push_blob(client, repository, blob).await;
        assert_eq!(pushed.status, 201, "{}", pushed.text());
    }
    let pushed = push_manifest(client, repository, tag, &image.manifest).await;
    assert_eq!(pushed.status, 201, "{}", pushed.text());
}

/// Begins an upload and returns where it goes on.
pub(crate) async fn begin_upload(client: &Client, repository: &str) -> String {
    let begun = client.send(Request::post(&format!("/v2/{repository}/blobs/uploads/"))).await;
    assert_eq!(begun.status, 202, "{}", begun.text());
    begun.header("location").expect("a location").to_owned()
}

/// The code of the only error in an answer.
pub(crate) fn code(response: &Response) -> String {
    let json = response.json();
    let errors = json["errors"].as_array().expect("a list of errors");
    assert_eq!(errors.len(), 1, "{json}");
    errors[0]["code"].as_str().expect("a code").to_owned()
}
