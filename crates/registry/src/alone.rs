//! What only one replica does at a time: who does it has a lease of the store, and another takes its place when it dies.

use std::io;
use std::time::Duration;

use deltaport_store as store;

use crate::Registry;

/// How often one looks who waits until nobody else does the same.
const LOOK: Duration = Duration::from_secs(1);

impl Registry {
    /// Does `work` unless what is called `name` is being done elsewhere. `None` when it is, or when this replica stood still
    /// for so long that another took its place: then `work` was dropped where it waited.
    pub(crate) async fn alone<T>(
        &self,
        name: &str,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, store::Error> {
        let Some(mut lease) = self.store().names().lease(name, self.options().replicas.lease).await? else {
            return Ok(None);
        };
        let done = lease.hold(work).await;
        lease.give_back().await;
        Ok(done)
    }

    /// Does `work` as soon as what is called `name` is not being done elsewhere. Fails when this replica stood still for so
    /// long that another took its place.
    pub(crate) async fn in_turn<T>(
        &self,
        name: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, store::Error> {
        let mut lease = loop {
            match self.store().names().lease(name, self.options().replicas.lease).await? {
                Some(lease) => break lease,
                None => tokio::time::sleep(LOOK).await,
            }
        };
        let done = lease.hold(work).await;
        lease.give_back().await;
        done.ok_or_else(|| io::Error::other("another replica has begun the same meanwhile").into())
    }
}
