//! `deltaport gc`: room taken back now.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use deltaport_registry::space::{Evicted, TakenBack};
use deltaport_store::{Collected, CommandSocket, Store};
use serde_json::json;

use crate::args::Gc;
use crate::output::{Output, rounded};
use crate::settings::{NamePlace, Overrides, Settings};
use crate::{logging, wiring};

pub(crate) fn run(args: &Gc, output: &mut Output) -> anyhow::Result<ExitCode> {
    logging::start_for_command();
    let settings = Settings::load(args.place.config.as_deref(), &Overrides::default())?;
    let data = wiring::stored_data(&args.place)?;
    let file = match &settings.storage.metadata {
        None => Some(data.join("names.db")),
        Some(NamePlace::File(file)) => Some(file.clone()),
        Some(NamePlace::Database(_)) => None,
    };
    let taken = if file.is_some_and(|file| !file.is_file()) {
        // The names may be where only the server's configuration knows.
        let socket = CommandSocket::new(&data);
        anyhow::ensure!(socket.path().exists(), "there are no data in {}", data.display());
        let taken = deltaport_server::take_back(socket.path());
        taken.with_context(|| format!("the names are not in {}; say where with --config", data.display()))?
    } else {
        let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
        match runtime.block_on(wiring::store(&settings, &data)) {
            Ok(store) => runtime.block_on(take_back(&settings, store))?,
            Err(error) => match error.downcast_ref() {
                Some(deltaport_store::Error::InUse { owner, .. }) => ask(&data, owner)?,
                _ => return Err(error),
            },
        }
    };
    let TakenBack { evicted, collected } = taken;
    let good = evicted.missing == 0;
    match args.json {
        true => output.json(&json!({
            "ok": good,
            "evicted": evicted,
            "collected": {
                "blobs": collected.blobs,
                "bytes": collected.bytes,
                "uploads": collected.uploads,
                "partials": collected.partials,
            },
        }))?,
        false => output.text(&words(&evicted, &collected))?,
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn take_back(settings: &Settings, store: Store) -> anyhow::Result<TakenBack> {
    let registry = wiring::registry(settings, store.clone())?;
    let taken = registry.take_back(SystemTime::now()).await.context("not everything was taken back");
    store.close().await.context("cannot close the store")?;
    taken
}

/// Has the process that has the data open do it.
fn ask(data: &Path, owner: &str) -> anyhow::Result<TakenBack> {
    let socket = CommandSocket::new(data);
    let taken = deltaport_server::take_back(socket.path());
    taken.with_context(|| format!("only process {owner}, which has {} open, can do this", data.display()))
}

fn words(evicted: &Evicted, collected: &Collected) -> String {
    let mut text = format!(
        "Evicted {} images from upstreams ({}). Removed {} blobs ({}), {} uploads and {} beginnings of blobs.\n",
        evicted.images,
        rounded(evicted.bytes),
        collected.blobs,
        rounded(collected.bytes),
        collected.uploads,
        collected.partials,
    );
    if evicted.missing > 0 {
        text.push_str(&format!(
            "{} more should have gone. What stays: {} images are pinned or mirrored, of {} the upstream does not have all any more, \
             and {} were used just now or their upstream cannot be asked.\n",
            rounded(evicted.missing),
            evicted.pinned,
            evicted.irreplaceable,
            evicted.busy,
        ));
    }
    text
}
