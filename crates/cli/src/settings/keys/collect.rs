//! `[collect]`: when space is taken back.

use super::{DAY, seconds};
use crate::settings::Settings;
use crate::settings::key::{Default, Key, Slot};

/// The keys of `[collect]`.
pub(super) const KEYS: &[Key<Settings>] = &[
    Key {
        name: "collect.interval",
        slot: Slot::Span(|s| &mut s.collect.interval, seconds(1)..=seconds(30 * DAY)),
        default: Default::Value("\"10m\""),
        about: "How often space is taken back from what nothing refers to any more. It runs beside everything else.",
    },
    Key {
        name: "collect.grace",
        slot: Slot::Span(|s| &mut s.collect.grace, seconds(0)..=seconds(365 * DAY)),
        default: Default::Value("\"1d\""),
        about: "How long bytes that nothing refers to are kept. A push uploads its layers before the manifest that refers \
                to them, so this must be longer than the slowest push.",
    },
    Key {
        name: "collect.upload_expiry",
        slot: Slot::Span(|s| &mut s.collect.upload_expiry, seconds(60)..=seconds(365 * DAY)),
        default: Default::Value("\"1d\""),
        about: "How long an upload that nobody touches is kept.",
    },
    Key {
        name: "collect.partial_expiry",
        slot: Slot::Span(|s| &mut s.collect.partial_expiry, seconds(60)..=seconds(365 * DAY)),
        default: Default::Value("\"30d\""),
        about: "How long the beginning of a blob that did not arrive whole is kept, so that the next who asks for it goes \
                on there. Longer than the longest time without a link.",
    },
];
