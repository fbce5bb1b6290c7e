//! When to ask: pure decisions about times.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

/// How often it is looked whether the certificate is due: often enough for one that lives six days, or a clock that was
/// set.
pub(crate) const LOOK: Duration = Duration::from_secs(60 * 60);
/// How long to wait after the first failure.
const FIRST: Duration = Duration::from_secs(60);
/// How much longer after each further one. Authorities allow few failures an hour.
const FACTOR: u32 = 4;
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(6 * 60 * 60);

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certified {
    pub(crate) names: BTreeSet<String>,
    pub(crate) from: SystemTime,
    pub(crate) until: SystemTime,
}

/// Whether a certificate has to be asked for at `now`: there are other names, or a third of its life or less is left.
pub(crate) fn is_due(certified: &Certified, names: &[String], now: SystemTime) -> bool {
    let wanted: BTreeSet<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let life = certified.until.duration_since(certified.from).unwrap_or_default();
    let left = certified.until.duration_since(now).unwrap_or_default();
    certified.names != wanted || left <= life / 3
}

/// How often it has failed.
#[derive(Debug, Default)]
pub(crate) struct Attempts(u32);

impl Attempts {
    /// How long to wait after one more failure: up to a fifth more than a rule, so that sites that share an outage do
    /// not come back together.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = FIRST.saturating_mul(FACTOR.saturating_pow(self.0)).min(LONGEST);
        self.0 = self.0.saturating_add(1);
        let mut chance = [0];
        // Without chance they do come back together.
        let _random = getrandom::fill(&mut chance);
        wait + wait / 5 * u32::from(chance[0]) / 255
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    fn at(day: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(day * DAY)
    }

    #[test]
    fn a_certificate_is_due_when_a_third_is_left_or_the_names_are_others() {
        let names = ["a.example".to_owned(), "B.example".to_owned()];
        let certified = Certified {
            names: ["a.example", "b.example"].map(str::to_owned).into(),
            from: at(0),
            until: at(90),
        };
        for (day, due) in [(0, false), (59, false), (60, true), (90, true), (1000, true)] {
            assert_eq!(is_due(&certified, &names, at(day)), due, "day {day}");
        }
        assert!(is_due(&certified, &names[..1], at(1)), "fewer names");
        let backwards = Certified { from: at(90), until: at(0), ..certified };
        assert!(is_due(&backwards, &names, at(1)), "no certificate at all");
    }

    #[test]
    fn waits_grow_and_end() {
        let mut attempts = Attempts::default();
        let waits: Vec<Duration> = (0..40).map(|_| attempts.next()).collect();
        for (wait, least) in waits.iter().zip([60, 240, 960, 3840, 15360, 21600, 21600]) {
            let least = Duration::from_secs(least);
            assert!(*wait >= least && *wait <= least + least / 5, "{wait:?}, not about {least:?}");
        }
        assert!(waits.iter().all(|wait| *wait <= LONGEST + LONGEST / 5));
    }
}
