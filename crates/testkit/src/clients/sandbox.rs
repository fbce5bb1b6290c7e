//! A place where clients can do what they like.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use tempfile::TempDir;

use super::{Daemon, Run, require};

/// Where the clients keep state that no option moves: the cache of known blobs, sockets, locks. In the sandbox these
/// are empty file systems of their own.
const STATE: [&str; 3] = ["/var/lib/containers", "/run", "/dev/shm"];

/// Where an administrator may have left settings for the clients. In the sandbox there are none.
const SETTINGS: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker"];

/// The settings of skopeo, podman and buildah. Nothing is sent to journals or to systemd, which need not be there.
const CONTAINERS_CONF: &str =
    "[engine]\nevents_logger = \"none\"\ncgroup_manager = \"cgroupfs\"\nlock_type = \"file\"\n";

/// A directory, a mount namespace and a process namespace for the clients of one test.
///
/// A process that ends with its standard input holds both namespaces. When the sandbox is dropped, and also when the
/// test is killed, the kernel ends everything that was started in it.
#[derive(Debug)]
pub struct Sandbox {
    directory: TempDir,
    holder: Child,
    _alive: ChildStdin,
}

impl Sandbox {
    /// Makes one. Panics unless it runs as root on Linux with util-linux.
    #[expect(clippy::new_without_default, reason = "it starts a process")]
    pub fn new() -> Self {
        require("/usr/bin/nsenter");
        // Paths of sockets must stay below 108 bytes.
        let directory =
            tempfile::Builder::new().prefix("dp").tempdir().expect("a directory for temporary files");
        let state = STATE.map(|path| format!("mkdir -p {path} && mount -t tmpfs tmpfs {path}\n")).concat();
        let settings =
            SETTINGS.map(|path| format!("[ ! -d {path} ] || mount -t tmpfs tmpfs {path}\n")).concat();
        let mut holder = Command::new("/usr/bin/unshare")
            .args(["--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["/bin/sh", "-euc", &format!("{state}{settings}echo ready\nexec cat")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare(1) is part of util-linux");
        let alive = holder.stdin.take().expect("it was asked for");
        let mut line = String::new();
        let mut output = BufReader::new(holder.stdout.take().expect("it was asked for"));
        output.read_line(&mut line).expect("a pipe can be read");
        assert_eq!(line, "ready\n", "client tests need root and namespaces: unshare --mount --pid failed");

        let sandbox = Self { directory, holder, _alive: alive };
        fs::create_dir(sandbox.path("tmp")).expect("a new directory is empty");
        sandbox.write("auth.json", "{}");
        sandbox
            .write("registries.conf", "unqualified-search-registries = []\nshort-name-mode = \"disabled\"\n");
        let network = format!("[network]\nnetwork_config_dir = \"{}\"\n", sandbox.path("cni").display());
        sandbox.write("containers.conf", format!("{CONTAINERS_CONF}{network}"));
        sandbox
    }

    /// The path of `name` in the sandbox's directory, which is visible from outside too.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file in the sandbox's directory, with the directories above it, and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file has a directory")).expect("a directory to write to");
        fs::write(&path, content).expect("a directory to write to");
        path
    }

    /// A command line of the program at `path`, in the sandbox. Credentials go to `auth.json`, short names and mirrors
    /// are read from `registries.conf` (not by skopeo, which wants them as an option).
    pub fn run(&self, path: &str) -> Run<'_> {
        let home = self.directory.path();
        Run::new(self, path)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", home)
            .env("LANG", "C.UTF-8")
            .env("TMPDIR", self.path("tmp"))
            .env("REGISTRY_AUTH_FILE", self.path("auth.json"))
            .env("CONTAINERS_CONF", self.path("containers.conf"))
            .env("CONTAINERS_REGISTRIES_CONF", self.path("registries.conf"))
            .env("BUILDAH_ISOLATION", "chroot")
    }

    /// Starts `run`, made by [`Sandbox::run`], as a daemon whose output goes to the file `log` (in the
    /// sandbox's directory, if the path is relative).
    pub fn start(&self, run: Run<'_>, log: impl AsRef<Path>) -> Daemon {
        Daemon::start(run, self.directory.path().join(log))
    }

    /// The beginning of a command line that goes on inside.
    pub(super) fn enter(&self) -> Vec<OsString> {
        let namespaces: &Path = &PathBuf::from(format!("/proc/{}/ns", self.holder.id()));
        let option = |name: &str, file: &str| {
            let mut option = OsString::from(name);
            option.push(namespaces.join(file));
            option
        };
        // The holder itself stays outside the process namespace that it made; its child is the first inside.
        vec!["/usr/bin/nsenter".into(), option("--mount=", "mnt"), option("--pid=", "pid_for_children")]
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // With its first process the kernel ends all others in the process namespace; what they mounted goes with the
        // last of them, so that the directory can be removed.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
