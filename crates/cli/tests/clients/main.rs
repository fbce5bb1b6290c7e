//! Real, unmodified clients from Debian packages against the real binary, on loopback.
//!
//! Every test has a registry and a sandbox of its own and compares digests, never only exit codes. A client that is
//! not installed fails its tests and says what to install. They need root: clients unpack files of many owners.
//!
//! Set `DELTAPORT_CLIENTS_AGAINST=docker-registry` to run the same tests against Debian's registry. What passes there
//! and fails here is deltaport's fault; what fails there too may be the test's, or the other's.

mod acme;
mod buildah;
mod configured;
mod containerd;
mod curl;
mod docker;
mod mirroring;
mod ours;
mod podman;
mod registry;
mod signed;
mod skopeo;
mod sparse;
mod through_site;
mod update;
