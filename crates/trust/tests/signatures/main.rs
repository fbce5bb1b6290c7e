//! The signature gate from outside: signatures of every format that are right, the same with one thing wrong, and
//! policies.

mod accepted;
mod bundles;
mod certificates;
mod infrastructure;
mod policies;
mod refused;
mod support;
