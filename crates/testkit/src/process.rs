//! The real binary as a process: started on a free port, ended politely or not at all politely, started again on the
//! same data.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::http::{Client, Request};
use crate::tls::Certificates;

/// How long the binary may take to begin to listen, to become ready, or to end. Only a hang takes this long.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked at meanwhile.
const POLL: Duration = Duration::from_millis(4);

/// How the binary is to be started. Everything it keeps is in a temporary directory that lives as long as this.
#[derive(Debug)]
pub struct Launch {
    binary: PathBuf,
    home: TempDir,
    listen: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    certificates: Option<Certificates>,
}

impl Launch {
    /// `deltaport serve` on a free port of loopback, without a configuration. `binary` is
    /// `env!("CARGO_BIN_EXE_deltaport")` where there is one.
    pub fn new(binary: impl AsRef<Path>) -> Self {
        Self {
            binary: binary.as_ref().to_owned(),
            home: TempDir::with_prefix("deltaport-").expect("a temporary directory"),
            listen: "127.0.0.1:0".to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            certificates: None,
        }
    }

    /// The temporary directory. The data are in [`Launch::data`]; everything else in it is the test's.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The data directory, there after the first start.
    pub fn data(&self) -> PathBuf {
        self.home().join("data")
    }

    /// Writes a file into the temporary directory and returns its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.home().join(name);
        std::fs::write(&path, content).expect("a directory to write to");
        path
    }

    /// Starts with this configuration, in place of an earlier one.
    #[must_use]
    pub fn config(self, toml: &str) -> Self {
        let path = self.file("config.toml", toml);
        if self.arguments.iter().any(|argument| argument == "--config") {
            return self;
        }
        self.argument("--config").argument(path.to_str().expect("temporary directories have plain names"))
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes `ca.crt`, `server.crt` and `server.key` into the temporary directory, and speaks TLS to the server. The
    /// configuration has to name them.
    #[must_use]
    pub fn tls(mut self, certificates: Certificates) -> Self {
        certificates.write(self.home());
        self.certificates = Some(certificates);
        self
    }

    /// Starts the server and waits until it is ready.
    ///
    /// # Panics
    ///
    /// With what it wrote, when it ends or does not become ready.
    pub async fn start(self) -> Server {
        let process = Process::spawn(&self);
        let mut server = Server { launch: self, process, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        server.wait_until_ready().await;
        server
    }

    /// Runs the binary with these arguments and nothing of what `serve` takes, and returns its status and what it
    /// wrote to both outputs.
    pub fn run(&self, arguments: &[&str]) -> (ExitStatus, String) {
        let mut command = self.command();
        let output = command.args(arguments).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let text = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&text).into_owned())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("HOME", self.home()).env("XDG_DATA_HOME", self.home()).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A running server. It is killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    launch: Launch,
    process: Process,
    address: SocketAddr,
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How it was started.
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Its process, for signals and for `/proc`.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// A client without credentials.
    pub fn client(&self) -> Client {
        match &self.launch.certificates {
            None => Client::plain(self.address),
            Some(certificates) => Client::tls(self.address, certificates.client()),
        }
    }

    /// What it wrote so far, both outputs together.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Kills it, as a power cut would end it.
    pub fn kill(&mut self) {
        self.process.child.kill().expect("our child");
        self.process.child.wait().expect("our child");
        self.process.hear_out();
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Panics
    ///
    /// When it does not end in time.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + TIME_LIMIT;
        loop {
            if let Some(status) = self.process.child.try_wait().expect("our child") {
                self.process.hear_out();
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("our child");
    }

    /// Starts it again on the same data and address, after [`Server::kill`] or [`Server::terminate`].
    pub async fn start_again(&mut self) {
        self.launch.listen = self.address.to_string();
        self.process = Process::spawn(&self.launch);
        self.wait_until_ready().await;
    }

    /// Waits for the line that says where it listens, then for `/readyz`.
    async fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + TIME_LIMIT;
        self.address = loop {
            if let Some(address) = self.log().lines().find_map(listening_address) {
                break address;
            }
            self.check("does not listen", deadline).await;
        };
        let client = self.client();
        while !client.try_send(Request::get("/readyz")).await.is_ok_and(|response| response.status == 200) {
            self.check("does not become ready", deadline).await;
        }
    }

    async fn check(&mut self, what: &str, deadline: Instant) {
        if let Some(status) = self.process.child.try_wait().expect("our child") {
            self.process.hear_out();
            panic!("deltaport ended with {status}\n{}", self.log());
        }
        assert!(Instant::now() < deadline, "deltaport {what}\n{}", self.log());
        tokio::time::sleep(POLL).await;
    }
}

/// The address in a line such as `listening on http://127.0.0.1:5000`.
fn listening_address(line: &str) -> Option<SocketAddr> {
    let after = &line[line.to_ascii_lowercase().find("listening")?..];
    after.split(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ':'))).find_map(|word| {
        let word = word.trim_matches([':', '.']);
        word.parse().ok()
    })
}

