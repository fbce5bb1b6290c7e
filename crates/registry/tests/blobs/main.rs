//! Blobs that are missing, from upstreams that break off, lie, and stand still: what clients get, what it costs on the
//! link, and what is left.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

mod day;
mod deltas;
mod disk;
mod liar;
mod pace;
mod readers;
mod resume;
mod sent;
mod simulation;
mod site;
mod sooner;
mod trips;
