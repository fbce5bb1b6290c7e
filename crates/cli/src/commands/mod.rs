//! The commands, one file each. A command reads its input, has the work done, and tells the outcome.

pub(crate) mod client_config;
pub(crate) mod config;
pub(crate) mod delta;
pub(crate) mod demo;
pub(crate) mod fsck;
pub(crate) mod gc;
pub(crate) mod image;
mod layout;
pub(crate) mod migrate;
pub(crate) mod mirror;
pub(crate) mod passwd;
mod progress;
pub(crate) mod rebuild;
pub(crate) mod serve;
pub(crate) mod token;
pub(crate) mod usage;
pub(crate) mod verify;
