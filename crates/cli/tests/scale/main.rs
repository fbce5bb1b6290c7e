//! Hubs of several replicas: real processes over a real PostgreSQL and an S3 service, with nginx in front as deploy/ has
//! it.
//!
//! The S3 service is the test kit's, which counts and breaks. Set `DELTAPORT_SCALE_S3=moto:PATH` or `garage:PATH`, with
//! the path of the program, to run the tests that need neither over another one: `cargo xtask moto` does. The walkthrough of
//! docs/scaling.md is typed as root.

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
