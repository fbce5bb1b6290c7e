//! The server over real sockets and a real store.

mod access;
mod errors;
mod harness;
mod lifecycle;
mod limits;
mod lists;
mod pull;
mod push;
mod roles;
mod tls;
