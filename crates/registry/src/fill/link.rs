//! The link to upstreams, which all transfers share: whose turn it is, and how many bytes a second there are.
//!
//! A client that waits comes before what is fetched ahead, and that before what is mirrored. Among equals, repositories
//! come before the number of their blobs: an image of thirty layers does not hold up one of two.
//!
//! What is mirrored has terms of its own besides: hours, and a cap. They hold as long as nobody else wants the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deltaport_oci::RepositoryName;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use crate::mirror::Gate;

/// How many times as many transfers as there are places for may go on, so that a repository which has none need not wait
/// for the long ones of others: its clients leave when no byte comes for half a minute.
const CROWD: usize = 4;

/// How late a grant may come without its time being lost: timers are no finer than a millisecond, and at some rates a
/// chunk takes less.
const SLACK: Duration = Duration::from_millis(20);

/// How long a part of what is mirrored waits while something more urgent is on its way, where no cap says what there is to
/// share: so long that next to nothing of the link is taken, and not so long that upstreams hang up.
const YIELD: Duration = Duration::from_secs(1);

/// Who a transfer is for, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// A client waits for it.
    Client,
    /// A client may ask for it soon.
    Ahead,
    /// A rule says that it is to be here.
    Mirror,
}

/// What a transfer is: whose, and how urgent. Clones are the same transfer.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    repository: RepositoryName,
    urgency: Arc<Urgency>,
}

#[derive(Debug)]
struct Urgency {
    class: AtomicU8,
    raised: Notify,
    terms: Option<Arc<Terms>>,
}

/// What a transfer for a mirror rule has to keep to.
#[derive(Debug)]
pub(crate) struct Terms {
    /// When it may go on.
    pub(crate) gate: Gate,
    /// What all transfers for the rule share, if that is less than the link.
    pub(crate) cap: Cap,
    /// Counts what they bring, in bytes.
    pub(crate) received: Counter,
}

/// What all transfers for a mirror rule share in each direction, if that is less than the link.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cap {
    fetched: Option<Link>,
    sent: Option<Link>,
}

impl Cap {
    /// At most `rate` bytes a second in each direction; `None` is no cap.
    pub(crate) fn new(rate: Option<u64>) -> Self {
        let one = || rate.map(|rate| Link::new(usize::MAX, Some(rate)));
        Self { fetched: one(), sent: one() }
    }
}

impl Claim {
    pub(crate) fn new(repository: RepositoryName, class: Class) -> Self {
        Self::with(repository, class, None)
    }

    /// The claim of a transfer for a mirror rule.
    pub(crate) fn for_mirror(repository: RepositoryName, terms: Arc<Terms>) -> Self {
        Self::with(repository, Class::Mirror, Some(terms))
    }

    fn with(repository: RepositoryName, class: Class, terms: Option<Arc<Terms>>) -> Self {
        let urgency = Urgency { class: AtomicU8::new(class as u8), raised: Notify::new(), terms };
        Self { repository, urgency: Arc::new(urgency) }
    }

    /// Makes it at least as urgent as `other` is now.
    pub(crate) fn follow(&self, other: &Self) {
        self.raise_to(other.rank());
    }

    fn raise_to(&self, rank: u8) {
        if self.urgency.class.fetch_min(rank, Ordering::Relaxed) > rank {
            self.urgency.raised.notify_waiters();
        }
    }

    fn rank(&self) -> u8 {
        self.urgency.class.load(Ordering::Relaxed)
    }

    fn is_mirror(&self) -> bool {
        self.rank() >= Class::Mirror as u8
    }

    /// What it has to keep to, as long as nobody else wants the same.
    fn terms(&self) -> Option<&Terms> {
        self.urgency.terms.as_deref().filter(|_| self.is_mirror())
    }

    /// Bytes have come for it.
    pub(crate) fn count(&self, bytes: u64) {
        if let Some(terms) = self.terms() {
            terms.received.inc_by(bytes);
        }
    }

