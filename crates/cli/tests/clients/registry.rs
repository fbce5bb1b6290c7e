//! The registry that the clients talk to.

use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use deltaport_testkit::clients::{Daemon, Sandbox, free_port};
use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::tls::Certificates;
use tempfile::TempDir;

/// The only user of a registry that is not open.
pub(crate) const USER: &str = "alice";
/// Her password.
pub(crate) const PASSWORD: &str = "correct horse";

/// A running registry with a data directory of its own. It ends with the value.
#[derive(Debug)]
pub(crate) struct Registry {
    software: Software,
    /// Holds the authority's certificate and nothing else: clients want a directory of their own for it.
    authority: TempDir,
}

#[derive(Debug)]
enum Software {
    Debian(Box<Debian>),
    Deltaport(Box<Server>),
}

impl Registry {
    /// Plain HTTP, where everyone on loopback may do everything: what `deltaport serve` is without configuration.
    pub(crate) fn open() -> Self {
        Self::start(None)
    }

    /// The same, and nobody's mirror: it answers with what it has whatever registry a client says it means.
    pub(crate) fn without_upstreams() -> Self {
        match std::env::var_os("DELTAPORT_CLIENTS_AGAINST") {
            None => Self::with_settings("public_upstreams = false"),
            Some(_) => Self::open(),
        }
    }

    /// TLS with a certificate of a private authority, and basic authentication for [`USER`].
    pub(crate) fn locked() -> Self {
        Self::start(Some(&Certificates::new()))
    }

    /// The same, where clients are asked to exchange the password for tokens.
    pub(crate) fn locked_with_tokens() -> Self {
        let certificates = Certificates::new();
        let server = deltaport_with(Some(&certificates), "tokens = true\n");
        let registry = Self { software: Software::Deltaport(Box::new(server)), authority: directory() };
        registry.publish(&certificates);
        registry
    }

    /// Makes a token for a program, while it runs, and returns its secret.
    pub(crate) fn token(&self, name: &str, scope: &str) -> String {
        let Software::Deltaport(server) = &self.software else { panic!("only deltaport has these tokens") };
        let data = server.launch().data().display().to_string();
        let command = ["token", "create", name, "--scope", scope, "--expires", "1h", "--data", &data];
        let (status, secret) = server.launch().run(&command);
        assert!(status.success(), "{secret}");
        secret.trim().to_owned()
    }

    /// Takes such a token away.
    pub(crate) fn revoke(&self, name: &str) {
        let Software::Deltaport(server) = &self.software else { panic!("only deltaport has these tokens") };
        let data = server.launch().data().display().to_string();
        let (status, said) = server.launch().run(&["token", "revoke", name, "--data", &data]);
        assert!(status.success(), "{said}");
    }

    /// What a running deltaport has written so far.
    pub(crate) fn log(&self) -> String {
        match &self.software {
            Software::Deltaport(server) => server.log(),
            Software::Debian(_) => String::new(),
        }
    }

    /// Debian's registry, open: another software as an upstream.
    pub(crate) fn foreign() -> Self {
        Self { software: Software::Debian(Box::new(Debian::start(None))), authority: directory() }
    }

    /// deltaport with these settings.
    pub(crate) fn with_settings(toml: &str) -> Self {
        let launch = Launch::new(env!("CARGO_BIN_EXE_deltaport")).config(toml);
        Self { software: Software::Deltaport(Box::new(wait(launch.start()))), authority: directory() }
    }

    /// deltaport with these settings, and TLS with a certificate of a private authority.
    pub(crate) fn with_settings_and_tls(toml: &str) -> Self {
        let certificates = Certificates::new();
        let launch = Launch::new(env!("CARGO_BIN_EXE_deltaport"));
        let config = format!("{toml}\n{}", tls_of(&launch));
        let server = wait(launch.config(&config).tls(certificates.clone()).start());
        let registry = Self { software: Software::Deltaport(Box::new(server)), authority: directory() };
        registry.publish(&certificates);
        registry
    }

    fn start(certificates: Option<&Certificates>) -> Self {
        let software = match std::env::var("DELTAPORT_CLIENTS_AGAINST").as_deref() {
            Err(_) => Software::Deltaport(Box::new(deltaport(certificates))),
            Ok("docker-registry") => Software::Debian(Box::new(Debian::start(certificates))),
            Ok(other) => panic!("DELTAPORT_CLIENTS_AGAINST={other}: only docker-registry is known"),
        };
        let registry = Self { software, authority: directory() };
        if let Some(certificates) = certificates {
            registry.publish(certificates);
        }
        registry
    }

