//! Who comes when, and how fast.

use super::*;
use crate::mirror::timetable::Windows;
use crate::mirror::{Clock, Hours};
use std::sync::atomic::AtomicUsize;

fn claim(repository: &str, class: Class) -> Claim {
    Claim::new(repository.parse().unwrap(), class)
}

/// A link on which nobody gets a turn until one of these ends.
async fn full() -> (Link, Vec<Turn>) {
    let (link, mut held) = (Link::new(1, None), Vec::new());
    for n in 0..CROWD {
        held.push(link.turn(&claim(&format!("held{n}"), Class::Client)).await);
    }
    (link, held)
}

/// The order in which these get the one turn that there is.
async fn order(claims: &[(&'static str, Class)]) -> Vec<&'static str> {
    let (link, mut held) = full().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for &(repository, class) in claims {
        let (link, order, claim) = (link.clone(), Arc::clone(&order), claim(repository, class));
        let entered = link.0.turns.lock().waiting.len();
        let waiting = link.clone();
        tasks.spawn(async move {
            let turn = waiting.turn(&claim).await;
            order.lock().unwrap().push(repository);
            drop(turn);
        });
        while link.0.turns.lock().waiting.len() == entered {
            tokio::task::yield_now().await;
        }
    }
    held.pop();
    tasks.join_all().await;
    order.lock().unwrap().clone()
}

#[tokio::test]
async fn clients_come_before_what_is_ahead_and_that_before_what_is_mirrored() {
    let order =
        order(&[("m", Class::Mirror), ("a", Class::Ahead), ("b", Class::Client), ("c", Class::Client)]);
    assert_eq!(order.await, ["b", "c", "a", "m"]);
}

#[tokio::test]
async fn a_repository_with_few_blobs_does_not_wait_for_one_with_many() {
    let link = Link::new(2, None);
    let many = claim("many", Class::Client);
    let first = link.turn(&many).await;
    let second = link.turn(&many).await;
    let done = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..6 {
        let (link, done) = (link.clone(), Arc::clone(&done));
        let claim = if n == 5 { claim("few", Class::Client) } else { many.clone() };
        tasks.spawn(async move {
            let turn = link.turn(&claim).await;
            let place = done.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            drop(turn);
            (n, place)
        });
        tokio::task::yield_now().await;
    }
    while link.0.turns.lock().waiting.len() < 5 {
        tokio::task::yield_now().await;
    }
    drop(first);
    let ended = tasks.join_all().await;
    drop(second);
    assert!(ended.contains(&(5, 0)), "{ended:?}");
}

#[tokio::test]
async fn a_repository_that_has_no_turn_gets_one_though_all_are_taken() {
    let link = Link::new(2, None);
    let (long, short) = (claim("long", Class::Ahead), claim("short", Class::Client));
    let _held = [link.turn(&long).await, link.turn(&long).await];
    let third = link.turn(&long);
    assert!(futures_util::poll!(Box::pin(third)).is_pending());
    let _turn = link.turn(&short).await;
    assert!(futures_util::poll!(Box::pin(link.turn(&short))).is_pending(), "one, and no more");
}

#[tokio::test]
async fn what_becomes_urgent_overtakes_and_who_leaves_holds_up_nobody() {
    let (link, mut held) = full().await;
    let (slow, raised) = (claim("slow", Class::Ahead), claim("raised", Class::Ahead));
    let mut leaves = Box::pin(link.turn(&slow));
    let mut waits = Box::pin(link.turn(&raised));
    assert!(futures_util::poll!(&mut leaves).is_pending());
    assert!(futures_util::poll!(&mut waits).is_pending());
    raised.follow(&claim("raised", Class::Client));
    held.pop();
    let turn = waits.await;
    assert!(futures_util::poll!(&mut leaves).is_pending());
    drop(leaves);
    drop(turn);
    link.turn(&slow).await;
}

/// Passes `parts` of 1000 bytes, and says how many of all transfers had passed by then.
async fn transfer(link: Link, claim: Claim, parts: usize, passed: Arc<AtomicUsize>) -> usize {
    for _ in 0..parts {
        link.pass(&claim, 1000).await;
        passed.fetch_add(1, Ordering::SeqCst);
    }
    passed.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_cap_holds_for_all_together_and_is_shared_evenly() {
    let link = Link::new(8, Some(1_000_000));
    let passed = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    // One repository with three transfers, one with one: each gets half of the link.
    for (name, parts) in [("a", 40), ("a", 40), ("a", 40), ("b", 100)] {
        let (link, passed) = (link.clone(), Arc::clone(&passed));
        tasks.spawn(async move { (name, transfer(link, claim(name, Class::Client), parts, passed).await) });
    }
    let ended = tasks.join_all().await;
    // All but the last part must have had its time.
    assert!(begin.elapsed() >= Duration::from_millis(219) - SLACK, "{:?}", begin.elapsed());
    let alone = ended.iter().find(|(name, _)| *name == "b").unwrap().1;
    assert!((190..=206).contains(&alone), "{ended:?}");
}

#[tokio::test]
async fn what_is_ahead_gets_what_clients_leave() {
    let link = Link::new(8, Some(1_000_000));
    let passed = Arc::new(AtomicUsize::new(0));
    let client = transfer(link.clone(), claim("a", Class::Client), 100, Arc::clone(&passed));
    let ahead = transfer(link, claim("b", Class::Ahead), 50, passed);
    let (client, ahead) = tokio::join!(client, ahead);
    assert!(client <= 110 && ahead == 150, "{client} {ahead}");
}

/// A transfer for a rule.
fn mirror(repository: &str, windows: &[&str], rate: Option<u64>) -> Claim {
    let windows = windows.iter().map(|window| window.parse().unwrap()).collect();
    let hours = Hours { windows: Windows::new(windows), ..Hours::default() };
    let clock = Clock(|| jiff::Timestamp::UNIX_EPOCH);
    let cap = Cap::new(rate);
    Claim::for_mirror(
        repository.parse().unwrap(),
        Arc::new(Terms { gate: Gate::new(hours, clock), cap, received: Counter::default() }),
    )
}

#[tokio::test(start_paused = true)]
async fn without_a_cap_what_is_mirrored_gives_way_to_what_is_urgent() {
    let link = Link::new(8, None);
    let claim_of_rule = mirror("m", &[], None);
    let own = link.turn(&claim_of_rule).await;
    let began = Instant::now();
    link.pass(&claim_of_rule, 1000).await;
    assert!(began.elapsed().is_zero(), "it is alone");
    let client = link.turn(&claim("a", Class::Client)).await;
    for _ in 0..3 {
        link.pass(&claim_of_rule, 1000).await;
    }
    assert_eq!(began.elapsed(), 3 * YIELD, "a part now and then, so that the upstream does not hang up");
    let mut waits = Box::pin(link.pass(&claim_of_rule, 1000));
    assert!(futures_util::poll!(&mut waits).is_pending());
    drop(client);
    waits.await;
    assert_eq!(began.elapsed(), 3 * YIELD);
    drop(own);
}

#[tokio::test]
async fn what_is_mirrored_takes_no_turn_from_clients() {
    let link = Link::new(1, None);
    let _held = link.turn(&mirror("a", &[], None)).await;
    assert!(futures_util::poll!(Box::pin(link.turn(&mirror("a", &[], None)))).is_pending());
    let _turn = link.turn(&claim("a", Class::Client)).await;
    assert!(futures_util::poll!(Box::pin(link.turn(&claim("a", Class::Client)))).is_pending());
}

#[tokio::test(start_paused = true)]
async fn a_rule_keeps_to_its_cap_until_a_client_wants_the_same() {
    let link = Link::new(8, None);
    let capped = mirror("m", &[], Some(1000));
    let began = Instant::now();
    for _ in 0..4 {
        link.pass(&capped, 1000).await;
    }
    assert!(began.elapsed() >= Duration::from_secs(3) - SLACK, "{:?}", began.elapsed());
    link.pass(&claim("a", Class::Client), 1_000_000).await;
    let mut waits = Box::pin(link.pass(&capped, 1000));
    assert!(futures_util::poll!(&mut waits).is_pending());
    let before = Instant::now();
    capped.follow(&claim("m", Class::Client));
    waits.await;
    link.pass(&capped, 1_000_000).await;
    assert!(before.elapsed().is_zero());
}

#[tokio::test(start_paused = true)]
async fn outside_its_hours_a_rule_gets_no_turn_until_a_client_wants_the_same() {
    let link = Link::new(8, None);
    let closed = mirror("m", &["22:00-05:00 "], None);
    assert!(!closed.must_rest(), "it is midnight");
    let closed = mirror("m", &["05:00-22:00"], None);
    assert!(closed.must_rest());
    let mut waits = Box::pin(link.turn(&closed));
    assert!(timeout(Duration::from_secs(3600), &mut waits).await.is_err());
    closed.follow(&claim("m", Class::Ahead));
    waits.await;
    assert!(!closed.must_rest());
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_for_a_rule_has_a_cap_of_its_own_and_gives_way_to_what_is_fetched_for_clients() {
    let link = Link::new(8, Some(10));
    let capped = mirror("m", &[], Some(1000));
    let began = Instant::now();
    for _ in 0..4 {
        link.send(&capped, 1000).await;
    }
    let sent = began.elapsed();
    assert!(sent >= Duration::from_secs(3) - SLACK && sent <= Duration::from_secs(4), "{sent:?}");
    // What it has sent takes nothing from what it may fetch.
    let before = Instant::now();
    let cap = capped.terms().and_then(|terms| terms.cap.fetched.as_ref()).unwrap();
    cap.pass_at(1000, &capped, 1000).await;
    assert!(before.elapsed().is_zero());

    let free = mirror("n", &[], None);
    let client = link.turn(&claim("a", Class::Client)).await;
    let before = Instant::now();
    link.send(&free, 1_000_000).await;
    assert_eq!(before.elapsed(), YIELD);
    drop(client);
    link.send(&free, 1_000_000).await;
    assert_eq!(before.elapsed(), YIELD, "the cap of the link is for what is fetched");
}
