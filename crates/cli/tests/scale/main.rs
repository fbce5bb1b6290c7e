//! Hubs whose bytes are in a bucket.

mod check_bucket;
mod config_check;
