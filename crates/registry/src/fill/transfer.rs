//! Fetching a whole blob, taken up again wherever it breaks off.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use deltaport_client as client;
use deltaport_client::ErrorKind;
use deltaport_store::Partial;
use tokio::time::Instant;

use super::Failure;
use super::blobs::Fill;
use super::link::Turn;
use crate::upstream::{Ask, Source};

/// The most that is waited after the first failure in a row; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The most that is ever waited, unless the upstream asks for more.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A blob on its way into a partial.
pub(super) struct Transfer<'a> {
    fill: &'a Fill,
    /// How many bytes the blob has, if that is known; the upstream must say the same.
    pub(super) size: Option<u64>,
    /// The most bytes to take.
    pub(super) limit: u64,
    /// Where to end before the end of the blob.
    pub(super) until: Option<u64>,
    /// How long to go on without a new byte.
    pub(super) patience: Duration,
    /// Whether it is worth trying again before the first byte has come: somebody is waiting already who cannot be
    /// sent elsewhere any more.
    pub(super) committed: bool,
    /// Whether to break off when the hours of the mirror rule that wants it end, and to go on in the next.
    pub(super) rests: bool,
    /// An answer that has begun already, and the turn in which it comes.
    pub(super) under_way: Option<(client::BlobBody, Turn)>,
    /// How many bytes there are.
    at: u64,
    /// Whether anything was asked for behind them.
    pieced: bool,
    /// From where on the last request has asked.
    asked_from: u64,
    /// Whether the next request asks for everything.
    all: bool,
}

impl<'a> Transfer<'a> {
    /// A transfer of the blob of `fill`, which goes on behind the first `at` bytes, of at most `limit`.
    pub(super) fn new(fill: &'a Fill, at: u64, limit: u64) -> Self {
        Self {
            fill,
            size: None,
            limit,
            until: None,
            patience: Duration::ZERO,
            committed: false,
            rests: false,
            under_way: None,
            at,
            pieced: at > 0,
            asked_from: at,
            all: false,
        }
    }

    /// Whether the bytes are put together from more than one answer, one of which may have been wrong.
    pub(super) fn is_pieced(&self) -> bool {
        self.pieced
    }

