//! The S3 service under a hub.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use deltaport_testkit::clients::free_port;
use deltaport_testkit::s3;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

/// Which service to use, and where its program is.
const CHOICE: &str = "DELTAPORT_SCALE_S3";
/// How long one may take until it listens.
const START: Duration = Duration::from_secs(60);
/// The bucket.
const BUCKET: &str = "deltaport";

/// A running service with a bucket.
pub(crate) struct Objects {
    pub(crate) endpoint: String,
    pub(crate) region: &'static str,
    pub(crate) bucket: String,
    pub(crate) access_key: &'static str,
    pub(crate) secret_key: String,
    /// `part_size`, if it is not to be the default.
    part_size: Option<&'static str>,
    /// The test kit's, if it is that one.
    kit: Option<s3::Server>,
    _process: Option<Process>,
}

impl Objects {
    /// The one that the environment names, or the test kit's.
    pub(crate) fn start() -> Self {
        let Ok(choice) = std::env::var(CHOICE) else { return Self::kit() };
        match choice.split_once(':') {
            Some(("moto", program)) => Self::moto(Path::new(program)),
            Some(("garage", program)) => Self::garage(Path::new(program)),
            _ => panic!("{CHOICE} is moto:PATH or garage:PATH, not {choice:?}"),
        }
    }

    /// The test kit's, whatever the environment says: for what counts or breaks.
    pub(crate) fn kit() -> Self {
        let server = s3::Server::start();
        Self {
            endpoint: server.endpoint(),
            region: s3::REGION,
            bucket: server.bucket(),
            access_key: s3::ACCESS_KEY,
            secret_key: s3::SECRET_KEY.to_owned(),
            part_size: None,
            kit: Some(server),
            _process: None,
        }
    }

    /// Moto, in Python.
    fn moto(program: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        let process = Process::start(command, port, TempDir::new().unwrap());
        let objects = Self {
            endpoint: format!("http://127.0.0.1:{port}"),
            region: "us-east-1",
            bucket: BUCKET.to_owned(),
            access_key: "anybody",
            secret_key: "anything".to_owned(),
            part_size: None,
            kit: None,
            _process: Some(process),
        };
        objects.make_bucket();
        objects
    }

    /// Garage, a node of its own.
    fn garage(program: &Path) -> Self {
        let home = TempDir::new().unwrap();
        let (port, internal) = (free_port(), free_port());
        let path = home.path().join("garage.toml");
        let directory = home.path().display();
        let configuration = format!(
            "metadata_dir = \"{directory}/meta\"\ndata_dir = \"{directory}/data\"\ndb_engine = \"lmdb\"\n\
             replication_factor = 1\nrpc_bind_addr = \"127.0.0.1:{internal}\"\nrpc_public_addr = \
             \"127.0.0.1:{internal}\"\nrpc_secret = \"{}\"\n[s3_api]\ns3_region = \"garage\"\n\
             api_bind_addr = \"127.0.0.1:{port}\"\n",
            "0".repeat(64)
        );
        fs::write(&path, configuration).unwrap();
        let (access_key, secret_key) = ("GK0123456789abcdef01234567", "ab".repeat(32));
        let mut command = Command::new(program);
        command.arg("-c").arg(&path).args(["server", "--single-node", "--default-bucket"]);
        command.env("GARAGE_DEFAULT_BUCKET", BUCKET).env("GARAGE_DEFAULT_ACCESS_KEY", access_key);
        command.env("GARAGE_DEFAULT_SECRET_KEY", &secret_key).env("RUST_LOG", "warn");
        let process = Process::start(command, port, home);
        let objects = Self {
            endpoint: format!("http://127.0.0.1:{port}"),
            region: "garage",
            bucket: BUCKET.to_owned(),
            access_key,
            secret_key,
            part_size: None,
            kit: None,
            _process: Some(process),
        };
        objects.wait_for_bucket();
        objects
    }

    /// The test kit's, for a test that asked for that one.
    pub(crate) fn counting(&self) -> &s3::Server {
        self.kit.as_ref().expect("Objects::kit")
    }

    /// Has blobs sent in parts of this size.
    pub(crate) fn in_parts_of(self, size: &'static str) -> Self {
        Self { part_size: Some(size), ..self }
    }

    /// The names of all objects of blobs, with their sizes; `None` where they can only be listed by S3's own means.
    pub(crate) fn listed(&self) -> Option<Vec<(String, u64)>> {
        let kit = self.kit.as_ref()?;
        assert_eq!(kit.unfinished(&self.bucket), 0, "objects that were begun in parts");
        let name = |key: String| key.strip_prefix("hub/objects/").expect("there is nothing else").to_owned();
        Some(kit.objects(&self.bucket).into_iter().map(|(key, size)| (name(key), size)).collect())
    }

    /// The keys of `[storage]` and `[storage.s3]`.
    pub(crate) fn settings(&self) -> String {
        let Self { endpoint, region, bucket, .. } = self;
        let part_size = self.part_size.map_or_else(String::new, |size| format!("part_size = \"{size}\"\n"));
        format!(
            "[storage.s3]\nendpoint = \"{endpoint}\"\nregion = \"{region}\"\n{part_size}[storage]\nblobs = \"s3://{bucket}/hub\"\n"
        )
    }

    /// The variables with the credentials.
    pub(crate) fn variables(&self) -> [(&'static str, &str); 2] {
        [("AWS_ACCESS_KEY_ID", self.access_key), ("AWS_SECRET_ACCESS_KEY", &self.secret_key)]
    }

    fn make_bucket(&self) {
        assert_eq!(self.curl(&["--request", "PUT"]), "200", "no bucket can be made");
    }

    /// Garage listens before it has set itself up.
    fn wait_for_bucket(&self) {
        let deadline = Instant::now() + START;
        while self.curl(&["--head"]) != "200" {
            assert!(Instant::now() < deadline, "there is no bucket");
            sleep(Duration::from_millis(50));
        }
    }

    /// The status of a request for the bucket.
    fn curl(&self, arguments: &[&str]) -> String {
        let mut curl = Command::new("/usr/bin/curl");
        curl.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]);
        curl.args(["--aws-sigv4", &format!("aws:amz:{}:s3", self.region)]);
        curl.args(["--user", &format!("{}:{}", self.access_key, self.secret_key)]);
        curl.args(["--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]).args(arguments);
        let output = curl.arg(format!("{}/{}", self.endpoint, self.bucket)).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A service in a process of its own, which ends with this.
pub(crate) struct Process {
    child: Child,
    _home: TempDir,
}

impl Process {
    /// Starts it and waits until it listens. What it says goes to a file of `home`, which lives as long as it does.
    pub(crate) fn start(mut command: Command, port: u16, home: TempDir) -> Self {
        let log: PathBuf = home.path().join("log");
        let file = File::create(&log).unwrap();
        command.stdin(Stdio::null()).stderr(file.try_clone().unwrap()).stdout(file).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut process = Self { child, _home: home };
        let deadline = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let said = || fs::read_to_string(&log).unwrap_or_default();
            assert!(process.child.try_wait().unwrap().is_none(), "{command:?} ended\n{}", said());
            assert!(Instant::now() < deadline, "{command:?} does not listen\n{}", said());
            sleep(Duration::from_millis(20));
        }
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // With whatever it has started: workers outlive a master that is killed.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = self.child.wait();
    }
}
