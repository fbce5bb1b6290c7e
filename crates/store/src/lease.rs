//! What only one may do at a time, among all that share the names: a right that ends by itself unless it is renewed.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::core::Core;
use crate::error::Result;
use crate::names::{ClaimLimits, DeltaJob, LayerDelta, Names, Slot, Tx, deltas, jobs, leases};

/// Into how many parts the life of a lease is divided: it is renewed after one of them, so that two renewals may fail.
const PARTS: u32 = 3;
/// After which part of its life a renewal that failed is tried again.
const AGAIN: u32 = 12;
/// How many random bytes tell one holder from another.
const HOLDER_LEN: usize = 16;

/// The right to do something that only one may do at a time. It is renewed while something is done under it
/// ([`Lease::hold`]), ends by itself after a while when who has it dies, and is given back when this is dropped.
pub struct Lease {
    core: Arc<Core>,
    right: Right,
    life: Duration,
    /// Until when nobody else can have it, by the clock of this process.
    until: Instant,
    /// Whether there is nothing to give back.
    over: bool,
}

/// Who has a lease, or had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder(Box<str>);

/// What only one may do, and what tells this one from others.
#[derive(Clone, Debug)]
struct Right {
    what: What,
    holder: Box<str>,
}

#[derive(Clone, Debug)]
enum What {
    Named(Box<str>),
    /// To make a delta.
    Delta(Box<DeltaJob>),
}

impl Right {
    fn renew(&self, tx: &Tx<'_>, life: i64) -> Result<bool> {
        match &self.what {
            What::Named(name) => leases::renew(tx, name, &self.holder, life),
            What::Delta(job) => jobs::renew(tx, job, &self.holder, life),
        }
    }

    fn release(&self, tx: &Tx<'_>) -> Result<()> {
        match &self.what {
            What::Named(name) => leases::release(tx, name, &self.holder),
            What::Delta(job) => jobs::release(tx, job, &self.holder),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Delta(job) => write!(f, "the delta from {} to {}", job.base, job.target),
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("right", &self.right).field("life", &self.life).finish_non_exhaustive()
    }
}

impl Lease {
    /// Who has it, for what has to be his when it is written down.
    pub fn holder(&self) -> Holder {
        Holder(self.right.holder.clone())
    }

