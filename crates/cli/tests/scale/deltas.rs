//! Somebody who asks for the deltas of tags that have moved, and applies what comes.

use std::io::Cursor;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use deltaport_oci::Digest;
use deltaport_testkit::http::Request;
use deltaport_testkit::sample::Random;
use futures_util::future::join_all;

use crate::insistent::Insistent;
use crate::ledger::{Known, Move};
use crate::load::World;

/// How long one waits before one asks for another.
const PAUSE: Duration = Duration::from_millis(100);
/// When one asks again for one that is being made.
const AGAIN: Duration = Duration::from_millis(500);

impl Move {
    fn question(&self) -> Request {
        Request::get(&format!("/v2/{}/_deltaport/delta/layer", self.repository))
            .query("to", self.target.digest)
            .query("from", self.base.digest)
    }

    /// Asks for the delta, and applies it if there is one.
    async fn ask(&self, client: &Insistent) -> Known {
        let answer = client.insist(&[202, 307, 404], || self.question()).await;
        match answer.status {
            202 => Known::Promised,
            307 => {
                let path = answer.header("location").expect("where it is");
                let delta = client.insist(&[200, 404], || Request::get(path)).await;
                if delta.status == 404 {
                    return Known::Refused;
                }
                self.prove(delta.body.to_vec()).await;
                Known::Proven
            }
            _ => Known::Refused,
        }
    }

    /// Applies a delta, which must give the target back.
    async fn prove(&self, delta: Vec<u8>) {
        let (base, shown) =
            (self.base.bytes.clone(), format!("{} to {}", self.base.digest, self.target.digest));
        let apply = move || {
            let (mut layer, limits) = (Vec::new(), deltaport_delta::Limits::default());
            let (mut bases, scratch) = ([Cursor::new(base)], Cursor::new(Vec::new()));
            deltaport_delta::apply(&mut bases, &delta[..], &mut layer, scratch, &limits).map(|_| layer)
        };
        let layer = tokio::task::spawn_blocking(apply).await.expect("it does not panic");
        let layer = layer.unwrap_or_else(|error| panic!("the delta from {shown}: {error}"));
        assert_eq!(Digest::sha256(&layer), self.target.digest, "the delta from {shown}");
    }
}

/// Asks for one after the other.
pub(crate) async fn ask_until_the_end(world: World, mut random: Random) {
    while world.goes_on() {
        if let Some((number, moved)) = world.ledger.unproven(&mut random) {
            let known = moved.ask(&world.client).await;
            world.ledger.learn(number, known);
            world.done.proven.fetch_add(u64::from(known == Known::Proven), Ordering::Relaxed);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl World {
    /// Asks each replica for the delta of every move: each is there and gives the target back, or a layer of it was removed,
    /// or one of the pairs that `not_worth` knows of it is. How many there are.
    pub(crate) async fn deltas_are_there(&self, limit: Duration, not_worth: &[String]) -> usize {
        let (moves, gone) = (&self.ledger.moves(), &self.ledger.gone_layers());
        let proven = join_all(self.of_each_replica().map(async |client| {
            let (deadline, mut proven) = (Instant::now() + limit, 0);
            for (moved, _) in moves {
                let mut known = moved.ask(&client).await;
                while known == Known::Promised {
                    assert!(Instant::now() < deadline, "nobody makes {:?}", moved.question().target);
                    tokio::time::sleep(AGAIN).await;
                    known = moved.ask(&client).await;
                }
                let removed = gone.contains(&moved.base.digest) || gone.contains(&moved.target.digest);
                let pair = format!("{}|{}|{}", moved.repository, moved.base.digest, moved.target.digest);
                let refused = removed || not_worth.contains(&pair);
                assert!(known == Known::Proven || refused, "{:?} is refused", moved.question().target);
                proven += usize::from(known == Known::Proven);
            }
            proven
        }))
        .await;
        proven.into_iter().max().unwrap_or_default()
    }
}
