//! What is written about the run, to the standard error output.

use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;

use tracing::Level as TracingLevel;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt};

use crate::settings::{Level, Log, LogFormat};

/// Starts logging, panics included. Whoever called this first in the process wins.
pub(crate) fn start(log: &Log) {
    // A log that cannot be written must not be told to the log.
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // A second call can only come from a test; it keeps what is there.
    let _already = Registry::default().with(lines.with_filter(filter(log.level))).try_init();
    std::panic::set_hook(Box::new(log_panic));
}

/// Starts logging for a command that ends by itself and tells its outcome otherwise: only what is wrong on the way.
pub(crate) fn start_for_command() {
    start(&Log { level: Level::Warn, format: LogFormat::Text });
}

/// What is important enough. Of what other crates say, only warnings are an operator's business, unless everything is
/// wanted.
fn filter(level: Level) -> Targets {
    let (ours, theirs) = match level {
        Level::Error => (TracingLevel::ERROR, LevelFilter::ERROR),
        Level::Warn => (TracingLevel::WARN, LevelFilter::WARN),
        Level::Info => (TracingLevel::INFO, LevelFilter::WARN),
        Level::Debug => (TracingLevel::DEBUG, LevelFilter::WARN),
        Level::Trace => (TracingLevel::TRACE, LevelFilter::TRACE),
    };
    Targets::new().with_default(theirs).with_target("deltaport", ours)
}

/// A panic is a bug. It ends one request or one task, not the process, and must not pass unseen.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let thread = std::thread::current();
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let trace = std::backtrace::Backtrace::capture();
    match trace.status() {
        std::backtrace::BacktraceStatus::Captured => {
            tracing::error!(message, place, thread = thread.name(), %trace, "panic: please report this");
        }
        _ => tracing::error!(message, place, thread = thread.name(), "panic: please report this"),
    }
}
