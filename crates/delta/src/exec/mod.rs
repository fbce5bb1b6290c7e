//! Looking into executables, so that an address that moved costs nothing.
//!
//! Most bytes that change between two builds of a program hold addresses: of functions that moved because another one
//! became longer, of data behind tables that grew. The matches say what moved where, and both ends know them and the
//! old file: so both can rewrite the addresses in the old file before the entropy stage compares, and what is written
//! is real change. The delta says only where the executables are, how their parts moved, and, where it is not the
//! obvious, which kind of field a section holds. Courgette and Zucchini (Chromium, BSD licence) have shown what is in
//! this for code; they send the addresses, sorted and numbered, where here nothing is sent.

mod arm;
mod elf;
mod field;
mod file;
mod go;
mod map;
mod model;
mod plan;
mod predict;
mod refine;
mod rule;
#[cfg(test)]
mod tests;
mod x86;

pub(crate) use self::model::{Model, read_models, write_models};
pub(crate) use self::plan::plan;
pub(crate) use self::predict::Predicted;
