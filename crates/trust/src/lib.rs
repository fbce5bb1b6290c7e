//! May we? Pure decisions: who may do what with which repository, and whether a password is right.
//!
//! A security review reads this crate and `Registry::authorize`, its only user. Nothing here does input or output,
//! starts anything or reads a clock: rules and password files arrive as values, random salts too. Verdicts on image
//! signatures will be a further module.

pub mod access;
pub mod passwords;

pub use access::{Access, AccessError, Action, Caller, Pattern, PatternError, Rule, Rules};
pub use passwords::{PasswordError, Passwords};
