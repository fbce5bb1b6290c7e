//! The table of keys: every one with its type, bounds, default and meaning, a file for each table of the configuration.
//!
//! A limit's upper bound is what the code has been thought through for, not a taste. A default suits a site with a few
//! dozen machines behind it and little memory.

mod access;
mod acme;
mod audit;
mod cache;
mod collect;
mod delta;
mod fill;
mod limits;
mod log;
mod mirror;
mod repository;
mod space;
mod storage;
mod tls;
mod top;
mod trust;
mod upstream;

use std::time::Duration;

use super::key::Key;
use super::{Settings, Span};

pub(super) use access::{CERTIFICATE, OIDC, RULE};
pub(super) use mirror::MIRROR;
pub(in crate::settings) use mirror::{layout, source};
pub(super) use repository::REPOSITORY;
pub(super) use upstream::{TAG_RULE, UPSTREAM};
pub(crate) use upstream::{host, url};

/// The keys of the file itself and of its tables that can be there once, in the order of the reference.
pub(super) const SETTINGS: &[&[Key<Settings>]] = &[
    top::KEYS,
    storage::KEYS,
    repository::KEYS,
    tls::KEYS,
    acme::KEYS,
    access::KEYS,
    audit::KEYS,
    trust::KEYS,
    limits::KEYS,
    cache::KEYS,
    collect::KEYS,
    space::KEYS,
    log::KEYS,
    upstream::KEYS,
    mirror::KEYS,
    fill::KEYS,
    delta::KEYS,
];

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

const fn seconds(count: u64) -> Span {
    Span(Duration::from_secs(count))
}
