//! What a store promises wherever it keeps things. Each place compiles this suite once, and says with `home()` where its
//! stores live.

pub(super) mod absences;
mod bases;
mod basics;
mod collect;
pub(super) mod hub;
pub(super) mod leases;
mod model;
mod notes;
pub(super) mod space;
mod uploads;
mod verdicts;

use super::home;
