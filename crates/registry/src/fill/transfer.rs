//! Fetching a whole blob, taken up again wherever it breaks off.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use deltaport_client as client;
use deltaport_client::ErrorKind;
use deltaport_oci::Digest;
use deltaport_store::Staging;

use super::Failure;
use crate::Metrics;
use crate::upstream::{Ask, Source};

/// The pause after the first failure in a row; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A blob on its way into a staging file.
pub(super) struct Transfer<'a> {
    pub(super) source: &'a Source,
    pub(super) digest: &'a Digest,
    /// How many bytes the blob has, as the manifest says; the upstream must say the same.
    pub(super) size: Option<u64>,
    /// The most bytes to take.
    pub(super) limit: u64,
    /// How long to go on without a new byte.
    pub(super) patience: Duration,
    /// Whether it is worth trying again before the first byte has come: somebody is waiting already who cannot be
    /// sent elsewhere any more.
    pub(super) committed: bool,
    pub(super) metrics: &'a Metrics,
}

impl Transfer<'_> {
    /// Fetches everything and returns how many bytes there were. `begun` is told the size once the upstream has begun
    /// to send.
    ///
    /// The bytes are not proven: that is done by whoever commits the staging file.
    pub(super) async fn run(
        &self,
        staging: &mut Staging,
        mut begun: impl FnMut(u64),
    ) -> Result<u64, Failure> {
        let (mut written, mut size) = (0, self.size);
        let (mut failures, mut last_byte) = (0, Instant::now());
        loop {
            let before = written;
            let attempt = self.attempt(staging, &mut written, &mut size, &mut begun).await;
            if written > before {
                (failures, last_byte) = (0, Instant::now());
            }
            let error = match attempt {
                Ok(()) => return Ok(written),
                Err(Failure::Upstream(error)) if self.may_retry(&error, written) => error,
                Err(failure) => return Err(failure),
            };
            let pause = pause(failures, &error);
            if last_byte.elapsed() + pause > self.patience {
                return Err(error.into());
            }
            failures += 1;
            tracing::info!(digest = %self.digest, at = written, %error, ?pause, "a transfer broke off and goes on");
            tokio::time::sleep(pause).await;
        }
    }

    fn may_retry(&self, error: &client::Error, written: u64) -> bool {
        matches!(error.kind(), ErrorKind::Unavailable { .. }) && (written > 0 || self.committed)
    }

    /// One request, from what has arrived to the end. What is known of the size must not change: others have been told.
    async fn attempt(
        &self,
        staging: &mut Staging,
        written: &mut u64,
        size: &mut Option<u64>,
        begun: &mut impl FnMut(u64),
    ) -> Result<(), Failure> {
        let Source { remote, repository } = self.source;
        let asked = remote.client.blob(repository, self.digest, *written, self.limit).await;
        remote.note(Ask::Blob, &asked);
        let mut body = asked?;
        *size = match (*size, body.size()) {
            (Some(expected), Some(actual)) if expected != actual => {
                let why = format!("says the blob has {actual} bytes, it was to have {expected}");
                return Err(self.fail(ErrorKind::Protocol(why)));
            }
            (expected, actual) => expected.or(actual),
        };
        if let Some(size) = *size {
            begun(size);
        }
        // An upstream that cannot resume sends again what is here.
        let mut skip = written.saturating_sub(body.start());
        while let Some(mut chunk) = body.chunk().await? {
            self.metrics.received(remote.client.host(), chunk.len() as u64);
            let known = chunk.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
            skip -= known as u64;
            let new = chunk.split_off(known);
            if !new.is_empty() {
                *written += new.len() as u64;
                staging.write(new).await?;
            }
        }
        match *size {
            Some(size) if *written < size => {
                let why = format!("sent {written} of {size} bytes");
                Err(self.fail(ErrorKind::unavailable(why)))
            }
            _ => Ok(()),
        }
    }

    fn fail(&self, kind: ErrorKind) -> Failure {
        Failure::Upstream(client::Error::new(self.source.remote.client.host().into(), kind))
    }
}

/// How long to wait before the next attempt: twice as long each time, less up to a quarter, so that those whose
/// transfers broke together do not come back together; longer if the upstream asks for that.
fn pause(failures: u32, error: &client::Error) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
    let random = RandomState::new().hash_one(failures) % 256;
    let pause = pause - pause * u32::try_from(random).unwrap_or(0) / 1024;
    match error.kind() {
        ErrorKind::Unavailable { retry_after: Some(asked), .. } => pause.max(*asked),
        _ => pause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let error = |retry_after| {
            let kind = ErrorKind::Unavailable { why: String::new(), retry_after, quota: false };
            client::Error::new("a".into(), kind)
        };
        for (failures, most) in [(0, FIRST_PAUSE), (2, 4 * FIRST_PAUSE), (u32::MAX, LONGEST_PAUSE)] {
            let pause = pause(failures, &error(None));
            assert!(pause <= most && pause >= most * 3 / 4, "{pause:?}");
        }
        assert_eq!(pause(5, &error(Some(Duration::from_secs(77)))), Duration::from_secs(77));
        let hurried = pause(3, &error(Some(Duration::ZERO)));
        assert!(hurried >= FIRST_PAUSE * 6, "an upstream cannot have us ask without a pause: {hurried:?}");
    }
}
