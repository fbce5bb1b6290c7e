//! May we? Pure decisions: who may do what with which repository, whether a password is right, and whether an image is
//! signed as a policy wants it.
//!
//! A security review reads this crate and `Registry::authorize`, its only user. Nothing here does input or output,
//! starts anything or reads a clock: rules, password files and policies arrive as values, random salts and the time too.

pub mod access;
pub mod passwords;
pub mod signatures;

pub use access::{Access, AccessError, Action, Caller, Pattern, PatternError, Rule, Rules};
pub use passwords::{PasswordError, Passwords};
