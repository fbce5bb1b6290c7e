//! The link to upstreams, which all transfers share: whose turn it is, and how many bytes a second there are.
//!
//! A client that waits comes before what is fetched ahead. Among equals, repositories come before the number of their
//! blobs: an image of thirty layers does not hold up one of two.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deltaport_oci::RepositoryName;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How many times as many transfers as there are places for may go on, so that a repository which has none need not wait
/// for the long ones of others: its clients leave when no byte comes for half a minute.
const CROWD: usize = 4;

/// How late a grant may come without its time being lost: timers are no finer than a millisecond, and at some rates a
/// chunk takes less.
const SLACK: Duration = Duration::from_millis(20);

/// Who a transfer is for, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// A client waits for it.
    Client,
    /// A client may ask for it soon.
    Ahead,
}

/// What a transfer is: whose, and how urgent. Clones are the same transfer.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    repository: RepositoryName,
    class: Arc<AtomicU8>,
}

impl Claim {
    pub(crate) fn new(repository: RepositoryName, class: Class) -> Self {
        Self { repository, class: Arc::new(AtomicU8::new(class as u8)) }
    }

    /// Makes it at least as urgent as `class`.
    pub(crate) fn raise(&self, class: Class) {
        self.class.fetch_min(class as u8, Ordering::Relaxed);
    }

    /// Makes it at least as urgent as `other` is now.
    pub(crate) fn follow(&self, other: &Self) {
        self.class.fetch_min(other.rank(), Ordering::Relaxed);
    }

    fn rank(&self) -> u8 {
        self.class.load(Ordering::Relaxed)
    }
}

/// The link; cheap to clone, every clone is the same link.
#[derive(Clone, Debug)]
pub(crate) struct Link(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    turns: Queue,
    bytes: Queue,
    concurrent: usize,
    /// Bytes a second, if there is a cap.
    rate: Option<u64>,
}

/// Those who wait for something that is given to one after the other.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// In the order in which they came.
    waiting: Vec<(u64, Claim)>,
    next: u64,
    /// What each repository has: turns, or the bytes that it took while others waited.
    used: HashMap<RepositoryName, u64>,
    /// How many turns are taken.
    taken: usize,
    /// When the bytes that were given have passed.
    free: Option<Instant>,
}

impl Link {
    /// A link for at most `concurrent` transfers at a time, and at most `rate` bytes a second if that is given.
    pub(crate) fn new(concurrent: usize, rate: Option<u64>) -> Self {
        let shared = Shared {
            turns: Queue::default(),
            bytes: Queue::default(),
            concurrent: concurrent.max(1),
            rate: rate.filter(|rate| *rate > 0),
        };
        Self(Arc::new(shared))
    }

    /// Waits for a turn, which lasts until what is returned is dropped.
    pub(crate) async fn turn(&self, claim: &Claim) -> Turn {
        let place = self.0.turns.enter(claim);
        loop {
            let changed = self.0.turns.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.0.turns.lock();
                let alone = !state.used.contains_key(&claim.repository);
                let room = if alone { self.0.concurrent.saturating_mul(CROWD) } else { self.0.concurrent };
                if state.taken < room && state.is_first(place.number) {
                    state.taken += 1;
                    *state.used.entry(claim.repository.clone()).or_default() += 1;
                    break;
                }
            }
            changed.await;
        }
        drop(place);
        Turn { link: self.clone(), repository: claim.repository.clone() }
    }

    /// Waits until `bytes` that have arrived may count as passed. Whoever reads only after this, and not ahead, makes
    /// the sender keep to the cap.
    pub(crate) async fn pass(&self, claim: &Claim, bytes: u64) {
        let Some(rate) = self.0.rate else { return };
        let queue = &self.0.bytes;
        let place = queue.enter(claim);
        loop {
            let changed = queue.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let free = {
                let mut state = queue.lock();
                let now = Instant::now();
                let free = state.free.unwrap_or(now);
                let first = state.is_first(place.number);
                if first && free <= now {
                    let from = now.checked_sub(SLACK).map_or(free, |earliest| free.max(earliest));
                    state.free = Some(from + Duration::from_secs_f64(bytes as f64 / rate as f64));
                    *state.used.entry(claim.repository.clone()).or_default() += bytes;
                    break;
                }
                first.then_some(free)
            };
            match free {
                // Somebody more urgent may come meanwhile.
                Some(free) => drop(timeout_at(free, changed).await),
                None => changed.await,
            }
        }
        drop(place);
    }
}

/// The right to transfer, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    link: Link,
    repository: RepositoryName,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let queue = &self.link.0.turns;
        let mut state = queue.lock();
        state.taken -= 1;
        if let Some(used) = state.used.get_mut(&self.repository) {
            *used -= 1;
            if *used == 0 {
                state.used.remove(&self.repository);
            }
        }
        drop(state);
        queue.changed.notify_waiters();
    }
}

/// A place among those who wait, left when it is dropped.
struct Place<'a> {
    queue: &'a Queue,
    number: u64,
}

impl Queue {
    fn enter(&self, claim: &Claim) -> Place<'_> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.waiting.push((number, claim.clone()));
        drop(state);
        // Somebody who waits for the link to be free may have to wait for this one now.
        self.changed.notify_waiters();
        Place { queue: self, number }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can stop half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether this one is next: of the most urgent, of those whose repository has least, the one that came first.
    fn is_first(&self, number: u64) -> bool {
        let rank = |(number, claim): &(u64, Claim)| {
            (claim.rank(), self.used.get(&claim.repository).copied().unwrap_or(0), *number)
        };
        self.waiting.iter().min_by_key(|waiting| rank(waiting)).is_some_and(|(first, _)| *first == number)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.waiting.retain(|(number, _)| *number != self.number);
        // What was used counts among those who wait at the same time, and no longer.
        if state.waiting.is_empty() && state.free.is_some() {
            state.used.clear();
        }
        drop(state);
        self.queue.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
    async fn clients_come_before_what_is_ahead() {
        let order = order(&[("a", Class::Ahead), ("b", Class::Client), ("c", Class::Client)]).await;
        assert_eq!(order, ["b", "c", "a"]);
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
        raised.raise(Class::Client);
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
            tasks.spawn(
                async move { (name, transfer(link, claim(name, Class::Client), parts, passed).await) },
            );
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
}
