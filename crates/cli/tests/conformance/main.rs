//! What a registry has to do, one test per requirement of the distribution specification (its main branch), against
//! the real binary on a real socket, over configurations.
//!
//! Each requirement is a function; [`requirements!`] makes a test of it for every configuration of [`harness::Setup`].
//! A requirement that differs between configurations asks the registry which one it is. `end-4a` and the like are the
//! specification's numbers of endpoints.

mod harness;
mod steps;

mod access;
mod blobs;
mod cancelled;
mod datasets;
mod deletes;
mod listing;
mod manifests;
mod mounts;
mod ranges;
mod referrers;
mod sparse;
mod uploads;