    /// Fetches everything. `begun` is told the size, if it is known, as soon as it is worth telling others: when the
    /// upstream has begun to answer, or does not but there are bytes.
    ///
    /// The bytes are not proven: that is done by whoever commits the partial.
    pub(super) async fn run(
        &mut self,
        partial: &mut Partial,
        mut begun: impl FnMut(u64),
    ) -> Result<(), Failure> {
        let (mut failures, mut last_byte) = (0, Instant::now());
        loop {
            let before = self.at;
            let attempt = self.attempt(partial, &mut begun).await;
            if self.at > before {
                (failures, last_byte) = (0, Instant::now());
            }
            let error = match attempt {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    tracing::info!(digest = %self.fill.digest, at = self.at, "a transfer rests until its hours");
                    self.fill.claim.rested().await;
                    (failures, last_byte) = (0, Instant::now());
                    continue;
                }
                Err(Failure::Upstream(error)) if self.may_retry(&error) => error,
                Err(Failure::Upstream(error)) if self.may_ask_for_all(&error) => {
                    tracing::warn!(digest = %self.fill.digest, at = self.at, %error, "a blob is asked for from its beginning");
                    self.all = true;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            if let Some(size) = self.size.filter(|_| self.at > 0) {
                begun(size);
                self.committed = true;
            }
            let pause = pause(failures, &error);
            if last_byte.elapsed() + pause > self.patience {
                return Err(error.into());
            }
            failures += 1;
            tracing::info!(digest = %self.fill.digest, at = self.at, %error, ?pause, "a transfer broke off and goes on");
            tokio::time::sleep(pause).await;
        }
    }

    fn is_far_enough(&self) -> bool {
        self.until.is_some_and(|until| self.at >= until)
    }

    fn may_retry(&self, error: &client::Error) -> bool {
        matches!(error.kind(), ErrorKind::Unavailable { .. }) && (self.at > 0 || self.committed)
    }

    /// Whether the trouble may be that the upstream cannot send a part. It is then asked for everything.
    fn may_ask_for_all(&self, error: &client::Error) -> bool {
        matches!(error.kind(), ErrorKind::Protocol(_)) && self.asked_from > 0
    }

    /// One request, from what has arrived to the end; `false` when it broke off to rest. What is known of the size must
    /// not change: others have been told.
    async fn attempt(&mut self, partial: &mut Partial, begun: &mut impl FnMut(u64)) -> Result<bool, Failure> {
        let link = &self.fill.registry.0.fills.link;
        // While it waits to try again, a transfer leaves its turn to others.
        let (mut body, _turn) = match self.under_way.take() {
            Some(begun) => {
                self.asked_from = 0;
                begun
            }
            None => {
                let turn = link.turn(&self.fill.claim).await;
                (self.ask().await?, turn)
            }
        };
        let speed = self.fill.source.remote.speed.begin();
        self.size = match (self.size, body.size()) {
            (Some(expected), Some(actual)) if expected != actual => {
                let why = format!("says the blob has {actual} bytes, it was to have {expected}");
                return Err(self.fail(ErrorKind::Protocol(why)));
            }
            (expected, actual) => expected.or(actual),
        };
        if let Some(size) = self.size {
            partial.set_size(size);
            begun(size);
            self.committed = true;
        }
        // An upstream that cannot resume sends again what is here.
        let mut skip = self.at.saturating_sub(body.start());
        while !self.is_far_enough()
            && let Some(mut chunk) = body.chunk().await?
        {
            let bytes = chunk.len() as u64;
            self.fill.registry.metrics().received(self.fill.source.remote.client.host(), bytes);
            self.fill.claim.count(bytes);
            speed.add(bytes);
            link.pass(&self.fill.claim, bytes).await;
            let known = chunk.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
            skip -= known as u64;
            let new = chunk.split_off(known);
            if !new.is_empty() {
                self.at += new.len() as u64;
                partial.write(new).await?;
            }
            if self.rests && self.fill.claim.must_rest() && self.size.is_none_or(|size| self.at < size) {
                return Ok(false);
            }
        }
        match self.size {
            Some(size) if self.at < size && !self.is_far_enough() => {
                let why = format!("sent {} of {size} bytes", self.at);
                Err(self.fail(ErrorKind::unavailable(why)))
            }
            _ => Ok(true),
        }
    }

    /// Where every request for the blob's bytes begins: for those that are not here, always at the registry itself, since
    /// what it redirected to may be gone by now.
    async fn ask(&mut self) -> Result<client::BlobBody, Failure> {
        let Source { remote, repository } = &self.fill.source;
        if self.at > 0 {
            self.pieced = true;
            self.fill.registry.metrics().resumed(remote.client.host());
        }
        // Everything is asked for once: it may do parts after all, and if it does not, that costs a question.
        self.asked_from = if std::mem::take(&mut self.all) { 0 } else { self.at };
        let (client, digest) = (&remote.client, &self.fill.digest);
        let asked = client.blob_part(repository, digest, self.asked_from, self.until, self.limit).await;
        remote.note(Ask::Blob, &asked);
        Ok(asked?)
    }

    fn fail(&self, kind: ErrorKind) -> Failure {
        Failure::Upstream(client::Error::new(self.fill.source.remote.client.host().into(), kind))
    }
}

/// How long to wait before the next attempt: any time up to a limit that doubles with each failure, so that those whose
/// transfers broke together do not come back together; longer if the upstream asks for that.
fn pause(failures: u32, error: &client::Error) -> Duration {
    let most = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
    let random = u32::try_from(RandomState::new().hash_one(failures) % 1024).unwrap_or(0);
    let pause = most * random / 1024;
    match error.kind() {
        ErrorKind::Unavailable { retry_after: Some(asked), .. } => pause.max(*asked),
        _ => pause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_spread_over_all_of_a_growing_and_bounded_time() {
        let error = |retry_after| {
            let kind = ErrorKind::Unavailable { why: String::new(), retry_after, quota: false };
            client::Error::new("a".into(), kind)
        };
        for (failures, most) in [(0, FIRST_PAUSE), (2, 4 * FIRST_PAUSE), (u32::MAX, LONGEST_PAUSE)] {
            let pauses: Vec<_> = (0..1000).map(|_| pause(failures, &error(None))).collect();
            assert!(pauses.iter().all(|pause| *pause < most), "{failures}");
            let below = |share| pauses.iter().filter(|pause| **pause < most * share / 4).count();
            for share in 1..4 {
                let expected = 250 * usize::try_from(share).unwrap();
                assert!(below(share).abs_diff(expected) < 100, "{} below {share}/4", below(share));
            }
        }
        assert_eq!(pause(5, &error(Some(Duration::from_secs(77)))), Duration::from_secs(77));
        let hurried = (0..100).map(|_| pause(3, &error(Some(Duration::ZERO)))).max();
        assert!(hurried >= Some(FIRST_PAUSE), "an upstream cannot have us ask without a pause: {hurried:?}");
    }
}
