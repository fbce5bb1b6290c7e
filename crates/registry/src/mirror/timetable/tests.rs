//! Tables: what is said, a moment, and the next. Zones are written out, so that no database is needed; the rules are those
//! of Berlin, where the clock goes from 2 to 3 on 2026-03-29 and from 3 back to 2 on 2026-10-25, and of others.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::*;

const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
/// The clock goes back at midnight, into the day before.
const HAVANA: &str = "CST5CDT,M3.2.0/0,M11.1.0/1";
/// Half an hour forward and back.
const LORD_HOWE: &str = "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0";
const UTC: &str = "UTC0";

fn zone(rules: &str) -> TimeZone {
    TimeZone::posix(rules).unwrap()
}

/// A moment by the clock of a zone, with what it is away from UTC: `2026-03-29 01:59+01`.
fn moment(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn cron(text: &str) -> Cron {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn windows(texts: &[&str]) -> Windows {
    Windows::new(texts.iter().map(|text| text.parse().unwrap()).collect())
}

#[test]
fn the_next_time_of_a_schedule() {
    for (schedule, rules, after, expected) in [
        ("0 2 * * *", UTC, "2026-01-01 01:59:59+00", "2026-01-01 02:00+00"),
        ("0 2 * * *", UTC, "2026-01-01 02:00+00", "2026-01-02 02:00+00"),
        ("0 2 * * *", BERLIN, "2026-01-01 00:00+01", "2026-01-01 02:00+01"),
        ("0 2 * * *", BERLIN, "2026-07-01 00:00+02", "2026-07-01 02:00+02"),
        ("*/20 * * * *", UTC, "2026-01-01 23:41+00", "2026-01-02 00:00+00"),
        ("5-10/5,50 22 * * *", UTC, "2026-01-01 22:05+00", "2026-01-01 22:10+00"),
        ("5-10/5,50 22 * * *", UTC, "2026-01-01 22:10+00", "2026-01-01 22:50+00"),
        ("40/15 9 * * *", UTC, "2026-01-01 09:40+00", "2026-01-01 09:55+00"),
        // 2026-01-01 is a Thursday.
        ("0 0 * * mon-FRI", UTC, "2026-01-02 00:00+00", "2026-01-05 00:00+00"),
        ("0 0 * * 7", UTC, "2026-01-01 00:00+00", "2026-01-04 00:00+00"),
        ("0 0 * * fri-7", UTC, "2026-01-02 00:00+00", "2026-01-03 00:00+00"),
        ("0 0 15 * *", UTC, "2026-01-15 00:00+00", "2026-02-15 00:00+00"),
        ("0 0 31 * *", UTC, "2026-03-31 00:00+00", "2026-05-31 00:00+00"),
        ("0 0 29 feb *", UTC, "2096-02-29 00:00+00", "2104-02-29 00:00+00"),
        ("0 0 1 jan,Jul *", UTC, "2026-01-01 00:00+00", "2026-07-01 00:00+00"),
        // Either day is enough where both are given, and both must be where one is a star with a step.
        ("0 0 13 * fri", UTC, "2026-01-02 00:00+00", "2026-01-09 00:00+00"),
        ("0 0 13 * fri", UTC, "2026-01-09 00:00+00", "2026-01-13 00:00+00"),
        ("0 0 */2 * mon", UTC, "2026-01-01 00:00+00", "2026-01-05 00:00+00"),
        ("0 0 */2 * mon", UTC, "2026-01-05 00:00+00", "2026-01-19 00:00+00"),
        ("@daily", UTC, "2026-01-01 00:00+00", "2026-01-02 00:00+00"),
        ("@hourly", UTC, "2026-01-01 00:00+00", "2026-01-01 01:00+00"),
        ("@weekly", UTC, "2026-01-01 00:00+00", "2026-01-04 00:00+00"),
        ("@Monthly", UTC, "2026-01-01 00:00+00", "2026-02-01 00:00+00"),
        ("@yearly", UTC, "2026-01-01 00:00+00", "2027-01-01 00:00+00"),
    ] {
        let next = cron(schedule).next(moment(after), &zone(rules));
        assert_eq!(next, Some(moment(expected)), "{schedule} in {rules} after {after}");
    }
}

#[test]
fn a_clock_that_is_put_forward_or_back() {
    for (schedule, rules, after, expected) in [
        // What is left out happens when the clock is changed, once, and is on its own time again the next day.
        ("30 2 * * *", BERLIN, "2026-03-28 12:00+01", "2026-03-29 03:00+02"),
        ("10,30 2 * * *", BERLIN, "2026-03-29 03:00+02", "2026-03-30 02:10+02"),
        ("0 3 * * *", BERLIN, "2026-03-29 01:59+01", "2026-03-29 03:00+02"),
        ("0 3 * * *", BERLIN, "2026-03-29 03:00+02", "2026-03-30 03:00+02"),
        ("0 2 29 3 *", BERLIN, "2026-01-01 00:00+01", "2026-03-29 03:00+02"),
        // What comes twice happens the first time.
        ("30 2 * * *", BERLIN, "2026-10-25 00:00+02", "2026-10-25 02:30+02"),
        ("30 2 * * *", BERLIN, "2026-10-25 02:30+02", "2026-10-26 02:30+01"),
        ("0 3 * * *", BERLIN, "2026-10-25 02:30+01", "2026-10-25 03:00+01"),
        ("30 0 * * *", HAVANA, "2026-11-01 00:30-04", "2026-11-02 00:30-05"),
        // What happens in every hour goes with the time.
        ("30 * * * *", BERLIN, "2026-03-29 01:30+01", "2026-03-29 03:30+02"),
        ("*/15 * * * *", BERLIN, "2026-03-29 01:45+01", "2026-03-29 03:00+02"),
        ("30 * * * *", BERLIN, "2026-10-25 02:30+02", "2026-10-25 02:30+01"),
        ("*/15 * * * *", BERLIN, "2026-10-25 02:45+02", "2026-10-25 02:00+01"),
        ("15 2 * * *", LORD_HOWE, "2026-10-04 01:00+10:30", "2026-10-04 02:30+11"),
        ("*/15 * * * *", LORD_HOWE, "2026-04-05 01:45+11", "2026-04-05 01:30+10:30"),
    ] {
        let next = cron(schedule).next(moment(after), &zone(rules));
        assert_eq!(next, Some(moment(expected)), "{schedule} in {rules} after {after}");
    }
}

#[test]
fn every_minute_is_every_minute_across_changes() {
    for (rules, from) in
        [(BERLIN, "2026-03-29 00:30+01"), (BERLIN, "2026-10-25 00:30+02"), (HAVANA, "2026-11-01 00:00-04")]
    {
        let (every, zone) = (cron("* * * * *"), zone(rules));
        let mut at = moment(from);
        for _ in 0..300 {
            let next = every.next(at, &zone).unwrap();
            assert_eq!(next.as_second() - at.as_second(), 60, "{at}");
            at = next;
        }
    }
}

#[test]
fn what_is_no_schedule() {
    for text in ["", "* * * *", "* * * * * *", "@reboot", "@", "0 2", &"1,".repeat(200)] {
        assert_eq!(text.parse::<Cron>(), Err(CronError::Fields), "{text}");
    }
    for text in [
        "60 * * * *",
        "-1 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "1, * * * *",
        "a * * * *",
        "* * * mon *",
        "+1 * * * *",
        "1/ * * * *",
        "1-2-3 * * * *",
        "* * * * sat-mon",
        "ä * * * *",
        "* 99999999999 * * *",
    ] {
        assert!(matches!(text.parse::<Cron>(), Err(CronError::Field { .. })), "{text}");
    }
    for text in ["0 0 30 2 *", "0 0 31 4,jun,9,11 *"] {
        assert_eq!(text.parse::<Cron>(), Err(CronError::Never), "{text}");
    }
    assert!("0 0 30 2 mon".parse::<Cron>().is_ok(), "there are Mondays in February");
    let error = "0 25 * * *".parse::<Cron>().unwrap_err().to_string();
    assert_eq!(error, "\"25\" is no hour: numbers from 0 to 23, ranges, lists and steps are");
}

#[test]
fn windows_open_and_close() {
    // 2026-01-01 is a Thursday.
    for (texts, rules, at, open, change) in [
        (&["22:00-05:00"][..], UTC, "2026-01-01 21:59:59+00", false, Some("2026-01-01 22:00+00")),
        (&["22:00-05:00"], UTC, "2026-01-01 22:00+00", true, Some("2026-01-02 05:00+00")),
        (&["22:00-05:00"], UTC, "2026-01-02 04:59:59+00", true, Some("2026-01-02 05:00+00")),
        (&["22:00-05:00"], UTC, "2026-01-02 05:00+00", false, Some("2026-01-02 22:00+00")),
        (&["22:00-05:00"], BERLIN, "2026-01-02 04:30+00", false, Some("2026-01-02 21:00+00")),
        // The night that begins on Friday ends on Saturday, and none begins then.
        (&["mon-fri 22:00-5:00"], UTC, "2026-01-02 23:00+00", true, Some("2026-01-03 05:00+00")),
        (&["mon-fri 22:00-05:00"], UTC, "2026-01-03 23:00+00", false, Some("2026-01-05 22:00+00")),
        (&["mon-fri 22:00-05:00"], UTC, "2026-01-05 01:00+00", false, Some("2026-01-05 22:00+00")),
        (
            &["mon-fri 22:00-05:00", "sat,sun 00:00-24:00"],
            UTC,
            "2026-01-02 22:00+00",
            true,
            Some("2026-01-05 00:00+00"),
        ),
        (&["Fri-Mon 08:00-09:00"], UTC, "2026-01-05 09:00+00", false, Some("2026-01-09 08:00+00")),
        (&["thu 08:00-09:00"], UTC, "2026-01-01 09:00+00", false, Some("2026-01-08 08:00+00")),
        (&["08:00-12:00", "12:00-13:00"], UTC, "2026-01-01 08:00+00", true, Some("2026-01-01 13:00+00")),
        (&["00:00-24:00"], UTC, "2026-01-01 08:00+00", true, None),
        (&[], UTC, "2026-01-01 08:00+00", true, None),
        // The clock goes from 2 to 3: a window within is left out, another opens late.
        (&["sun 02:10-02:50"], BERLIN, "2026-03-28 12:00+01", false, Some("2026-04-05 02:10+02")),
        (&["02:30-04:00"], BERLIN, "2026-03-29 01:59+01", false, Some("2026-03-29 03:00+02")),
        (&["01:00-02:30"], BERLIN, "2026-03-29 01:30+01", true, Some("2026-03-29 03:00+02")),
        // It goes from 3 back to 2: one that ends in between opens again.
        (&["01:00-02:30"], BERLIN, "2026-10-25 01:30+02", true, Some("2026-10-25 02:30+02")),
        (&["01:00-02:30"], BERLIN, "2026-10-25 02:30+02", false, Some("2026-10-25 02:00+01")),
        (&["01:00-02:30"], BERLIN, "2026-10-25 02:00+01", true, Some("2026-10-25 02:30+01")),
        (&["22:00-05:00"], BERLIN, "2026-10-24 22:00+02", true, Some("2026-10-25 05:00+01")),
    ] {
        let (windows, zone) = (windows(texts), zone(rules));
        assert_eq!(windows.is_open(moment(at), &zone), open, "{texts:?} in {rules} at {at}");
        assert_eq!(
            windows.next_change(moment(at), &zone),
            change.map(moment),
            "{texts:?} in {rules} at {at}"
        );
    }
}

#[test]
fn what_is_no_window() {
    for text in [
        "",
        "22:00",
        "mon",
        "mon 22:00",
        "22-05",
        "22:00-25:00",
        "24:00-05:00",
        "22:60-05:00",
        "22:0-05:00",
        "mon- 1:00-2:00",
        "mon,, 1:00-2:00",
        "monday 1:00-2:00",
        "mon 1:00-2:00 tue",
        "1:00 - 2:00",
        "24:01-1:00",
        "022:00-05:00",
        "ä 1:00-2:00",
    ] {
        assert_eq!(text.parse::<Window>(), Err(WindowError::Form), "{text}");
    }
    assert_eq!("22:00-22:00".parse::<Window>(), Err(WindowError::Empty));
}
