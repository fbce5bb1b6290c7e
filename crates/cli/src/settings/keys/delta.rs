//! `[delta]`: how deltas are made and applied.

use super::{GIB, MIB};
use crate::settings::key::{Default, Key, Slot};
use crate::settings::{Settings, Size};

/// The keys of `[delta]`.
pub(super) const KEYS: &[Key<Settings>] = &[
    Key {
        name: "delta.memory",
        slot: Slot::Size(|s| &mut s.delta.memory, Size(256 * MIB)..=Size(64 * GIB)),
        default: Default::Value("\"1GiB\""),
        about: "Memory that making one delta may take. With less, large layers are searched in a coarser way, and their \
                deltas are larger. Applying a delta takes at most 256 MiB, whatever the layer.",
    },
    Key {
        name: "delta.scratch",
        slot: Slot::Size(|s| &mut s.delta.scratch, Size(MIB)..=Size(1024 * GIB)),
        default: Default::Value("\"16GiB\""),
        about: "Disk space that applying one delta may take while it lasts, on the disk that blobs are on: for the old layers, \
                uncompressed. Layers for which it is not enough are fetched whole.",
    },
    Key {
        name: "delta.jobs",
        slot: Slot::Count(|s| &mut s.delta.jobs, 1..=64),
        default: Default::Value("1"),
        about: "How many deltas are made, and how many applied, at the same time, each on a core of its own.",
    },
    Key {
        name: "delta.maximum_layer",
        slot: Slot::Size(|s| &mut s.delta.maximum_layer, Size(MIB)..=Size(64 * GIB)),
        default: Default::Value("\"4GiB\""),
        about: "The largest layer, as it is stored, that deltas are made from or to.",
    },
    Key {
        name: "delta.history",
        slot: Slot::Count(|s| &mut s.delta.history, 0..=16),
        default: Default::Value("3"),
        about: "When a tag moves, deltas are made ahead from the layers of this many manifests that it pointed to \
                before. With 0 none are, and each is made when a site asks for it.",
    },
];
