//! Names in PostgreSQL.

mod away;
mod cut;
mod migration;
mod replicas;
mod way;

#[path = "suite/mod.rs"]
#[allow(clippy::duplicate_mod, reason = "the same suite for another place")]
mod suite;

use crate::common::Home;

fn home() -> Home {
    Home::postgres()
}
