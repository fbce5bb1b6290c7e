//! What the store promises, tested through its public face on real files.

#![allow(clippy::unwrap_used)] // helpers are tests too

mod absences;
mod bases;
mod basics;
mod bucket;
mod collect;
mod common;
mod crash;
mod damage;
mod faults;
mod hub;
mod leases;
mod model;
mod notes;
mod partials;
mod space;
mod uploads;
mod verdicts;
