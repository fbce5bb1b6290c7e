//! `[cache]`: what is kept in memory.

use super::GIB;
use crate::settings::key::{Default, Key, Slot};
use crate::settings::{Settings, Size};

/// The keys of `[cache]`.
pub(super) const KEYS: &[Key<Settings>] = &[Key {
    name: "cache.manifests",
    slot: Slot::Size(|s| &mut s.cache.manifests, Size(0)..=Size(4 * GIB)),
    default: Default::Value("\"16MiB\""),
    about: "Memory for manifests that were served recently.",
}];
