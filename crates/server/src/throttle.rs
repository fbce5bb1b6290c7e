//! Guessing passwords is slow: how many wrong ones are looked at.
//!
//! Three allowances are used up by wrong passwords and grow back with time: that of a user at an address, that of an
//! address, and that of a user wherever somebody tries. Where a user has logged in before, only the first one counts, so
//! that others at the same address, or others who try the same name, cannot lock that user out.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many allowances are kept. Those that have grown back go first, then all: who can use up this many at once has
/// the addresses for it anyway.
const MAX_ALLOWANCES: usize = 8192;
/// How many places are remembered from which users have logged in.
const MAX_KNOWN: usize = 4096;
/// For how long such a place is remembered.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 3600);

/// So many at once, and then one in so long a time.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    at_once: u32,
    each: Duration,
}

/// Of a user at an address.
const PLACE: Allowance = Allowance { at_once: 10, each: Duration::from_secs(6) };
/// Of an address: more than one user has a wrong password behind a router.
const ADDRESS: Allowance = Allowance { at_once: 20, each: Duration::from_secs(6) };
/// Of a user, wherever somebody tries.
const USER: Allowance = Allowance { at_once: 50, each: Duration::from_secs(6) };

/// Whom a wrong password is counted against.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Place(Box<str>, IpAddr),
    Address(IpAddr),
    User(Box<str>),
}

impl Key {
    fn allowance(&self) -> Allowance {
        match self {
            Self::Place(..) => PLACE,
            Self::Address(_) => ADDRESS,
            Self::User(_) => USER,
        }
    }
}

/// Counts wrong passwords.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    /// For each, when everything that was used up has grown back.
    whole: Mutex<HashMap<Key, Instant>>,
    known: Mutex<HashMap<(Box<str>, IpAddr), Instant>>,
}

impl Throttle {
    /// Whether a password of `user` from `address` is looked at; fails with how long to wait until one is.
    pub(crate) fn admit(&self, user: &str, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let keys = self.keys(user, address, now);
        let whole = lock(&self.whole);
        let wait = keys.iter().filter_map(|key| {
            let Allowance { at_once, each } = key.allowance();
            let used = whole.get(key)?.saturating_duration_since(now);
            Some(used.saturating_sub(each * (at_once - 1))).filter(|wait| !wait.is_zero())
        });
        wait.max().map_or(Ok(()), Err)
    }

    /// Counts a wrong password.
    pub(crate) fn failed(&self, user: &str, address: IpAddr, now: Instant) {
        let keys = self.keys(user, address, now);
        let mut whole = lock(&self.whole);
        make_room(&mut whole, MAX_ALLOWANCES, |until| *until > now);
        for key in keys {
            let each = key.allowance().each;
            let until = whole.entry(key).or_insert(now);
            *until = (*until).max(now) + each;
        }
    }

    /// Remembers where a user has logged in from.
    pub(crate) fn succeeded(&self, user: &str, address: IpAddr, now: Instant) {
        let mut known = lock(&self.known);
        make_room(&mut known, MAX_KNOWN, |until| *until > now);
        known.insert((user.into(), network(address)), now + KNOWN_FOR);
    }

    /// What a wrong password of `user` from `address` counts against.
    fn keys(&self, user: &str, address: IpAddr, now: Instant) -> Vec<Key> {
        let (user, address): (Box<str>, _) = (user.into(), network(address));
        let is_known = lock(&self.known).get(&(user.clone(), address)).is_some_and(|until| now < *until);
        let place = Key::Place(user.clone(), address);
        if is_known { vec![place] } else { vec![place, Key::Address(address), Key::User(user)] }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets go of what is over when there is too much, and of everything when that is not enough.
fn make_room<K: Eq + Hash, V>(map: &mut HashMap<K, V>, limit: usize, is_needed: impl Fn(&V) -> bool) {
    if map.len() >= limit {
        map.retain(|_, value| is_needed(value));
    }
    if map.len() >= limit {
        map.clear();
    }
}

/// What one party has of addresses: one of IPv4, a network of 64 bits of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    /// How many of `tries` wrong passwords are looked at.
    fn looked_at(
        throttle: &Throttle,
        tries: usize,
        now: Instant,
        whose: impl Fn(usize) -> (String, IpAddr),
    ) -> usize {
        (0..tries)
            .filter(|n| {
                let (user, address) = whose(*n);
                let admitted = throttle.admit(&user, address, now).is_ok();
                if admitted {
                    throttle.failed(&user, address, now);
                }
                admitted
            })
            .count()
    }

    #[test]
    fn allowances_are_used_up_and_grow_back() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        assert_eq!(looked_at(&throttle, 100, now, |_| ("anna".into(), at(1))), 10);
        let wait = throttle.admit("anna", at(1), now).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= PLACE.each, "{wait:?}");
        assert_eq!(throttle.admit("anna", at(1), now + wait), Ok(()));
        assert_eq!(looked_at(&throttle, 100, now + 3 * PLACE.each, |_| ("anna".into(), at(1))), 3);
        // The same address with other names, then other addresses with the same name.
        assert!(looked_at(&throttle, 100, now, |n| (n.to_string(), at(1))) <= 20);
        assert!(looked_at(&throttle, 200, now, |n| ("anna".into(), at(2 + n as u8))) <= 50);
        assert_eq!(
            looked_at(&Throttle::default(), 100, now, |_| ("anna".into(), "2001:db8::1".parse().unwrap())),
            10
        );
    }

    #[test]
    fn who_was_here_before_is_not_locked_out_by_others() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        throttle.succeeded("anna", at(1), now);
        looked_at(&throttle, 100, now, |_| ("bert".into(), at(1)));
        looked_at(&throttle, 300, now, |n| ("anna".into(), at(2 + n as u8 % 200)));
        assert!(throttle.admit("anna", at(250), now).is_err(), "from elsewhere it is enough");
        assert_eq!(throttle.admit("anna", at(1), now), Ok(()));
        assert_eq!(looked_at(&throttle, 100, now, |_| ("anna".into(), at(1))), 10, "but not without a limit");
    }

    #[test]
    fn memory_is_bounded() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..20_000_u32 {
            let address = IpAddr::from(n.to_be_bytes());
            throttle.failed(&n.to_string(), address, now);
            throttle.succeeded(&n.to_string(), address, now);
        }
        assert!(lock(&throttle.whole).len() <= MAX_ALLOWANCES + 2);
        assert!(lock(&throttle.known).len() <= MAX_KNOWN);
        let network_of = |text: &str| network(text.parse().unwrap());
        assert_eq!(network_of("2001:db8::1"), network_of("2001:db8::ffff:0:1"));
        assert_ne!(network_of("2001:db8::1"), network_of("2001:db8:0:1::1"));
        assert_eq!(network_of("::ffff:10.0.0.1"), at(1));
    }
}
