//! What the store promises, tested through its public face on real files and, where names are shared, on a real
//! PostgreSQL.

#![allow(clippy::unwrap_used)] // helpers are tests too

mod bucket;
mod common;
mod crash;
mod damage;
mod embedded;
mod faults;
mod migration;
mod partials;
mod scale;
mod shared;
mod split;
