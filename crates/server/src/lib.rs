//! How others ask us: connections, TLS, identity, and the registry's answers as HTTP.
//!
//! This is the only crate that knows HTTP as a server. It decides nothing about repositories: it establishes who asks,
//! reads what the request means ([`deltaport_oci::wire::Route`]), has `Registry::authorize` decide, calls one use case
//! of the registry and writes down its answer. What a client sees of an error comes from one table, `error`.
//!
//! A request passes through: `serve` (accepting, draining), `connection` (TLS, protocol, the watchdog against slow
//! clients), `dispatch` (identity, authorization, one log line), `handlers` (one file per noun).

mod activity;
mod audit;
mod body;
mod challenges;
mod connection;
mod dispatch;
mod error;
mod exchange;
mod forwarded;
mod handlers;
mod identity;
mod line;
mod local;
mod metrics;
mod network;
mod options;
mod passwords;
mod peer;
mod realm;
mod reload;
mod request;
mod respond;
mod serve;
mod stream;
mod throttle;
mod tls;

pub use audit::AuditLog;
pub use challenges::Challenges;
pub use local::{CommandError, Commands, take_back};
pub use network::{Network, NotANetwork};
pub use options::{Limits, Options, Redirect, Tls};
pub use serve::{BindError, Server};
