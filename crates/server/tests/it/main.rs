//! The server over real sockets and a real store.

mod access;
mod audit;
mod brute_force;
mod bucket;
mod certificates;
mod deltas;
mod errors;
mod faults;
mod harness;
mod http2;
mod lifecycle;
mod limits;
mod lists;
mod proxies;
mod pull;
mod push;
mod roles;
mod tls;
mod tokens;
