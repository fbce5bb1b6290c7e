//! What happens on a connection, and the watchdog that ends it when the client makes it wait too long.
//!
//! Three things can keep a connection open for ever: a head that never ends, silence, and a transfer that crawls. The
//! watchdog looks from time to time and ends all three. It never ends a request that waits for us.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::options::Limits;

/// What the connection's stream, its requests and its watchdog share. The numbers are hints for the watchdog, so no
/// order between them is needed.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Bytes that came in.
    received: AtomicU64,
    /// Bytes that went out.
    sent: AtomicU64,
    /// Whether the last attempt to send had to wait.
    blocked: AtomicBool,
    /// How many bodies wait for the client right now.
    waiting: AtomicUsize,
    /// Requests begun, ever.
    begun: AtomicU64,
    /// Requests in progress.
    running: AtomicUsize,
    /// Whether a request was answered before all of it was read.
    unread: AtomicBool,
}

/// A request in progress; ends when dropped.
#[derive(Debug)]
pub(crate) struct Running(Arc<Activity>);

/// A body that waits for the client; ends when dropped.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<Activity>);

impl Activity {
    pub(crate) fn run(self: &Arc<Self>) -> Running {
        self.begun.fetch_add(1, Relaxed);
        self.running.fetch_add(1, Relaxed);
        Running(Arc::clone(self))
    }

