//! nginx as deploy/nginx.conf has it, before replicas on loopback.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use deltaport_testkit::clients::{free_port, require};
use deltaport_testkit::http::Client;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

const NGINX: &str = "/usr/sbin/nginx";
/// How long it may take until it listens.
const START: Duration = Duration::from_secs(60);

/// A running nginx. It ends with this.
pub(crate) struct Balancer {
    address: SocketAddr,
    _process: Process,
}

impl Balancer {
    /// Starts it before these three.
    pub(crate) fn before(replicas: [SocketAddr; 3]) -> Self {
        require(NGINX);
        let home = TempDir::new().unwrap();
        let port = free_port();
        let path = home.path().join("nginx.conf");
        fs::write(&path, configuration(replicas, port, home.path())).unwrap();
        let mut command = Command::new(NGINX);
        command.args(["-e", "stderr", "-g", "daemon off;", "-p"]).arg(home.path()).arg("-c").arg(&path);
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            _process: Process::start(command, port, home),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn client(&self) -> Client {
        Client::plain(self.address)
    }
}

/// The file of deploy/, with other addresses.
fn configuration(replicas: [SocketAddr; 3], port: u16, home: &Path) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/nginx.conf");
    let mut text = fs::read_to_string(file).unwrap();
    let mut replace = |from: &str, to: &str| {
        assert!(text.contains(from), "deploy/nginx.conf has no {from}");
        text = text.replace(from, to);
    };
    for (name, address) in ["hub-1:5000", "hub-2:5000", "hub-3:5000"].into_iter().zip(replicas) {
        replace(name, &address.to_string());
    }
    replace("listen 8080;", &format!("listen 127.0.0.1:{port};"));
    replace("pid /tmp/nginx.pid;", &format!("pid {}/pid;", home.display()));
    // It makes these directories even where nothing is put into them.
    let directories = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {}/{name};\n", home.display()));
    replace("http {\n", &format!("http {{\n{}", directories.concat()));
    text
}

/// A process with those that it has started, which end with this.
struct Process {
    child: Child,
    _home: TempDir,
}

impl Process {
    /// Starts it and waits until it listens. What it says goes to a file of `home`, which lives as long as it does.
    fn start(mut command: Command, port: u16, home: TempDir) -> Self {
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
