//! What was found out and may be forgotten.

use std::time::Duration;

use super::home;

const HOUR: Duration = Duration::from_secs(60 * 60);

#[tokio::test]
async fn a_note_holds_until_its_time_and_over_a_restart() {
    let dir = home();
    let store = dir.open().await;
    let names = store.names();
    names.put_note("made", "a", -5, HOUR).await.unwrap();
    names.put_note("made", "b", 1, Duration::from_millis(1)).await.unwrap();
    names.put_note("seen", "a", 7, HOUR).await.unwrap();
    names.put_note("seen", "a", 8, HOUR).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    store.close().await.unwrap();
    drop(store);
    let store = dir.open().await;
    let names = store.names();
    for (topic, key, expected) in
        [("made", "a", Some(-5)), ("made", "b", None), ("seen", "a", Some(8)), ("seen", "c", None)]
    {
        assert_eq!(names.note(topic, key).await.unwrap(), expected, "{topic} {key}");
    }
    store.close().await.unwrap();
    dir.assert_clean();
}

#[tokio::test]
async fn of_too_many_notes_those_stay_that_hold_longest() {
    let dir = home();
    let store = dir.open().await;
    let names = store.names();
    for (key, hours) in [("a", 3), ("b", 1), ("c", 2)] {
        names.put_note("made", key, 0, HOUR * hours).await.unwrap();
    }
    names.put_note("seen", "b", 0, HOUR).await.unwrap();
    names.trim_notes("made", 2).await.unwrap();
    let mut left = Vec::new();
    for key in ["a", "b", "c"] {
        left.push(names.note("made", key).await.unwrap().is_some());
    }
    assert_eq!(left, [true, false, true]);
    assert!(names.note("seen", "b").await.unwrap().is_some(), "another topic");
}
