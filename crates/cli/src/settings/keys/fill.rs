//! `[fill]`: how they are fetched.

use super::{DAY, HOUR, seconds};
use crate::settings::Settings;
use crate::settings::key::{Default, Key, Slot};

/// The keys of `[fill]`.
pub(super) const KEYS: &[Key<Settings>] = &[
    Key {
        name: "fill.concurrent",
        slot: Slot::Count(|s| &mut s.fill.concurrent, 1..=1000),
        default: Default::Value("8"),
        about: "How many blobs are fetched from upstreams at the same time; more wait.",
    },
    Key {
        name: "fill.patience",
        slot: Slot::Span(|s| &mut s.fill.patience, seconds(1)..=seconds(DAY)),
        default: Default::Value("\"2m\""),
        about: "How long a transfer from an upstream may go without a new byte before it is given up. Until then it is \
                taken up again where it stopped, as often as it takes.",
    },
    Key {
        name: "fill.delta_wait",
        slot: Slot::Span(|s| &mut s.fill.delta_wait, seconds(0)..=seconds(HOUR)),
        default: Default::Value("\"20s\""),
        about: "How long to wait for a delta that an upstream is still making, before the whole layer is fetched.",
    },
    Key {
        name: "fill.delta_deadline",
        slot: Slot::Span(|s| &mut s.fill.delta_deadline, seconds(1)..=seconds(DAY)),
        default: Default::Value("\"20s\""),
        about: "How long a client may wait for a layer that comes as a delta (asking, fetching and applying together) \
                before the whole layer is fetched beside it; what is there first is served. Clients give up after 30 \
                seconds and more without a byte.",
    },
];
