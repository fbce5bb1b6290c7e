//! What the store promises, tested through its public face on real files.

mod basics;
mod common;
