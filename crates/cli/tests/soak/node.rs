//! A registry in this process, served at a port of its own. It can be stopped and started again at the same port with
//! what it has stored.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use deltaport_registry::{Options, Registry};
use deltaport_server::{Limits, Server};
use deltaport_store::{Faults, FsckOptions, Store, fsck};
use deltaport_testkit::http::Client;
use deltaport_trust::{Access, Rules};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long content to which nothing refers is kept for who is about to refer to it: many times what a push here takes.
const GRACE: Duration = Duration::from_secs(5);

/// A registry that is being served.
pub(crate) struct Node {
    home: PathBuf,
    options: Options,
    address: SocketAddr,
    pub(crate) registry: Registry,
    pub(crate) store: Store,
    stop: CancellationToken,
    serving: JoinHandle<bool>,
}

impl Node {
    /// Serves what is stored in `home`.
    pub(crate) async fn start(home: &Path, options: Options) -> Self {
        Self::at(home, options, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    async fn at(home: &Path, options: Options, address: SocketAddr) -> Self {
        let store = Store::open(deltaport_store::Options {
            root: home.to_owned(),
            bytes: deltaport_store::ByteStore::Directory,
            keep_free: 0,
            manifest_cache: 1 << 20,
            grace: GRACE,
            upload_expiry: GRACE * 6,
            partial_expiry: GRACE * 6,
            names: deltaport_store::NamesOptions::Directory,
            faults: Faults::none(),
        });
        let store = store.await.unwrap();
        let rules = Rules::new(Access { trust_loopback: Some(true), ..Access::default() }).unwrap();
        let registry = Registry::new(options.clone(), store.clone(), rules);
        let served = deltaport_server::Options {
            limits: Limits { shutdown_grace: Duration::from_millis(50), ..Limits::DEFAULT },
            ..deltaport_server::Options::new(address)
        };
        let server = Server::bind(served, registry.clone()).await.unwrap();
        let address = server.local_addr();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.run(stop.clone()));
        Self { home: home.to_owned(), options, address, registry, store, stop, serving }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn client(&self) -> Client {
        Client::plain(self.address)
    }

    /// Stops in the middle of whatever is asked of it, and starts again.
    pub(crate) async fn start_again(self) -> Self {
        let (home, options, address) = (self.home.clone(), self.options.clone(), self.address);
        self.stop().await;
        Self::at(&home, options, address).await
    }

    /// Stops, and returns where everything is.
    pub(crate) async fn stop(self) -> PathBuf {
        self.stop.cancel();
        self.serving.await.unwrap();
        self.store.close().await.unwrap();
        self.home
    }
}

/// Fails unless what is stored in `home` is as it must be.
pub(crate) fn is_clean(home: &Path) {
    let report = fsck(
        &FsckOptions {
            bytes: deltaport_store::ByteStore::Directory,
            rehash: false,
            root: home.to_owned(),
            names: deltaport_store::NamesOptions::Directory,
            repair: false,
        },
        &|_| {},
    )
    .unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}
