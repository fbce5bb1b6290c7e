//! `[space]`: how much room what comes from upstreams may take.

use super::TIB;
use crate::settings::key::{Default, Key, Slot};
use crate::settings::{Settings, Size};

/// The keys of `[space]`.
pub(super) const KEYS: &[Key<Settings>] = &[
    Key {
        name: "space.cached",
        slot: Slot::Size(|s| &mut s.space.cached, Size(0)..=Size(1024 * TIB)),
        default: Default::Value("\"0B\""),
        about: "How much may be here only because it came from upstreams. When it is more, the least recently used images \
                go, each whole, until it is nine tenths of this; who asks for one again is sent what is fetched again. What \
                was pushed here does not count and never goes, nor does what its upstream does not have any more. While an \
                upstream cannot be reached, nothing of its goes. 0B is no limit.",
    },
    Key {
        name: "space.free_disk",
        slot: Slot::Size(|s| &mut s.space.free_disk, Size(0)..=Size(16 * TIB)),
        default: Default::Value("\"512MiB\""),
        about: "When less than this is free on the disk that blobs are on, images go in the same way, before writes are \
                refused (limits.free_disk). 0B is never.",
    },
    Key {
        name: "space.pins",
        slot: Slot::Texts("images such as \"docker.io/library/debian:12*\"", |s, text| {
            s.space.pins.push(text.parse().map_err(|error| format!("{error}"))?);
            Ok(())
        }),
        default: Default::Unset {
            example: "[\"docker.io/library/**\", \"quay.io/team/app:v*\"]",
            means: "none",
        },
        about: "Images that stay whatever room they take: repositories as they are called here, with patterns as in \
                [[access.rule]], and behind a colon tags, in which `*` stands for anything. Without tags, all that the \
                repositories hold stays.",
    },
];
