//! HTTP/1.1 over a socket with every byte in the test's hand.
//!
//! Ordinary clients correct what they send and hide what they receive. Here a request goes out as it was written,
//! also when it is wrong, in pieces or not whole; and a response is what arrived.

mod connection;
mod message;

pub use connection::{Client, Connection, TIME_LIMIT};
pub use message::{Body, Headers, Request, Response};
pub(crate) use message::{read_head, read_request_body};
