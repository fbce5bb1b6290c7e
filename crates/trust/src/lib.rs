//! May we? Pure decisions: who may do what with which repository, whether a password or a token is right, and whether an
//! image is signed as a policy wants it.
//!
//! A security review reads this crate and `Registry::authorize`, its only user. Nothing here does input or output,
//! starts anything or reads a clock: rules, password files and policies arrive as values, random numbers and the time too.

pub mod access;
pub mod certificates;
pub mod passwords;
pub mod signatures;
pub mod tokens;

pub use access::{Access, AccessError, Action, Caller, Pattern, PatternError, Rule, Rules};
pub use passwords::{PasswordError, Passwords};
