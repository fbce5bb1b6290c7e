//! Support for tests with real, unmodified clients: skopeo, podman, buildah, containerd, docker, curl.
//!
//! The clients come from Debian packages and run as root, each test in a [`Sandbox`] of its own: they keep caches and
//! locks in places that no option moves, and their daemons leave processes behind. A program that is not installed
//! fails the test that wants it, with the package to install; nothing is skipped.
//!
//! - [`Sandbox`]: a directory, a private view of the file system, and processes that cannot outlive the test.
//! - [`Run`]: one command line with a time limit, whose failure shows everything it said.
//! - [`Layout`]: an image on disk (OCI image layout), made of sample content.
//! - [`Relay`]: a TCP relay that counts bytes and breaks answers on purpose.

mod daemon;
mod layout;
mod packages;
mod relay;
mod run;
mod sandbox;

pub use daemon::Daemon;
pub use layout::{Layout, read_image};
pub use packages::{PACKAGES, Package, require};
pub use relay::{Fault, Relay, Traffic};
pub use run::{Outcome, Run};
pub use sandbox::Sandbox;

use std::net::{Ipv4Addr, TcpListener};

/// A port of 127.0.0.1 that nothing listened on a moment ago, for servers that cannot choose one themselves.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
    listener.local_addr().expect("a bound socket has an address").port()
}