    /// Puts the authority's certificate where clients are to find it.
    fn publish(&self, certificates: &Certificates) {
        fs::write(self.authority.path().join("ca.crt"), &certificates.authority_pem)
            .expect("a directory to write to");
    }

    /// Ends it as kill -9 does, in the middle of whatever it is doing.
    pub(crate) fn kill(&mut self) {
        match &mut self.software {
            Software::Debian(debian) => debian.running = None,
            Software::Deltaport(server) => server.kill(),
        }
    }

    /// Starts it again after [`Registry::kill`], at the same address and with the same data.
    pub(crate) fn start_again(&mut self) {
        match &mut self.software {
            Software::Debian(debian) => debian.run(),
            Software::Deltaport(server) => wait(server.start_again()),
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        match &self.software {
            Software::Debian(debian) => debian.address,
            Software::Deltaport(server) => server.address(),
        }
    }

    /// The directory with the certificate of the authority that issued its own, and nothing else.
    pub(crate) fn authority(&self) -> &Path {
        self.authority.path()
    }
}

fn deltaport(certificates: Option<&Certificates>) -> Server {
    deltaport_with(certificates, "")
}

/// deltaport, locked with certificates, and with more settings of `[access]`.
fn deltaport_with(certificates: Option<&Certificates>, access: &str) -> Server {
    let launch = Launch::new(env!("CARGO_BIN_EXE_deltaport"));
    let Some(certificates) = certificates else { return wait(launch.start()) };
    let passwords = launch.file("htpasswd", htpasswd());
    let config = format!("{}[access]\nhtpasswd = {passwords:?}\n{access}", tls_of(&launch));
    wait(launch.config(&config).tls(certificates.clone()).start())
}

/// The settings for the certificate that a launch with TLS finds in its directory.
fn tls_of(launch: &Launch) -> String {
    let path = |name| launch.home().join(name).display().to_string();
    format!("[tls]\ncertificate = {:?}\nkey = {:?}\n", path("server.crt"), path("server.key"))
}

/// Debian's docker-registry, as the tests need it.
#[derive(Debug)]
struct Debian {
    directory: TempDir,
    config: PathBuf,
    address: SocketAddr,
    running: Option<(Daemon, Sandbox)>,
}

impl Debian {
    fn start(certificates: Option<&Certificates>) -> Self {
        let directory = directory();
        let path = |name| directory.path().join(name).display().to_string();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: {address}\n  secret: the same after a restart\n",
            path("data"),
        );
        if let Some(certificates) = certificates {
            certificates.write(directory.path());
            fs::write(path("htpasswd"), htpasswd()).expect("a directory to write to");
            config += &format!(
                "  tls: {{certificate: {}, key: {}}}\nauth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                path("server.crt"),
                path("server.key"),
                path("htpasswd"),
            );
        }
        let file = PathBuf::from(path("config.yml"));
        fs::write(&file, config).expect("a directory to write to");
        let mut debian = Self { directory, config: file, address, running: None };
        debian.run();
        debian
    }

    fn run(&mut self) {
        let sandbox = Sandbox::new();
        // It would take this variable of the clients for a setting of its own.
        let run = sandbox.run("/usr/bin/docker-registry").without("REGISTRY_AUTH_FILE");
        let log = self.directory.path().join("log");
        let mut daemon = sandbox.start(run.arg("serve").arg(&self.config), &log);
        let answers = || TcpStream::connect(self.address).is_ok();
        daemon.wait_until(answers).unwrap_or_else(|why| panic!("{why}"));
        self.running = Some((daemon, sandbox));
    }
}

/// A password file for [`USER`], as Apache's own program writes it.
fn htpasswd() -> String {
    Sandbox::new().run("/usr/bin/htpasswd").args(["-Bbn", USER, PASSWORD]).ok()
}

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("dpr").tempdir().expect("a directory for temporary files")
}

/// The clients are processes, so that the tests are not asynchronous; the test kit's server is.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime needs nothing but file descriptors").block_on(future)
}

/// What clients call `name` (with tag or digest) in the registry, or the relay, at `address`.
pub(crate) fn at(address: SocketAddr, name: &str) -> String {
    format!("{address}/{name}")
}
