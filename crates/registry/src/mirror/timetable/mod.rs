//! When something is to happen, by the clock on the wall of a place: schedules as cron has them, and windows of hours.
//! Pure: the moment and the time zone go in, another moment comes out.
//!
//! Where a clock is put forward or back, a moment of the day exists not at all or twice. What that means is said by
//! [`Cron::next`] and [`Windows::next_change`].

mod cron;
#[cfg(test)]
mod tests;
mod windows;

pub use cron::{Cron, CronError};
pub use windows::{Window, WindowError, Windows};

/// The days of the week, as schedules and windows call them, from Sunday on.
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The number of a day of the week, 0 for Sunday.
fn weekday(name: &str) -> Option<u8> {
    let at = WEEKDAYS.iter().position(|weekday| weekday.eq_ignore_ascii_case(name))?;
    u8::try_from(at).ok()
}
