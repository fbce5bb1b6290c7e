//! How a layer would come, without having it come: what a plan tells.

use std::sync::Mutex;

use deltaport_client::LayerDelta;
use deltaport_oci::{Digest, RepositoryName};
use tokio::sync::watch;
use tokio::time::Instant;

use super::blobs::Fill;
use super::link::{Claim, Class};
use crate::Registry;
use crate::pull::Progress;
use crate::upstream::Source;

impl Registry {
    /// How many bytes the delta has by which the layer `digest` of `size` bytes would come, as the link and this machine are
    /// now; `None` when it would come whole, or nobody knows. A hub makes the delta, if it has none yet, and so has it when
    /// the layer is fetched. `image` has the layer and need not be here.
    pub(crate) async fn foresee_delta(
        &self,
        source: &Source,
        repository: &RepositoryName,
        image: &Digest,
        digest: &Digest,
        size: u64,
    ) -> Option<u64> {
        let fill = Fill {
            registry: self.clone(),
            source: source.clone(),
            repository: repository.clone(),
            digest: *digest,
            claim: Claim::new(repository.clone(), Class::Ahead),
            began: Instant::now(),
            intention: Mutex::new(None),
            progress: watch::Sender::new(Progress::default()),
        };
        let most = fill.most_worth(size, size);
        if most == 0 {
            return None;
        }
        let bases = fill.bases(size).await.ok()?;
        let client = &source.remote.client;
        let delta = match client.discover().await {
            Ok(extensions) if extensions.layer_deltas => fill.named(&bases).await,
            Ok(_) => {
                let published = fill.published_for(vec![*image], &bases).await;
                published.ok().flatten().map(|published| published.size)
            }
            Err(_) => None,
        };
        delta.filter(|delta| *delta <= most)
    }
}

impl Fill {
    /// The size of the delta that a hub names, once it is made.
    async fn named(&self, bases: &[Digest]) -> Option<u64> {
        let until = Instant::now() + self.registry.options().fill.delta_wait;
        loop {
            let client = &self.source.remote.client;
            match client.layer_delta(&self.source.repository, &self.digest, bases, 0).await {
                Ok(LayerDelta::Named { size, .. }) => return size,
                Ok(LayerDelta::Pending(pause)) => {
                    let pause = super::delta::between_questions(pause);
                    if Instant::now() + pause > until {
                        return None;
                    }
                    tokio::time::sleep(pause).await;
                }
                _ => return None,
            }
        }
    }
}
