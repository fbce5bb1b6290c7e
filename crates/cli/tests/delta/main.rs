//! `deltaport delta` as a process: deltas as files, deltas at registries, and those that a hub makes by itself.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

mod command;
mod files;
mod hub;
mod push;
mod registry;
