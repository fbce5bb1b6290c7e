//! The names of the source of a migration, which are read beside whoever serves them.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

use crate::core::Core;
use crate::error::Result;
use crate::layout::Layout;
use crate::names::shared::Shared;
use crate::names::sql::Connection;
use crate::names::{database, held};
use crate::{NamesOptions, Options};

/// Where names are read.
#[derive(Clone)]
pub(super) enum Reader {
    /// In an open store.
    Open(Arc<Core>),
    /// In the database of a data directory that another process may have open.
    Beside(Layout, Arc<Mutex<Connection>>),
    /// In a database that replicas share.
    Shared(Shared),
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open(_) => "Open",
            Self::Beside(..) => "Beside",
            Self::Shared(_) => "Shared",
        })
    }
}

impl Reader {
    /// Reads the names of `options`, whoever has them open.
    ///
    /// Fails with [`Error::Unusable`](crate::Error::Unusable) when there are none, or of another version than this program's.
    pub(super) async fn of(options: &Options) -> Result<Self> {
        let (options, runtime) = (options.clone(), Handle::current());
        let opening = move || match &options.names {
            NamesOptions::Directory | NamesOptions::File(_) => {
                let layout = Layout::of(&options.root, &options.bytes, &options.names);
                let connection = database::beside(&layout, false)?;
                Ok(Self::Beside(layout, Arc::new(Mutex::new(connection))))
            }
            NamesOptions::Postgres(postgres) => Ok(Self::Shared(Shared::attach(postgres, runtime)?)),
        };
        tokio::task::spawn_blocking(opening).await?
    }

    /// Asks the database, on a blocking thread, as of the last commit.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T> + Send + 'static,
    {
        match self {
            Self::Open(core) => core.database.read(work).await,
            Self::Shared(shared) => shared.read(work).await,
            Self::Beside(_, connection) => {
                let connection = Arc::clone(connection);
                let work = move || work(&connection.lock().unwrap_or_else(PoisonError::into_inner));
                tokio::task::spawn_blocking(work).await?
            }
        }
    }

    /// Has the registry take no changes until then, in milliseconds since 1970.
    pub(super) async fn set_held(&self, until: i64) -> Result<()> {
        match self {
            Self::Open(core) => core.database.change(move |tx| held::set(tx.connection, until)).await,
            Self::Shared(shared) => shared.hold(until).await,
            Self::Beside(layout, _) => {
                let layout = layout.clone();
                let setting = move || held::set(&database::beside(&layout, true)?, until);
                tokio::task::spawn_blocking(setting).await?
            }
        }
    }
}