    /// Does `work`, and renews the lease until it is done. `None` when the lease was lost before: others may do the same
    /// by then, so `work` is dropped where it waits.
    pub async fn hold<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = self.renewed() => {}
        }
        tracing::warn!(what = %self.right.what, "a lease was lost; what was being done is left to others");
        self.over = true;
        None
    }

    /// Gives it back now.
    pub async fn give_back(mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let right = self.right.clone();
        if let Err(error) = self.core.database.change(move |tx| right.release(tx)).await {
            tracing::debug!(what = %self.right.what, %error, "a lease could not be given back; it ends by itself");
        }
    }

    /// Leaves it as it is for a while, so that nobody does the same for that long.
    pub async fn rest(mut self, pause: Duration) -> Result<()> {
        self.over = true;
        let (right, life) = (self.right.clone(), milliseconds(pause));
        self.core.database.change(move |tx| right.renew(tx, life)).await.map(|_| ())
    }

    /// Renews it again and again; returns when it is lost.
    async fn renewed(&mut self) {
        let mut pause = self.life / PARTS;
        loop {
            sleep(pause).await;
            let (right, life, asked) = (self.right.clone(), milliseconds(self.life), Instant::now());
            let renewal = self.core.database.change(move |tx| right.renew(tx, life));
            match timeout_at(self.until, renewal).await {
                Ok(Ok(true)) => (self.until, pause) = (asked + self.life, self.life / PARTS),
                Ok(Err(error)) if Instant::now() < self.until => {
                    tracing::debug!(what = %self.right.what, %error, "a lease could not be renewed; it is tried again");
                    pause = self.life / AGAIN;
                }
                Ok(Ok(false) | Err(_)) | Err(_) => return,
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.over {
            let (core, right) = (Arc::clone(&self.core), self.right.clone());
            let give_back = async move {
                // When the store is closed, it ends by itself.
                let _ended = core.database.change(move |tx| right.release(tx)).await;
            };
            self.core.tasks.spawn_on(give_back, &self.core.runtime);
        }
    }
}

fn milliseconds(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// Another holder each time.
fn new_holder() -> Result<Box<str>> {
    let mut random = [0; HOLDER_LEN];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Names {
    /// The right to do what is called `name`, which nobody else gets until it is given back, or `life` has passed without
    /// a renewal. `None` when somebody has it.
    pub async fn lease(&self, name: &str, life: Duration) -> Result<Option<Lease>> {
        let right = Right { what: What::Named(name.into()), holder: new_holder()? };
        let (until, mine, for_milliseconds) = (Instant::now() + life, right.clone(), milliseconds(life));
        let take = move |tx: &mut Tx<'_>| match &mine.what {
            What::Named(name) => leases::take(tx, name, &mine.holder, for_milliseconds),
            What::Delta(_) => Ok(false),
        };
        let taken = self.core().database.change(take).await?;
        Ok(taken.then(|| Lease { core: Arc::clone(self.core()), right, life, until, over: false }))
    }

    /// When what is called `name` was done last.
    pub async fn slot(&self, name: &str) -> Result<Option<Slot>> {
        let name = name.to_owned();
        self.core().database.read(move |names| leases::slot(names, &name)).await
    }

    /// Begins what is due at a time, in milliseconds since 1970, or takes it up again when it was begun and not ended;
    /// `false` when it was done for that time, or for a later one. Two may begin the same: what keeps them apart is a
    /// [`Lease`].
    pub async fn begin_slot(&self, name: &str, due: i64) -> Result<bool> {
        let name = name.to_owned();
        self.core().database.change(move |tx| leases::begin_slot(tx, &name, due)).await
    }

    /// Says that what was due at a time is over.
    pub async fn end_slot(&self, name: &str, due: i64) -> Result<()> {
        let name = name.to_owned();
        self.core().database.change(move |tx| leases::end_slot(tx, &name, due)).await
    }

    /// Takes up the next job: those that somebody waits for first, then the longest asked for. It is the caller's until
    /// it ends with [`Names::put_made_delta`] or [`Names::end_delta_job`], or for as long as the lease lasts, which ends
    /// `life` after its last renewal. Jobs beyond `limits` are struck from the list.
    pub async fn claim_delta_job(
        &self,
        limits: ClaimLimits,
        life: Duration,
    ) -> Result<Option<(DeltaJob, Lease)>> {
        let holder = new_holder()?;
        let (until, mine, for_milliseconds) = (Instant::now() + life, holder.clone(), milliseconds(life));
        let claim = move |tx: &mut Tx<'_>| jobs::claim(tx, limits, &mine, for_milliseconds);
        let claimed = self.core().database.change(claim).await?;
        Ok(claimed.map(|job| {
            let right = Right { what: What::Delta(Box::new(job.clone())), holder };
            (job, Lease { core: Arc::clone(self.core()), right, life, until, over: false })
        }))
    }

    /// Remembers a delta that was made for a job, and ends it: see [`Names::put_layer_delta`]. `false`, and nothing is
    /// changed, when the job is over, or somebody else's by now.
    pub async fn put_made_delta(&self, job: &DeltaJob, holder: &Holder, delta: &LayerDelta) -> Result<bool> {
        let (job, holder, delta) = (job.clone(), holder.clone(), delta.clone());
        let put = move |tx: &mut Tx<'_>| {
            let held = jobs::is_held(tx.connection, &job, &holder.0)?;
            if held {
                deltas::put(tx, &job.repository, &job.base, &job.target, &delta)?;
            }
            Ok(held)
        };
        self.core().database.change(put).await
    }

    /// Strikes a job from the list that will never be done, unless it is somebody else's by now.
    pub async fn end_delta_job(&self, job: &DeltaJob, holder: &Holder) -> Result<()> {
        let (job, holder) = (job.clone(), holder.clone());
        let end = move |tx: &mut Tx<'_>| match jobs::is_held(tx.connection, &job, &holder.0)? {
            true => jobs::end(tx, &job.repository, &job.base, &job.target),
            false => Ok(()),
        };
        self.core().database.change(end).await
    }

    /// Whether there are deltas that are to be made, or are being made.
    pub async fn has_delta_jobs(&self) -> Result<bool> {
        self.core().database.read(jobs::any).await
    }
}
