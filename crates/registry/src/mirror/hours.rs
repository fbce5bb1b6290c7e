//! When runs of a rule may fetch, and when the registry begins them: the clock, held against the timetable.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use super::timetable::{Cron, Windows};

/// The longest that is slept without a look at the clock: it may be set, and machines are suspended.
const LOOK: Duration = Duration::from_secs(5);
/// How far back a schedule is looked at, for a run that a restart has cut off.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(24);
/// How many times of a schedule are looked at in that.
const MAX_TIMES: usize = 24 * 60 + 1;

/// What time it is. Tests are at other times.
#[derive(Clone, Copy, Debug)]
pub struct Clock(pub fn() -> Timestamp);

impl Default for Clock {
    fn default() -> Self {
        Self(Timestamp::now)
    }
}

/// Hours by the clock of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    /// When something may happen.
    pub windows: Windows,
    /// Where.
    pub zone: TimeZone,
}

impl Default for Hours {
    /// Always.
    fn default() -> Self {
        Self { windows: Windows::default(), zone: TimeZone::UTC }
    }
}

/// When the registry begins a run by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Begin {
    /// Not at all.
    #[default]
    Never,
    /// At once, and so long after the end of each run.
    Every(Duration),
    /// By the clock.
    At(Cron),
}

/// The time zone of this name: one of the system's database, a rule as in the variable `TZ` of POSIX, or `system` for
/// the one that the machine is set to, which is UTC where nothing is set.
///
/// Fails with a sentence.
pub fn zone(name: &str) -> Result<TimeZone, String> {
    match name {
        "system" => Ok(TimeZone::system()),
        _ => TimeZone::get(name).or_else(|_| TimeZone::posix(name)).map_err(|_| {
            format!(
                "the system's database of time zones, in /usr/share/zoneinfo, has no {name}; without a database, say a rule \
                 such as \"CET-1CEST,M3.5.0,M10.5.0/3\""
            )
        }),
    }
}

/// Whether a run may go on.
#[derive(Debug)]
pub(crate) struct Gate {
    hours: Hours,
    clock: Clock,
    /// Whether somebody has said that it is to go on at any hour.
    forced: AtomicBool,
    changed: Notify,
}

impl Gate {
    pub(crate) fn new(hours: Hours, clock: Clock) -> Self {
        Self { hours, clock, forced: AtomicBool::new(false), changed: Notify::new() }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.forced.load(Ordering::Relaxed) || self.hours.windows.is_open((self.clock.0)(), &self.hours.zone)
    }

    /// Waits until it is open.
    pub(crate) async fn opened(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_open() {
                return;
            }
            let now = (self.clock.0)();
            let pause = match self.hours.windows.next_change(now, &self.hours.zone) {
                Some(change) => until(now, change),
                None => LOOK,
            };
            // Whichever comes first.
            let _ = tokio::time::timeout(pause, changed).await;
        }
    }

    /// Opens it for good.
    pub(crate) fn force(&self) {
        self.forced.store(true, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// When it opens next by the clock on the wall; `None` while it is open.
    pub(super) fn opens(&self) -> Option<String> {
        if self.is_open() {
            return None;
        }
        let opens = self.hours.windows.next_change((self.clock.0)(), &self.hours.zone)?;
        Some(opens.to_zoned(self.hours.zone.clone()).strftime("%Y-%m-%d %H:%M").to_string())
    }
}

impl Hours {
    /// Waits until the next time of a schedule, and returns that; waits forever when there is none.
    pub(super) async fn next(&self, schedule: &Cron, clock: Clock) -> Timestamp {
        let Some(next) = schedule.next((clock.0)(), &self.zone) else { return std::future::pending().await };
        loop {
            let now = (clock.0)();
            if now >= next {
                return next;
            }
            tokio::time::sleep(until(now, next)).await;
        }
    }

    /// When the run was to begin whose window is open now, if there is one: a process that is started again within it takes
    /// the run up and does not leave the rest of the night unused.
    pub(super) fn hour_of(&self, schedule: &Cron, now: Timestamp) -> Option<Timestamp> {
        let mut at = now.checked_sub(LOOK_BACK).ok()?;
        for _ in 0..MAX_TIMES {
            let due = schedule.next(at, &self.zone).filter(|due| *due <= now)?;
            let closes = self.windows.next_change(due, &self.zone);
            if self.windows.is_open(due, &self.zone) && closes.is_some_and(|closes| closes > now) {
                return Some(due);
            }
            at = due;
        }
        None
    }
}

/// How long to sleep now, if something happens at `then`.
fn until(now: Timestamp, then: Timestamp) -> Duration {
    let left = Duration::try_from(then.duration_since(now)).unwrap_or_default();
    left.clamp(Duration::from_millis(1), LOOK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicI64;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn hours(windows: &[&str]) -> Hours {
        let windows = windows.iter().map(|window| window.parse().unwrap()).collect();
        Hours { windows: Windows::new(windows), zone: zone("CET-1CEST,M3.5.0,M10.5.0/3").unwrap() }
    }

    #[test]
    fn a_run_that_a_restart_cut_off_is_taken_up_in_its_window() {
        let night: Cron = "30 22 * * *".parse().unwrap();
        for (windows, now, expected) in [
            (&["22:00-05:00"][..], "2026-01-02 03:00+01", true),
            (&["22:00-05:00"], "2026-01-01 22:10+01", false),
            (&["22:00-05:00"], "2026-01-02 05:00+01", false),
            (&["22:00-23:00", "03:00-04:00"], "2026-01-02 03:30+01", false),
            // Without a window, nothing says until when it would have gone on.
            (&[], "2026-01-02 03:00+01", false),
            (&["00:00-24:00"], "2026-01-02 03:00+01", false),
        ] {
            assert_eq!(hours(windows).hour_of(&night, at(now)).is_some(), expected, "{windows:?} {now}");
        }
    }

    #[test]
    fn zones_have_names_or_rules() {
        assert!(zone("system").is_ok() && zone("UTC0").is_ok());
        assert!(zone("Nowhere/Atlantis").unwrap_err().contains("has no Nowhere/Atlantis"));
    }

    static NOW: AtomicI64 = AtomicI64::new(0);

    #[tokio::test(start_paused = true)]
    async fn a_gate_opens_with_its_window_or_when_it_is_told_to() {
        let clock = Clock(|| Timestamp::from_second(NOW.load(Ordering::SeqCst)).unwrap());
        NOW.store(at("2026-01-01 21:59+01").as_second(), Ordering::SeqCst);
        let gate = Arc::new(Gate::new(hours(&["22:00-05:00"]), clock));
        assert_eq!(gate.opens().as_deref(), Some("2026-01-01 22:00"));
        let waits = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.opened().await }
        });
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(!waits.is_finished(), "what counts is the clock on the wall");
        NOW.store(at("2026-01-01 22:00+01").as_second(), Ordering::SeqCst);
        waits.await.unwrap();
        assert!(gate.is_open() && gate.opens().is_none());
        NOW.store(at("2026-01-02 05:00+01").as_second(), Ordering::SeqCst);
        assert!(!gate.is_open());
        let waits = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.opened().await }
        });
        tokio::task::yield_now().await;
        gate.force();
        waits.await.unwrap();
        assert!(gate.is_open());
    }
}
