//! Names in the data directory.

mod older;
#[path = "suite/mod.rs"]
mod suite;

use crate::common::Home;

fn home() -> Home {
    Home::embedded()
}
