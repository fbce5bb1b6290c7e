//! The client against a scripted upstream on real sockets: what registries do, and what hostile ones try.

#![allow(clippy::unwrap_used)] // a panic is how a test fails, also in its helpers

mod closed_world;
mod credentials;
mod harness;
mod push;
mod referrers;
mod upstream;