    pub(crate) fn wait(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Relaxed);
        Waiting(Arc::clone(self))
    }

    /// Bytes came in.
    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Relaxed);
    }

    /// Bytes went out.
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Relaxed);
        self.blocked.store(false, Relaxed);
    }

    /// Bytes could not go out yet.
    pub(crate) fn blocked(&self) {
        self.blocked.store(true, Relaxed);
    }

    /// A request is answered, and the client may still be sending it.
    pub(crate) fn leave_unread(&self) {
        self.unread.store(true, Relaxed);
    }

    /// Whether that ever happened.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }

    fn moved(&self) -> u64 {
        self.received.load(Relaxed) + self.sent.load(Relaxed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// What the watchdog wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Fine,
    /// Nobody has asked anything for long: say goodbye.
    Idle,
    /// The head of a request takes too long: close.
    SlowHead,
    /// A transfer crawls: close.
    SlowTransfer,
}

/// Looks at the activity of one connection from time to time.
#[derive(Debug)]
pub(crate) struct Watchdog {
    activity: Arc<Activity>,
    limits: Limits,
    /// Whether bytes without a request are the head of one. In HTTP/2 they may be pings.
    heads: bool,
    quiet: Option<Quiet>,
    /// Since when a transfer waits, and what had moved then.
    slow: Option<(Instant, u64)>,
}

/// A time without requests.
#[derive(Debug)]
struct Quiet {
    since: Instant,
    begun: u64,
    received: u64,
    head_since: Option<Instant>,
}

impl Watchdog {
    pub(crate) fn new(activity: Arc<Activity>, limits: Limits, heads: bool) -> Self {
        Self { activity, limits, heads, quiet: None, slow: None }
    }

    /// How often to look: often enough that no limit is exceeded by much.
    pub(crate) fn period(limits: &Limits) -> Duration {
        let shortest = limits.header_timeout.min(limits.idle_timeout).min(limits.progress_interval);
        (shortest / 4).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }

    pub(crate) fn look(&mut self, now: Instant) -> Verdict {
        if self.crawls(now) {
            return Verdict::SlowTransfer;
        }
        let activity = &self.activity;
        if activity.running.load(Relaxed) > 0 {
            self.quiet = None;
            return Verdict::Fine;
        }
        let (begun, received) = (activity.begun.load(Relaxed), activity.received.load(Relaxed));
        let quiet = match &mut self.quiet {
            Some(quiet) if quiet.begun == begun => quiet,
            stale => stale.insert(Quiet { since: now, begun, received, head_since: None }),
        };
        if self.heads && received != quiet.received {
            let since = *quiet.head_since.get_or_insert(now);
            if now - since >= self.limits.header_timeout {
                return Verdict::SlowHead;
            }
        }
        if now - quiet.since >= self.limits.idle_timeout { Verdict::Idle } else { Verdict::Fine }
    }

    /// Whether a transfer has been waiting for the client over a whole interval and hardly anything moved.
    fn crawls(&mut self, now: Instant) -> bool {
        let activity = &self.activity;
        if !activity.blocked.load(Relaxed) && activity.waiting.load(Relaxed) == 0 {
            self.slow = None;
            return false;
        }
        let moved = activity.moved();
        let (since, before) = *self.slow.get_or_insert((now, moved));
        if now - since < self.limits.progress_interval {
            return false;
        }
        self.slow = Some((now, moved));
        moved - before < self.limits.progress_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watchdog(heads: bool) -> (Arc<Activity>, Watchdog) {
        let activity = Arc::new(Activity::default());
        let limits = Limits {
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            progress_interval: Duration::from_secs(30),
            progress_bytes: 1000,
            ..Limits::DEFAULT
        };
        (Arc::clone(&activity), Watchdog::new(activity, limits, heads))
    }

    /// The first verdict that is not fine, looking every second, and when; `each` happens before each look.
    fn first(watchdog: &mut Watchdog, mut each: impl FnMut(u64)) -> Option<(u64, Verdict)> {
        let start = Instant::now();
        (0..300).find_map(|second| {
            each(second);
            let verdict = watchdog.look(start + Duration::from_secs(second));
            (verdict != Verdict::Fine).then_some((second, verdict))
        })
    }

    #[test]
    fn silence_is_idle_whether_it_is_the_first_or_not() {
        let (activity, mut dog) = watchdog(true);
        assert_eq!(first(&mut dog, |_| {}), Some((60, Verdict::Idle)));
        let (activity, mut dog) = {
            drop(activity);
            watchdog(true)
        };
        let one_request = |second| {
            if second == 30 {
                drop(activity.run())
            }
        };
        assert_eq!(first(&mut dog, one_request), Some((90, Verdict::Idle)));
    }

    #[test]
    fn a_head_that_trickles_is_not_silence() {
        let trickle = |activity: &Activity| {
            activity.received(1);
        };
        let (activity, mut dog) = watchdog(true);
        assert_eq!(first(&mut dog, |_| trickle(&activity)), Some((11, Verdict::SlowHead)));
        let (activity, mut dog) = watchdog(false);
        assert_eq!(first(&mut dog, |_| trickle(&activity)), Some((60, Verdict::Idle)), "HTTP/2 pings");
    }

    #[test]
    fn a_busy_connection_is_left_alone() {
        let (activity, mut dog) = watchdog(true);
        let request = |_| {
            activity.received(100);
            drop(activity.run());
        };
        assert_eq!(first(&mut dog, request), None);
    }

    #[test]
    fn a_request_that_waits_for_us_is_left_alone() {
        let (activity, mut dog) = watchdog(true);
        let _running = activity.run();
        assert_eq!(first(&mut dog, |_| {}), None);
    }

    #[test]
    fn a_transfer_must_move_whoever_has_to_move_it() {
        for blocked in [true, false] {
            let (activity, mut dog) = watchdog(true);
            let _running = activity.run();
            let _waiting = (!blocked).then(|| activity.wait());
            activity.blocked.store(blocked, Relaxed);
            let crawl = |_| {
                activity.sent.fetch_add(30, Relaxed);
            };
            assert_eq!(first(&mut dog, crawl), Some((30, Verdict::SlowTransfer)));
            let (activity, mut dog) = watchdog(true);
            let _running = activity.run();
            let _waiting = activity.wait();
            let walk = |_| {
                activity.received(40);
            };
            assert_eq!(first(&mut dog, walk), None);
        }
    }
}
