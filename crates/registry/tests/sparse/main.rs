//! Sparse indexes at a site and at a registry of its own: every state of a child and how it comes to be, what clients
//! are told about what is not here, and what completing, pruning and pushing do.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

mod image;
mod push;
mod site;
mod states;
