//! Certificates from a real ACME authority on loopback: Let's Encrypt's own test server, with a name server beside it by
//! which every name leads to this machine.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use deltaport_testkit::clients::{Daemon, Sandbox, free_port, require};
use deltaport_testkit::tls::Certificates;

const PEBBLE: &str = "/usr/bin/pebble";
const NAME: &str = "registry.example";
/// How long a test waits for what must happen.
const LIMIT: Duration = Duration::from_secs(60);

/// curl, by its path.
const CURL: &str = "/usr/bin/curl";

/// The authority, and the ports at which it looks for proofs.
struct Authority {
    sandbox: Sandbox,
    /// Where its directory is, and where it says what it does not say to clients.
    ports: [u16; 2],
    tls: u16,
    http: u16,
    daemons: Vec<Daemon>,
}

impl Authority {
    fn start() -> Self {
        require(PEBBLE);
        let sandbox = Sandbox::new();
        Certificates::new().write(sandbox.path("").as_path());
        let ports = [free_port(), free_port()];
        let (dns, other, tls, http) = (free_port(), free_port(), free_port(), free_port());
        let path = |name: &str| sandbox.path(name).display().to_string();
        let config = format!(
            r#"{{"pebble": {{"listenAddress": "127.0.0.1:{}", "managementListenAddress": "127.0.0.1:{}",
            "certificate": "{}", "privateKey": "{}", "httpPort": {http}, "tlsPort": {tls},
            "ocspResponderURL": "", "externalAccountBindingRequired": false}}}}"#,
            ports[0],
            ports[1],
            path("server.crt"),
            path("server.key"),
        );
        let config = sandbox.write("pebble.json", config);
        let names = sandbox.run("/usr/bin/pebble-challtestsrv").line(&format!(
            "-dns01 127.0.0.1:{dns} -management 127.0.0.1:{other} -defaultIPv6= -http01= -https01= -tlsalpn01="
        ));
        let pebble = sandbox
            .run(PEBBLE)
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "20")
            .line(&format!("-strict -dnsserver 127.0.0.1:{dns} -config"))
            .arg(config);
        let daemons = vec![sandbox.start(names, "names.log"), sandbox.start(pebble, "pebble.log")];
        let mut authority = Self { sandbox, ports, tls, http, daemons };
        let answers = authority.path("roots");
        let root = format!("https://127.0.0.1:{}/roots/0", authority.ports[1]);
        let mut daemon = authority.daemons.pop().expect("it was started");
        let curl = authority.curl(&root).arg("--output").arg(&answers);
        daemon.wait_until(|| curl.outcome().success).unwrap_or_else(|error| panic!("{error}"));
        authority.daemons.push(daemon);
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path(name)
    }

    fn curl(&self, url: &str) -> deltaport_testkit::clients::Run<'_> {
        let trusted = self.path("ca.crt");
        self.sandbox.run(CURL).line("--silent --show-error --fail --cacert").arg(trusted).arg(url)
    }

    /// deltaport, which asks this authority.
    fn asked_by(&self, listen: u16, more: &str) -> Daemon {
        let config = format!(
            "listen = \"127.0.0.1:{listen}\"\ndata = \"data\"\n[acme]\nnames = [\"{NAME}\"]\nca = \"ca.crt\"\n\
             directory = \"https://127.0.0.1:{}/dir\"\n{more}\n",
            self.ports[0]
        );
        let config = self.sandbox.write("deltaport.toml", config);
        let run = self.sandbox.run(env!("CARGO_BIN_EXE_deltaport")).line("serve --config").arg(config);
        self.sandbox.start(run, "deltaport.log")
    }

    /// Asks a registry under its name, and trusts nobody but the authority's root.
    fn greets(&self, port: u16) -> bool {
        let url = format!("https://{NAME}:{port}/healthz");
        let curl = self
            .sandbox
            .run(CURL)
            .line(&format!("--silent --fail --resolve {NAME}:{port}:127.0.0.1 --cacert"));
        curl.arg(self.path("roots")).arg(url).outcome().success
    }

    fn issued(&self) -> usize {
        self.daemons[1].log().matches("Issued certificate serial").count()
    }
}

#[test]
fn a_certificate_is_issued_when_the_authority_has_looked_at_ours() {
    let authority = Authority::start();
    let mut server = authority.asked_by(authority.tls, "contact = \"mailto:ops@example.com\"");
    server.wait_until(|| authority.greets(authority.tls)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(authority.issued(), 1);
    drop(server);
    // It is kept, and so is the account.
    let mut server = authority.asked_by(authority.tls, "");
    server.wait_until(|| authority.greets(authority.tls)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(authority.issued(), 1, "{}", authority.daemons[1].log());
}

#[test]
fn a_certificate_is_issued_for_a_token_and_nobody_else_is_told_anything() {
    let authority = Authority::start();
    let (port, tokens) = (free_port(), authority.http);
    let more = format!("challenge = \"http-01\"\nlisten = \"127.0.0.1:{tokens}\"");
    let mut server = authority.asked_by(port, &more);
    server.wait_until(|| authority.greets(port)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(authority.issued(), 1);
    for path in ["/v2/", "/.well-known/acme-challenge/x", "/metrics"] {
        let curl = authority.sandbox.run(CURL).line("--silent --write-out %{http_code}");
        let told = curl.arg(format!("http://127.0.0.1:{tokens}{path}")).ok();
        assert!(told.ends_with("404"), "{path}: {told}");
    }
}

#[test]
fn without_a_proof_there_is_no_certificate_and_the_log_says_why() {
    let authority = Authority::start();
    // The authority looks elsewhere.
    let port = free_port();
    let server = authority.asked_by(port, "");
    let deadline = Instant::now() + LIMIT;
    while !server.log().contains("no certificate was issued") {
        assert!(Instant::now() < deadline, "{}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let log = server.log();
    assert!(log.contains("the names cannot be verified") && log.contains("connect"), "{log}");
    assert!(!authority.greets(port), "there is nothing to be shown");
    assert_eq!(authority.issued(), 0);
}
