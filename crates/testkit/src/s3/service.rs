//! S3 services that others wrote, as processes on loopback: for a second opinion and a third.
//!
//! Tests that neither count requests nor break them run over the service that the environment names ([`CHOICE`]), and
//! over the server of this process when it names none. `cargo xtask moto` and `cargo xtask garage` name one.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::clients::free_port;

/// The variable that names a service and where its program is: `garage:PATH` or `moto:PATH`.
pub const CHOICE: &str = "DELTAPORT_TEST_S3";
/// The one bucket that a service has.
pub const BUCKET: &str = "deltaport";

/// How long one may take until it has its bucket.
const START: Duration = Duration::from_secs(60);
/// How often it is asked meanwhile.
const POLL: Duration = Duration::from_millis(50);

/// Runs a program until nobody holds the other end of its input any more, so that none outlives the tests, whatever
/// becomes of them; then removes the directory that it had.
const GUARD: &str = "\"$@\" </dev/null & read -r _; kill -9 $!; wait; rm -rf \"$0\"";

/// A running service with a bucket. It ends with this, and with the process at the latest.
#[derive(Debug)]
pub struct Service {
    endpoint: String,
    region: &'static str,
    access_key: &'static str,
    secret_key: String,
    prefixes: AtomicU64,
    _process: Process,
}

impl Service {
    /// Starts the one that the environment names; `None` when it names none.
    ///
    /// # Panics
    ///
    /// When it does not start, with what it says, and when the environment names nothing that is known.
    pub fn chosen() -> Option<Self> {
        let choice = std::env::var(CHOICE).ok()?;
        match choice.split_once(':') {
            Some(("garage", program)) => Some(Self::garage(Path::new(program))),
            Some(("moto", program)) => Some(Self::moto(Path::new(program))),
            _ => panic!("{CHOICE} is garage:PATH or moto:PATH, not {choice:?}"),
        }
    }

    /// The same, one for all tests of this process.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Service>> = OnceLock::new();
        SHARED.get_or_init(Self::chosen).as_ref()
    }

    /// Moto, in Python: one process with everything in memory.
    fn moto(program: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        let service = Self {
            endpoint: format!("http://127.0.0.1:{port}"),
            region: "us-east-1",
            access_key: "anybody",
            secret_key: "anything".to_owned(),
            prefixes: AtomicU64::new(0),
            _process: Process::start(&command, port, home()),
        };
        assert_eq!(service.status(&["--request", "PUT"]), "200", "no bucket can be made");
        service
    }

    /// Garage, a node of its own, as deploy/garage.toml has it.
    fn garage(program: &Path) -> Self {
        let (home, port, internal) = (home(), free_port(), free_port());
        let directory = home.path().display();
        let configuration = format!(
            "metadata_dir = \"{directory}/meta\"\ndata_dir = \"{directory}/data\"\ndb_engine = \"lmdb\"\n\
             replication_factor = 1\nrpc_bind_addr = \"127.0.0.1:{internal}\"\nrpc_public_addr = \
             \"127.0.0.1:{internal}\"\nrpc_secret = \"{}\"\n[s3_api]\ns3_region = \"garage\"\n\
             api_bind_addr = \"127.0.0.1:{port}\"\n",
            "0".repeat(64)
        );
        let path = home.path().join("garage.toml");
        fs::write(&path, configuration).expect("a directory to write to");
        let (access_key, secret_key) = ("GK0123456789abcdef01234567", "ab".repeat(32));
        let mut command = Command::new(program);
        command.arg("-c").arg(&path).args(["server", "--single-node", "--default-bucket"]);
        command.env("GARAGE_DEFAULT_BUCKET", BUCKET).env("GARAGE_DEFAULT_ACCESS_KEY", access_key);
        command.env("GARAGE_DEFAULT_SECRET_KEY", &secret_key).env("RUST_LOG", "warn");
        let service = Self {
            endpoint: format!("http://127.0.0.1:{port}"),
            region: "garage",
            access_key,
            secret_key,
            prefixes: AtomicU64::new(0),
            _process: Process::start(&command, port, home),
        };
        // It listens before it has set itself up.
        let deadline = Instant::now() + START;
        while service.status(&["--head"]) != "200" {
            assert!(Instant::now() < deadline, "there is no bucket");
            sleep(POLL);
        }
        service
    }

    /// Where it is.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The region that requests must be signed for.
    pub fn region(&self) -> &'static str {
        self.region
    }

    /// The access key.
    pub fn access_key(&self) -> &'static str {
        self.access_key
    }

    /// Its secret.
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// The beginning of keys that nobody else has in the bucket, without a slash.
    pub fn prefix(&self) -> String {
        format!("test-{}", self.prefixes.fetch_add(1, Ordering::Relaxed))
    }

    /// The keys of the objects below a prefix; a thousand at most.
    ///
    /// # Panics
    ///
    /// When there are more, or they cannot be listed.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let answer = self.listed(&format!("list-type=2&prefix={prefix}%2F"));
        let keys = answer.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        keys.map(str::to_owned).collect()
    }

    /// How many objects in parts below a prefix were begun and not ended; a thousand at most.
    ///
    /// # Panics
    ///
    /// When there are more, or they cannot be listed.
    pub fn unfinished(&self, prefix: &str) -> usize {
        // What is signed is a query in the order of its names.
        self.listed(&format!("prefix={prefix}%2F&uploads=")).matches("<Upload>").count()
    }

    fn listed(&self, query: &str) -> String {
        let answer = self.curl(&format!("?{query}"), &[]);
        assert!(answer.contains("<IsTruncated>false</IsTruncated>"), "{answer}");
        answer
    }

    /// The status of a request for the bucket.
    fn status(&self, arguments: &[&str]) -> String {
        let only_the_status = ["--output", "/dev/null", "--write-out", "%{http_code}"];
        self.curl("", &[&only_the_status, arguments].concat())
    }

    /// What curl prints for a request with this query.
    fn curl(&self, query: &str, arguments: &[&str]) -> String {
        let mut curl = Command::new("/usr/bin/curl");
        curl.arg("--silent").args(arguments);
        curl.args(["--aws-sigv4", &format!("aws:amz:{}:s3", self.region)]);
        curl.args(["--user", &format!("{}:{}", self.access_key, self.secret_key)]);
        curl.args(["--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]);
        let output = curl.arg(format!("{}/{BUCKET}{query}", self.endpoint)).output().expect("curl");
        String::from_utf8(output.stdout).expect("text")
    }
}

fn home() -> TempDir {
    TempDir::with_prefix("deltaport-s3-").expect("a temporary directory")
}

/// A program and the shell that guards it.
#[derive(Debug)]
struct Process {
    shell: Child,
    /// While this is open, the program runs.
    held: Option<ChildStdin>,
}

impl Process {
    /// Starts it and waits until it listens. What it says goes to a file of `home`, which goes with it.
    fn start(command: &Command, port: u16, home: TempDir) -> Self {
        let home = home.keep();
        let log = home.join("log");
        let file = File::create(&log).expect("a directory to write to");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", GUARD]).arg(&home).arg(command.get_program()).args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).process_group(0);
        shell.stdin(Stdio::piped()).stderr(file.try_clone().expect("a file")).stdout(file);
        let mut shell = shell.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let process = Self { held: shell.stdin.take(), shell };
        let deadline = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let said = || fs::read_to_string(&log).unwrap_or_default();
            assert!(Instant::now() < deadline, "{command:?} does not listen\n{}", said());
            sleep(POLL);
        }
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.held.take());
        let _ = self.shell.wait();
    }
}