/// A child with what it writes.
#[derive(Debug)]
struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    fn spawn(launch: &Launch) -> Self {
        let mut command = launch.command();
        command
            .args(["serve", "--listen", &launch.listen, "--data"])
            .arg(launch.data())
            .args(&launch.arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let log: Arc<Mutex<String>> = Arc::default();
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|output| Box::new(output) as _),
            child.stderr.take().map(|output| Box::new(output) as _),
        ];
        let read = |output| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || collect(output, &log))
        };
        let readers = outputs.into_iter().flatten().map(read).collect();
        Self { child, log, readers }
    }

    /// Waits until everything that the ended child wrote is in the log.
    fn hear_out(&mut self) {
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader does not panic");
        }
    }

    fn log(&self) -> String {
        self.log.lock().expect("nothing panics while it holds the log").clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; what matters is that it does not outlive the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            #[allow(clippy::print_stdout)] // where the report of a failed test is collected
            {
                println!("--- what deltaport wrote\n{}---", self.log());
            }
        }
    }
}

/// Copies lines into the log until the output ends.
fn collect(output: impl Read, log: &Mutex<String>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let mut log = log.lock().expect("nothing panics while it holds the log");
        log.push_str(&line);
        log.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server in shell, as far as starting and ending go. It needs no HTTP to say that it listens.
    fn script(text: &str) -> Launch {
        let launch = Launch::new("/bin/sh");
        let path = launch.file("server.sh", text);
        Launch { binary: path, ..launch }
    }

    #[test]
    fn the_address_is_found_in_what_a_server_says() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 5000));
        for line in [
            "listening on 127.0.0.1:5000",
            "2026-01-01T10:00:00Z INFO listening address=127.0.0.1:5000 tls=false",
            "Listening on http://127.0.0.1:5000.",
            r#"{"message":"listening","address":"127.0.0.1:5000"}"#,
        ] {
            assert_eq!(listening_address(line), Some(loopback), "{line}");
        }
        assert_eq!(listening_address("push to 127.0.0.1:5000"), None);
    }

    #[test]
    fn commands_return_their_status_and_words() {
        let launch = Launch::new("/bin/sh");
        let (status, text) = launch.run(&["-c", "echo out; echo err >&2; exit 3"]);
        assert_eq!(status.code(), Some(3));
        assert_eq!(text, "out\nerr\n");
    }

    #[tokio::test]
    async fn a_server_that_ends_at_once_is_reported_with_its_words() {
        use std::os::unix::fs::PermissionsExt as _;
        let launch = script("#!/bin/sh\necho \"cannot: $*\" >&2\nexit 1\n");
        std::fs::set_permissions(&launch.binary, std::fs::Permissions::from_mode(0o755)).unwrap();
        let started = tokio::spawn(async move { launch.start().await.address() });
        let panic = started.await.unwrap_err().into_panic();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(
            text.contains("exit status: 1") && text.contains("cannot: serve --listen 127.0.0.1:0"),
            "{text}"
        );
    }
}
