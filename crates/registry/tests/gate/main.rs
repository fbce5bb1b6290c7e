//! The signature gate: what the policy does not accept is not served, in no way, and costs kilobytes.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

mod pushes;
mod review;
mod site;
mod support;
