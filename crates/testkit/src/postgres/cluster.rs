//! The data directory of a server, its process, and the shell that ends both when nobody uses them.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use super::{ROOT, Setup, loopback};
use crate::clients::free_port;

/// Where Debian puts the versions of PostgreSQL.
const VERSIONS: &str = "/usr/lib/postgresql";
/// How long setting up, starting and stopping may take. Only a hang takes this long.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked at meanwhile.
const POLL: Duration = Duration::from_millis(10);

/// Ends the server in the directory `$1` and removes that when it gets the lock `$2`, which those who use the server
/// share. It waits two seconds for the server: in a container, what nobody waits for may stay in the list of processes.
const GUARD: &str = r#"
while sleep 2; do
    [ -e "$1" ] || exit 0
    if flock --exclusive --nonblock "$2" sh -c '
        pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid"
        for wait in 1 2 3 4 5 6 7 8 9 10; do
            [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null && sleep 0.2
        done
        rm -rf "$1"' sh "$1"; then exit 0; fi
done"#;

/// The directory with the programs of the newest PostgreSQL that is installed.
///
/// # Panics
///
/// When there is none, with what to install.
pub(super) fn programs() -> PathBuf {
    let versions = fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let newest = versions
        .filter(|entry| entry.path().join("bin/initdb").exists())
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .max();
    let version = newest.unwrap_or_else(|| {
        panic!(
            "PostgreSQL is missing. Tests of what replicas share run a real one; install it:\n  \
             apt-get install --no-install-recommends postgresql\nor everything that tests need: cargo xtask setup"
        )
    });
    Path::new(VERSIONS).join(version.to_string()).join("bin")
}

/// The user and group that PostgreSQL runs as: our own, or the package's when we are root.
fn owner() -> Option<(u32, u32)> {
    let own = fs::metadata("/proc/self").expect("Linux").uid();
    if own != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("a list of users");
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let line = line.expect("PostgreSQL does not run as root, and its package made no user `postgres`");
    let numbers: Vec<u32> =
        line.split(':').skip(2).take(2).filter_map(|number| number.parse().ok()).collect();
    Some((numbers[0], numbers[1]))
}

fn command(program: &str) -> Command {
    let mut command = Command::new(programs().join(program));
    command.env_clear().env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    if let Some((user, group)) = owner() {
        command.uid(user).gid(group);
    }
    command
}

/// A server with its data, in a directory that somebody else removes.
#[derive(Debug)]
pub(super) struct Cluster {
    home: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Cluster {
    /// Sets up the data in `home`, an empty directory where the user that PostgreSQL runs as may come.
    pub(super) fn create(home: &Path, setup: &Setup) -> Self {
        if let Some((user, group)) = owner() {
            chown(home, Some(user), Some(group)).expect("root may");
        }
        let cluster = Self { home: home.to_owned(), port: free_port(), process: None };
        let mut initdb = command("initdb");
        initdb.arg("--pgdata").arg(cluster.data()).args(["--username", ROOT, "--auth=trust", "--no-locale"]);
        initdb.args(["--encoding=UTF8", "--no-sync", "--no-instructions"]);
        let output = initdb.output().unwrap_or_else(|error| panic!("{initdb:?}: {error}"));
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        cluster.configure(setup);
        cluster
    }

    fn configure(&self, setup: &Setup) {
        let mut text = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\nmax_connections = 200\n\
             log_line_prefix = '%m [%p] %d '\nlogging_collector = off\nshared_buffers = 64MB\ntimezone = 'UTC'\n",
            self.port
        );
        if !setup.durable {
            // What is committed still outlives the server, though not the machine.
            text.push_str("fsync = off\nfull_page_writes = off\n");
        }
        for (name, value) in &setup.settings {
            text.push_str(&format!("{name} = '{value}'\n"));
        }
        let others = if let Some(certificates) = &setup.certificates {
            text.push_str("ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n");
            self.write("server.crt", &certificates.certificate_pem);
            self.write("server.key", &certificates.key_pem);
            "hostssl"
        } else {
            "host"
        };
        let mut configuration = OpenOptions::new()
            .append(true)
            .open(self.data().join("postgresql.conf"))
            .expect("initdb wrote it");
        configuration.write_all(text.as_bytes()).expect("a directory to write to");
        let access =
            format!("host all {ROOT} 127.0.0.1/32 trust\n{others} all all 127.0.0.1/32 scram-sha-256\n");
        self.write("pg_hba.conf", &access);
    }

    /// Writes a file that only PostgreSQL may read, as it asks of keys.
    fn write(&self, name: &str, text: &str) {
        let path = self.data().join(name);
        fs::write(&path, text).expect("a directory to write to");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our file");
        if let Some((user, group)) = owner() {
            chown(&path, Some(user), Some(group)).expect("root may");
        }
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    pub(super) fn address(&self) -> SocketAddr {
        loopback(self.port)
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    /// Starts it and waits until it takes connections.
    pub(super) fn start(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let log = OpenOptions::new().create(true).append(true).open(self.home.join("log"));
        let log = log.expect("a directory to write to");
        let errors = log.try_clone().expect("a file can be shared");
        let mut server = command("postgres");
        // A group of its own: what ends the test politely must not end it first.
        server.arg("-D").arg(self.data()).stdout(log).stderr(errors).process_group(0);
        let child = server.spawn().unwrap_or_else(|error| panic!("{server:?}: {error}"));
        let child = self.process.insert(child);
        let deadline = Instant::now() + TIME_LIMIT;
        let state = self.home.join("data/postmaster.pid");
        // The eighth line says how it is.
        while !fs::read_to_string(&state)
            .is_ok_and(|text| text.lines().nth(7).map(str::trim) == Some("ready"))
        {
            let ended = child.try_wait().expect("our child");
            let log = || fs::read_to_string(self.home.join("log")).unwrap_or_default();
            assert!(ended.is_none(), "PostgreSQL ended\n{}", log());
            assert!(Instant::now() < deadline, "PostgreSQL does not start\n{}", log());
            sleep(POLL);
        }
    }

    /// Ends it without any farewell, and waits until it has ended.
    pub(super) fn stop(&mut self) {
        let Some(mut child) = self.process.take() else { return };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process");
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::QUIT);
        child.wait().expect("our child");
    }

    /// Lets it run on without us.
    fn leave(mut self) -> SocketAddr {
        self.process = None;
        self.address()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The server that the tests of one build share.
#[derive(Debug)]
pub(super) struct Shared {
    address: SocketAddr,
    /// Held until this process ends: then the lock goes by itself.
    _used: File,
}

impl Shared {
    /// Where it listens. Starts it if it does not run.
    pub(super) fn address() -> SocketAddr {
        static SHARED: OnceLock<Shared> = OnceLock::new();
        SHARED.get_or_init(Self::find_or_start).address
    }

    fn find_or_start() -> Self {
        let place = Self::place();
        fs::create_dir_all(&place).expect("a temporary directory");
        let starting = open(&place.join("starting"));
        flock(&starting, FlockOperation::LockExclusive).expect("a file can be locked");
        // Whoever wants to end it has to wait from here on.
        let used = use_it(&place.join("used"));
        let home = place.join("server");
        let port = fs::read_to_string(home.join("port")).ok().and_then(|text| text.parse().ok());
        if let Some(port) = port
            && std::net::TcpStream::connect(loopback(port)).is_ok()
        {
            return Self { address: loopback(port), _used: used };
        }
        // What is left of a server that did not end in good order, such as by a power cut.
        let _ = fs::remove_dir_all(&home);
        fs::create_dir(&home).expect("a temporary directory");
        guard(&home, &place.join("used"));
        let mut cluster = Cluster::create(&home, &Setup::new());
        cluster.start();
        let address = cluster.leave();
        fs::write(home.join("port"), address.port().to_string()).expect("a directory to write to");
        Self { address, _used: used }
    }

    /// A directory that is the same for all tests of one build, where PostgreSQL's user may come. It stays, with two
    /// empty files: a lock that is removed is none.
    fn place() -> PathBuf {
        let build = std::env::current_exe().expect("a test is a file");
        let build = build.ancestors().find(|path| path.ends_with("deps")).unwrap_or(&build);
        // Not a security matter: two builds must not meet.
        let number = build.to_string_lossy().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        std::env::temp_dir().join(format!("deltaport-tests-{number:016x}"))
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).expect("a directory to write to")
}

/// Shares the lock `path` until the file is closed; waits while somebody has it alone.
pub(super) fn use_it(path: &Path) -> File {
    let file = open(path);
    flock(&file, FlockOperation::LockShared).expect("a file can be locked");
    file
}

/// Starts the shell that ends the server in `home`, and removes `home`, when nobody shares `lock` any more.
#[expect(clippy::zombie_processes, reason = "it is there to outlive us")]
pub(super) fn guard(home: &Path, lock: &Path) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", GUARD, "guard"]).arg(home).arg(lock).current_dir("/").process_group(0);
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().unwrap_or_else(|error| panic!("{shell:?}: {error}"));
}
