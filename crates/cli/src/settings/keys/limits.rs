//! `[limits]`: what is too much.

use super::{DAY, HOUR, KIB, MIB, MINUTE, TIB, seconds};
use crate::settings::key::{Default, Key, Slot};
use crate::settings::{Settings, Size};

/// The keys of `[limits]`.
pub(super) const KEYS: &[Key<Settings>] = &[
    Key {
        name: "limits.manifest_size",
        slot: Slot::Size(|s| &mut s.limits.manifest_size, Size(64 * KIB)..=Size(64 * MIB)),
        default: Default::Value("\"4MiB\""),
        about: "The largest manifest that is accepted. The specification demands 4 MiB.",
    },
    Key {
        name: "limits.blob_size",
        slot: Slot::Size(|s| &mut s.limits.blob_size, Size(MIB)..=Size(16 * TIB)),
        default: Default::Value("\"64GiB\""),
        about: "The largest blob, and the largest body of one request.",
    },
    Key {
        name: "limits.header_size",
        slot: Slot::Size(|s| &mut s.limits.header_size, Size(8 * KIB)..=Size(MIB)),
        default: Default::Value("\"32KiB\""),
        about: "The most bytes that the first line and the headers of a request may have together.",
    },
    Key {
        name: "limits.page_size",
        slot: Slot::Count(|s| &mut s.limits.page_size, 1..=100_000),
        default: Default::Value("1000"),
        about: "The most entries on one page of a list of tags, repositories or referrers, whatever n a client asks for.",
    },
    Key {
        name: "limits.json_depth",
        slot: Slot::Count(|s| &mut s.limits.json_depth, 8..=100),
        default: Default::Value("32"),
        about: "How deep the JSON of a manifest may be nested.",
    },
    Key {
        name: "limits.manifest_references",
        slot: Slot::Count(|s| &mut s.limits.manifest_references, 128..=65_536),
        default: Default::Value("4096"),
        about: "How many layers, or children of an index, a manifest may have.",
    },
    Key {
        name: "limits.tags_per_push",
        slot: Slot::Count(|s| &mut s.limits.tags_per_push, 10..=1000),
        default: Default::Value("100"),
        about: "How many tags one push of a manifest may set.",
    },
    Key {
        name: "limits.uploads_per_caller",
        slot: Slot::Count(|s| &mut s.limits.uploads_per_caller, 1..=100_000),
        default: Default::Value("256"),
        about: "How many uploads one user may have open; callers that have not logged in share one count.",
    },
    Key {
        name: "limits.connections",
        slot: Slot::Count(|s| &mut s.limits.connections, 8..=100_000),
        default: Default::Value("1024"),
        about: "How many connections may be open. Further ones wait until one is closed.",
    },
    Key {
        name: "limits.header_timeout",
        slot: Slot::Span(|s| &mut s.limits.header_timeout, seconds(1)..=seconds(10 * MINUTE)),
        default: Default::Value("\"30s\""),
        about: "How long the headers of a request may take to arrive, and a TLS handshake to be done.",
    },
    Key {
        name: "limits.idle_timeout",
        slot: Slot::Span(|s| &mut s.limits.idle_timeout, seconds(1)..=seconds(DAY)),
        default: Default::Value("\"2m\""),
        about: "How long a connection may stay open without a request.",
    },
    Key {
        name: "limits.stall_timeout",
        slot: Slot::Span(|s| &mut s.limits.stall_timeout, seconds(1)..=seconds(HOUR)),
        default: Default::Value("\"30s\""),
        about: "How long a transfer may stand still because of the client before its connection is closed, and the time \
                over which minimum_rate is measured. Uploads can be resumed.",
    },
    Key {
        name: "limits.minimum_rate",
        slot: Slot::Size(|s| &mut s.limits.minimum_rate, Size(0)..=Size(MIB)),
        default: Default::Value("\"128B\""),
        about: "How many bytes a second a transfer has to move on average, as far as it is up to the client. Links to sites are slow; this is against clients \
                that are slow on purpose. 0B is no limit.",
    },
    Key {
        name: "limits.password_checks",
        slot: Slot::Count(|s| &mut s.limits.password_checks, 1..=64),
        default: Default::Value("2"),
        about: "How many passwords are checked at the same time. Each check takes a whole core, and with argon2id some \
                memory, for a moment.",
    },
    Key {
        name: "limits.free_disk",
        slot: Slot::Size(|s| &mut s.limits.free_disk, Size(0)..=Size(16 * TIB)),
        default: Default::Value("\"256MiB\""),
        about: "How much space is left free on the disk that blobs are on (`data`, storage.blobs): writes that would leave less are refused.",
    },
];
