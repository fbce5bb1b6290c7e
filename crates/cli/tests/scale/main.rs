//! Hubs of several replicas: real processes over a real PostgreSQL and an S3 service, with nginx in front as deploy/ has
//! it.
//!
//! The S3 service is the test kit's, which counts and breaks. Tests that need neither run over another one when the
//! environment names it (`deltaport_testkit::s3::service`): `cargo xtask moto` and `cargo xtask garage` do. The walkthrough
//! of docs/scaling.md is typed as root.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

mod away;
mod balancer;
mod check_bucket;
mod check_database;
mod config_check;
mod deltas;
mod history;
mod hub;
mod insistent;
mod kills;
mod ledger;
mod load;
mod objects;
mod proxied;
mod replicas;
mod source;
mod storms;
mod taken_up;
mod walkthrough;
