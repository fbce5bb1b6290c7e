//! `[log]`: what is written about the run.

use crate::settings::key::{Default, Key, Slot};
use crate::settings::{Level, LogFormat, Settings};

/// The keys of `[log]`.
pub(super) const KEYS: &[Key<Settings>] = &[
    Key {
        name: "log.level",
        slot: Slot::Choice(&["error", "warn", "info", "debug", "trace"], |s, word| {
            s.log.level = match word {
                "error" => Level::Error,
                "warn" => Level::Warn,
                "debug" => Level::Debug,
                "trace" => Level::Trace,
                _ => Level::Info,
            }
        }),
        default: Default::Value("\"info\""),
        about: "How much is written to the standard error output.",
    },
    Key {
        name: "log.format",
        slot: Slot::Choice(&["text", "json"], |s, word| {
            s.log.format = if word == "json" { LogFormat::Json } else { LogFormat::Text };
        }),
        default: Default::Value("\"text\""),
        about: "How it is written: for people, or one JSON object in each line.",
    },
];
