//! How fast things go: bytes from an upstream, and the applying of deltas here. What is sooner is taken.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Transfers of fewer bytes say more about latency than about speed.
const LEAST_SAMPLE: u64 = 128 << 10;
/// A transfer that goes on is measured anew this often.
const INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of a layer that are made a second before the first one was: what a small machine does with gzip.
const FIRST_APPLY: f64 = 15e6;

/// A speed that is measured while something is going on, in bytes a second; several at once count together.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How many things are going on.
    running: usize,
    since: Option<Instant>,
    bytes: u64,
    speed: Option<f64>,
}

impl Meter {
    /// Something begins; it ends when what is returned is dropped.
    pub(crate) fn begin(&self) -> Running<'_> {
        let mut state = self.lock();
        if state.running == 0 {
            state.restart();
        }
        state.running += 1;
        Running(self)
    }

    /// In bytes a second; `None` before the first measurement.
    pub(crate) fn speed(&self) -> Option<f64> {
        self.lock().speed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Numbers that are half written are still only a guess.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that is going on.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a Meter);

impl Running<'_> {
    /// So many bytes more are done.
    pub(crate) fn add(&self, bytes: u64) {
        let mut state = self.0.lock();
        state.bytes += bytes;
        if state.since.is_some_and(|since| since.elapsed() >= INTERVAL) {
            state.measure();
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.measure();
        state.running -= 1;
    }
}

impl State {
    fn restart(&mut self) {
        self.since = Some(Instant::now());
        self.bytes = 0;
    }

    /// Lets what was done since the last time count half.
    fn measure(&mut self) {
        let elapsed = self.since.map_or(Duration::ZERO, |since| since.elapsed());
        if self.bytes < LEAST_SAMPLE || elapsed.is_zero() {
            return;
        }
        let now = self.bytes as f64 / elapsed.as_secs_f64();
        self.speed = Some(self.speed.map_or(now, |before| (before + now) / 2.0));
        self.restart();
    }
}

/// What is known when a layer could come as a delta.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Race {
    /// Bytes a second from the upstream, if that was ever measured.
    pub(crate) link: Option<f64>,
    /// Bytes of a layer that are made of a delta a second, likewise.
    pub(crate) apply: Option<f64>,
}

impl Race {
    /// The size in bytes below which a delta is likely to bring a layer of `size` bytes sooner than those that are
    /// `missing`. Of a link that was never measured the worst is assumed: that is what deltas are for.
    pub(crate) fn most_that_wins(self, size: u64, missing: u64) -> u64 {
        let Some(link) = self.link else { return missing };
        // Without what the link carries while the delta is applied. Converting saturates: less than nothing is nothing.
        (missing as f64 - self.applying(size).as_secs_f64() * link) as u64
    }

    /// How long a delta to a layer of `size` bytes is likely to take when it is here.
    pub(crate) fn applying(self, size: u64) -> Duration {
        Duration::try_from_secs_f64(size as f64 / self.apply.unwrap_or(FIRST_APPLY)).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_the_link_the_more_a_delta_is_worth() {
        const LAYER: u64 = 50_000_000;
        let most = |link: Option<f64>| Race { link, apply: Some(15e6) }.most_that_wins(LAYER, LAYER);
        assert_eq!(most(None), LAYER);
        // 10 Mbit/s, 100 Mbit/s, loopback.
        assert!(most(Some(1.25e6)) > LAYER * 9 / 10);
        assert!((100_000..LAYER / 2).contains(&most(Some(12.5e6))));
        assert_eq!(most(Some(500e6)), 0);
    }

    #[test]
    fn transfers_side_by_side_are_one_link() {
        let meter = Meter::default();
        assert_eq!(meter.speed(), None);
        let begin = Instant::now();
        let (one, two) = (meter.begin(), meter.begin());
        std::thread::sleep(Duration::from_millis(20));
        one.add(1 << 20);
        two.add(1 << 20);
        drop(one);
        let speed = meter.speed().unwrap();
        assert!(
            speed <= (2 << 20) as f64 / 0.02
                && speed >= (2 << 20) as f64 / begin.elapsed().as_secs_f64() / 2.0
        );
        drop(two);
        assert_eq!(meter.speed(), Some(speed), "nothing new was seen");
    }

    #[test]
    fn a_few_bytes_say_nothing() {
        let meter = Meter::default();
        meter.begin().add(LEAST_SAMPLE - 1);
        assert_eq!(meter.speed(), None);
        meter.begin().add(LEAST_SAMPLE);
        assert!(meter.speed().is_some());
    }
}
