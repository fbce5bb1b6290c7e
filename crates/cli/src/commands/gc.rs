//! `deltaport gc`: room taken back now.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use deltaport_registry::space::Evicted;
use deltaport_store::Collected;
use serde_json::json;

use crate::args::{Gc, Place};
use crate::output::{Output, rounded};
use crate::settings::{Overrides, Settings};
use crate::{logging, wiring};

pub(crate) fn run(args: &Gc, output: &mut Output) -> anyhow::Result<ExitCode> {
    logging::start_for_command();
    let (settings, data) = configured(&args.place)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    let (evicted, collected) = runtime.block_on(take_back(&settings, data))?;
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

/// The settings, and the directory that holds everything, which must be there.
fn configured(place: &Place) -> anyhow::Result<(Settings, PathBuf)> {
    let settings = Settings::load(place.config.as_deref(), &Overrides::default())?;
    let data = wiring::stored_data(place)?;
    anyhow::ensure!(data.join("names.db").is_file(), "there are no data in {}", data.display());
    Ok((settings, data))
}

async fn take_back(settings: &Settings, data: PathBuf) -> anyhow::Result<(Evicted, Collected)> {
    let store = wiring::store(settings, &data).await?;
    let registry = wiring::registry(settings, store.clone())?;
    let done = async {
        let evicted = registry.evict(SystemTime::now()).await.context("nothing was evicted")?;
        let collected = store.collect(SystemTime::now()).await.context("nothing was collected")?;
        anyhow::Ok((evicted, collected))
    };
    let done = done.await;
    store.close().await.context("cannot close the store")?;
    done
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
