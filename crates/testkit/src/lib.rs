//! Test support, for the tests of every other crate: sample images, an HTTP client without manners, a scripted
//! upstream, a process that can be killed.
//!
//! Nothing here ends up in the binary. What cannot be set up panics: in a test that is the report.
//!
//! - [`clients`]: sandboxes for real container clients, and a relay that counts and breaks.
//! - [`sample`]: content that is the same in every run: random bytes, gzip layers, images, indexes, artifacts.
//! - [`http`]: requests and responses over a socket, byte by byte where a test needs it; plain or TLS.
//! - [`issuer`]: an identity provider, and tokens of its jobs.
//! - [`postgres`]: a real PostgreSQL, with a database for each test.
//! - [`process`]: the real binary, started on a free port, killed, started again.
//! - [`upstream`]: a registry that follows a script, faults included.
//! - [`s3`]: an S3 server that counts requests and breaks on purpose.
//! - [`signer`]: a key, and signatures of images as podman makes them.
//! - [`tls`]: a certificate authority and a certificate for loopback.

pub mod clients;
pub mod http;
pub mod issuer;
pub mod postgres;
pub mod process;
pub mod s3;
pub mod sample;
pub mod signer;
pub mod tls;
pub mod upstream;
