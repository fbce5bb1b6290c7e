//! Whether a delta that takes long is still likely to be there sooner than the whole layer.

use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;

use deltaport_store as store;
use deltaport_store::Partial;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::Failure;
use super::blobs::Fill;
use super::transfer::Transfer;
use crate::pull::Progress;

/// How often the pace is taken: so many times in the time that a delta may take in any case.
const LOOKS: u32 = 4;
/// How long clients wait behind the first bytes at most, whatever comes after that: containerd gives up after five minutes
/// without a byte.
const LONGEST_SILENCE: Duration = Duration::from_secs(4 * 60);
/// How much of a layer is fetched beside a delta that takes long, so that clients have first bytes: 64 KiB.
const BEGINNING: u64 = 64 << 10;

/// How a delta comes on, once there is one.
#[derive(Debug, Default)]
pub(super) struct Pace(OnceLock<Coming>);

/// A delta on its way.
#[derive(Debug)]
pub(super) enum Coming {
    /// For the layer: what grows, and how many bytes it is to have, if that is known.
    Here(store::Blob, Option<u64>),
    /// For somebody else, who is followed.
    Elsewhere(watch::Receiver<Progress>),
}

/// How far a delta is.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    arrived: u64,
    /// How many bytes it has, if that is known.
    size: Option<u64>,
}

impl Pace {
    /// The delta is on its way.
    pub(super) fn follow(&self, coming: Coming) {
        // There is one delta, so this is called once.
        let _ = self.0.set(coming);
    }

    fn look(&self) -> Look {
        let (arrived, size) = match self.0.get() {
            None => (0, None),
            Some(Coming::Here(delta, size)) => (delta.size(), *size),
            Some(Coming::Elsewhere(progress)) => {
                let progress = progress.borrow();
                (progress.reader.as_ref().map_or(0, store::Blob::size), progress.size)
            }
        };
        Look { at: Instant::now(), arrived, size }
    }
}

impl Fill {
    /// Waits until the whole layer should be fetched beside a delta, or until there will be no delta. When the time is over
    /// in which clients should have a first byte, the beginning of the layer is fetched: what comes after it may still be
    /// there sooner by delta.
    pub(super) async fn meanwhile(
        &self,
        size: u64,
        missing: u64,
        pace: &Pace,
        given_up: &Notify,
        place: &mut Option<Partial>,
    ) {
        let mut late = pin!(async {
            tokio::select! {
                () = self.until_late(size, missing, pace) => {}
                () = given_up.notified() => {}
            }
        });
        tokio::select! {
            biased;
            () = &mut late => return,
            () = sleep_until(self.began + self.registry.options().fill.delta_deadline) => {}
        }
        // Not to be broken off: the whole layer goes on behind it.
        if let Err(failure) = self.beginning(size, place).await {
            tracing::info!(digest = %self.digest, %failure, "the beginning of a layer did not come");
        }
        late.await;
    }

    /// Fetches the first bytes of the blob, if it has none yet, and lets others read them. What goes wrong is tried again by
    /// whoever fetches the rest.
    async fn beginning(&self, size: u64, place: &mut Option<Partial>) -> Result<(), Failure> {
        let Some(partial) = place else { return Ok(()) };
        if partial.length() > 0 {
            let reader = partial.reader();
            self.show(size, &reader);
            return Ok(());
        }
        let mut transfer = Transfer::new(self, 0, size);
        transfer.size = Some(size);
        transfer.until = Some(BEGINNING.min(size));
        self.receive(&mut transfer, partial).await
    }

    /// Waits until the whole layer should be fetched beside a delta: when the time is over that one may take, unless it
    /// comes steadily and will be there sooner at its pace.
    pub(super) async fn until_late(&self, size: u64, missing: u64, pace: &Pace) {
        let patience = self.registry.options().fill.delta_deadline;
        let window = (patience / LOOKS).max(Duration::from_millis(1));
        let end = self.began + patience.max(LONGEST_SILENCE);
        sleep_until(self.began + patience.saturating_sub(window)).await;
        let mut before = pace.look();
        let mut complete = None;
        loop {
            sleep_until(before.at + window).await;
            let now = pace.look();
            if now.size == Some(now.arrived) {
                complete = complete.or(Some(now.at));
            }
            if now.at >= end || !self.is_still_sooner(size, missing, [before, now], complete) {
                return;
            }
            before = now;
        }
    }

    /// `complete` is when the delta was seen to be here, from when on it is applied.
    fn is_still_sooner(&self, size: u64, missing: u64, looks: [Look; 2], complete: Option<Instant>) -> bool {
        let [before, now] = looks;
        if let Some(since) = complete {
            let race = self.race(self.source.remote.speed.speed());
            return since.elapsed() < race.applying(size) && race.most_that_wins(size, missing) > 0;
        }
        let come = now.arrived.saturating_sub(before.arrived);
        let speed = come as f64 / now.at.duration_since(before.at).as_secs_f64();
        let left = now.size.map(|size| size.saturating_sub(now.arrived));
        come > 0 && left.is_some_and(|left| left < self.race(Some(speed)).most_that_wins(size, missing))
    }
}
