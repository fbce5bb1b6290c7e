//! Mirror rules that go on to a destination, come from a layout, or remove what is not wanted any more: real registries on
//! both sides, with relays between that count and break things.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

mod deltas;
mod harness;
mod hours;
mod interrupted;
mod layout;
mod planned;
mod prune;
mod registry;
