//! `[fill]`: how they are fetched.

use super::{DAY, GIB, HOUR, seconds};
use crate::settings::key::{Default, Key, Slot};
use crate::settings::{Settings, Size};

/// The keys of `[fill]`.
pub(super) const KEYS: &[Key<Settings>] = &[
    Key {
        name: "fill.concurrent",
        slot: Slot::Count(|s| &mut s.fill.concurrent, 1..=1000),
        default: Default::Value("8"),
        about: "How many blobs are fetched from upstreams at the same time; more wait. A repository of which none is being \
                fetched does not wait for others, up to four times as many.",
    },
    Key {
        name: "fill.bandwidth",
        slot: Slot::Size(|s| &mut s.fill.bandwidth, Size(0)..=Size(1024 * GIB)),
        default: Default::Value("\"0B\""),
        about: "The most bytes a second that blobs and deltas from all upstreams take together. Clients that wait come \
                first, and repositories share evenly. 0B is no cap.",
    },
    Key {
        name: "fill.ahead",
        slot: Slot::Flag(|s| &mut s.fill.ahead),
        default: Default::Value("true"),
        about: "Whether the blobs of an image are fetched as soon as a client has asked for its manifest, behind all that \
                clients wait for. Off, they are fetched one by one as clients ask for them.",
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
                before the whole layer is fetched beside it; what is there first is served. Beside a delta that comes \
                steadily and will be there sooner at its pace, only the first 64 KiB are fetched, so that clients have \
                something, and the rest waits for up to 4 minutes.",
    },
];