    /// Whether it has to stop for now, since its hours are over.
    pub(crate) fn must_rest(&self) -> bool {
        self.terms().is_some_and(|terms| !terms.gate.is_open())
    }

    /// Waits for its hours.
    pub(crate) async fn rested(&self) {
        if let Some(terms) = self.terms() {
            self.unless_raised(terms.gate.opened()).await;
        }
    }

    /// Waits for what only those wait for who are not urgent.
    async fn unless_raised(&self, wait: impl Future<Output = ()>) {
        let raised = self.urgency.raised.notified();
        tokio::pin!(raised);
        raised.as_mut().enable();
        if self.is_mirror() {
            tokio::select! {
                () = wait => {}
                () = raised => {}
            }
        }
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
    /// Those who have a turn.
    taken: Vec<(u64, Claim)>,
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
        loop {
            claim.rested().await;
            let turn = self.next_turn(claim).await;
            // Its hours may have ended while it waited.
            if !claim.must_rest() {
                return turn;
            }
        }
    }

    async fn next_turn(&self, claim: &Claim) -> Turn {
        let place = self.0.turns.enter(claim);
        loop {
            let changed = self.0.turns.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.0.turns.lock();
                let alone = !state.used.contains_key(&claim.repository);
                let room = if alone { self.0.concurrent.saturating_mul(CROWD) } else { self.0.concurrent };
                if state.crowd(claim) < room && state.is_first(place.number) {
                    state.taken.push((place.number, claim.clone()));
                    *state.used.entry(claim.repository.clone()).or_default() += 1;
                    break;
                }
            }
            changed.await;
        }
        let number = place.number;
        drop(place);
        Turn { link: self.clone(), number, repository: claim.repository.clone() }
    }

    /// Waits until `bytes` that have arrived may count as passed. Whoever reads only after this, and not ahead, makes
    /// the sender keep to the cap.
    pub(crate) async fn pass(&self, claim: &Claim, bytes: u64) {
        match self.0.rate {
            Some(rate) => self.pass_at(rate, claim, bytes).await,
            None if claim.is_mirror() => claim.unless_raised(self.give_way(claim)).await,
            None => {}
        }
        let cap = claim.terms().and_then(|terms| terms.cap.fetched.as_ref());
        if let Some((cap, rate)) = cap.and_then(|cap| Some((cap, cap.0.rate?))) {
            claim.unless_raised(cap.pass_at(rate, claim, bytes)).await;
        }
    }

    /// Waits until `bytes` may go to the destination of a rule. The cap of the link is for what is fetched over it: here
    /// the rule's own holds, and what clients wait for comes first.
    pub(crate) async fn send(&self, claim: &Claim, bytes: u64) {
        claim.unless_raised(self.give_way(claim)).await;
        let cap = claim.terms().and_then(|terms| terms.cap.sent.as_ref());
        if let Some((cap, rate)) = cap.and_then(|cap| Some((cap, cap.0.rate?))) {
            cap.pass_at(rate, claim, bytes).await;
        }
    }

    /// Waits while something more urgent is on its way, but not for long.
    async fn give_way(&self, claim: &Claim) {
        let way = async {
            loop {
                let changed = self.0.turns.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.0.turns.lock().taken.iter().all(|(_, taken)| taken.rank() >= claim.rank()) {
                    return;
                }
                changed.await;
            }
        };
        // Then a part passes all the same.
        let _ = timeout(YIELD, way).await;
    }

    async fn pass_at(&self, rate: u64, claim: &Claim, bytes: u64) {
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
    number: u64,
    repository: RepositoryName,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let queue = &self.link.0.turns;
        let mut state = queue.lock();
        state.taken.retain(|(number, _)| *number != self.number);
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
    /// How many turns count when this one wants one: what is mirrored is in nobody's way.
    fn crowd(&self, claim: &Claim) -> usize {
        self.taken.iter().filter(|(_, taken)| claim.is_mirror() || !taken.is_mirror()).count()
    }

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
mod tests;
