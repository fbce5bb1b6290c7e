//! nginx as deploy/nginx.conf has it, before replicas on loopback.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use deltaport_testkit::clients::{free_port, require};
use deltaport_testkit::http::Client;
use tempfile::TempDir;

use crate::objects::Process;

const NGINX: &str = "/usr/sbin/nginx";

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
