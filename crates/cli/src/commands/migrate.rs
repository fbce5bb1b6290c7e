//! `deltaport migrate`: a registry moved to other storage while it is served.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use deltaport_registry::tokens::copy_secrets;
use deltaport_store::{Migration, Options, Pass, Secrets, Step};
use serde_json::json;

use crate::args::Migrate;
use crate::commands::progress::Line;
use crate::output::{Output, rounded};
use crate::settings::{Overrides, Settings};
use crate::{logging, wiring};

/// A pass that took no longer than this is followed by the switch: so long, about, nothing can be pushed.
const SHORT: Duration = Duration::from_secs(10);
/// After so many passes that took longer, the registry changes faster than it can be copied.
const MOST_PASSES: usize = 12;
/// How many passes the switch may take. The second finds nothing when nothing is changed any more.
const SWITCH_PASSES: usize = 4;
/// For how long the old registry is held at a time. Should this process die, it goes on after that.
const HOLD: Duration = Duration::from_secs(120);
/// How often that is renewed.
const RENEW: Duration = Duration::from_secs(30);

/// What was done.
#[derive(Default)]
struct Done {
    passes: Vec<Pass>,
    /// How long nothing could be pushed, if it came to that.
    held: Option<Duration>,
}

pub(crate) fn run(args: &Migrate, output: &mut Output) -> anyhow::Result<ExitCode> {
    logging::start_for_command();
    let from = options(&args.from)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    let Some(to) = &args.to else {
        runtime
            .block_on(Migration::release(&from))
            .context("it is not known whether it takes pushes again")?;
        match args.json {
            true => output.json(&json!({ "ok": true }))?,
            false => output.line("It takes pushes again.")?,
        }
        return Ok(ExitCode::SUCCESS);
    };
    let to = options(to)?;
    let done = runtime.block_on(migrate(from, to, args.copy))?;
    if args.json {
        output.json(&json!({
            "ok": true,
            "switched": done.held.is_some(),
            "held_seconds": done.held.map(|held| held.as_secs_f64()),
            "passes": done.passes,
        }))?;
    } else {
        output.text(&words(&done, args))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn options(config: &Path) -> anyhow::Result<Options> {
    let settings = Settings::load(Some(config), &Overrides::default())?;
    wiring::store_options(&settings, &wiring::data_directory(&settings)?)
}

async fn migrate(from: Options, to: Options, copy: bool) -> anyhow::Result<Done> {
    let (ours, theirs) = (from.clone(), to.clone());
    let migration = Migration::begin(&from, to).await.context("nothing was copied")?;
    let runtime = tokio::runtime::Handle::current();
    let connect = move || -> anyhow::Result<_> {
        Ok((wiring::secrets(&ours, &runtime)?, wiring::secrets(&theirs, &runtime)?))
    };
    let secrets = tokio::task::spawn_blocking(connect).await??;
    let migration = Arc::new(migration);
    let line = Line::on_terminal();
    let mut done = Done::default();
    let copied = copy_until_little_is_left(&migration, &line, &mut done).await;
    let switched = match (copied, copy) {
        (Ok(()), false) => switch(&migration, &secrets, &line, &mut done).await,
        (copied, _) => copied,
    };
    line.clear();
    let migration = Arc::into_inner(migration).context("somebody works on it still")?;
    let left = migration.leave().await.context("the copy was not closed");
    switched.and(left)?;
    Ok(done)
}

async fn copy_until_little_is_left(
    migration: &Migration,
    line: &Line,
    done: &mut Done,
) -> anyhow::Result<()> {
    for _ in 0..MOST_PASSES {
        let begun = Instant::now();
        let pass =
            migration.pass(&|step| line.show(&progress(step))).await.context("not everything was copied")?;
        let short = begun.elapsed() <= SHORT;
        done.passes.push(pass);
        if short {
            return Ok(());
        }
    }
    bail!(
        "so much changes that copying does not catch up; choose a quieter hour, or have less pushed meanwhile"
    )
}

/// Holds the old registry, and copies what is left.
async fn switch(
    migration: &Arc<Migration>,
    secrets: &(Secrets, Secrets),
    line: &Line,
    done: &mut Done,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    migration.hold(Some(HOLD)).await.context("the old registry could not be held")?;
    let renewing = tokio::spawn(renew(Arc::clone(migration)));
    let copied = copy_the_rest(migration, secrets, line, done).await;
    renewing.abort();
    // It may be about to renew; what comes now has to be the last word.
    let _ = renewing.await;
    match copied {
        Ok(()) => migration
            .hold(None)
            .await
            .context("the new registry is complete, but the old one will take pushes again: stop it now")?,
        Err(error) => {
            if let Err(why) = migration.hold(Some(Duration::ZERO)).await {
                tracing::warn!(error = %why, "the old registry takes pushes again in two minutes only");
            }
            return Err(error);
        }
    }
    done.held = Some(begun.elapsed());
    Ok(())
}

async fn renew(migration: Arc<Migration>) {
    loop {
        tokio::time::sleep(RENEW).await;
        if let Err(error) = migration.hold(Some(HOLD)).await {
            tracing::warn!(%error, "the old registry may take pushes again before everything is copied");
        }
    }
}

async fn copy_the_rest(
    migration: &Migration,
    secrets: &(Secrets, Secrets),
    line: &Line,
    done: &mut Done,
) -> anyhow::Result<()> {
    for _ in 0..SWITCH_PASSES {
        let pass =
            migration.pass(&|step| line.show(&progress(step))).await.context("not everything was copied")?;
        let whole = pass.found_nothing();
        done.passes.push(pass);
        if whole {
            let (from, to) = secrets.clone();
            let copied = tokio::task::spawn_blocking(move || copy_secrets(&from, &to)).await?;
            copied.context("the keys of tokens were not copied")?;
            return migration.finish().await.context("the copy could not be declared whole");
        }
    }
    let why = done
        .passes
        .last()
        .and_then(|pass| pass.why.clone())
        .unwrap_or_else(|| "it goes on changing".to_owned());
    bail!("the old registry is not like the copy of it: {why}; run `deltaport fsck` there")
}

fn progress(step: Step) -> String {
    match step {
        Step::Bytes { blobs, of, copied } => format!("{blobs} of {of} blobs, {} copied", rounded(copied)),
        Step::Names { changed } => format!("names: {changed} put or removed"),
    }
}

fn words(done: &Done, args: &Migrate) -> String {
    let mut text = String::new();
    for (number, pass) in done.passes.iter().enumerate() {
        text.push_str(&format!(
            "Pass {}: copied {} blobs ({}), put {} rows, removed {}.\n",
            number + 1,
            pass.blobs,
            rounded(pass.bytes),
            pass.put,
            pass.removed
        ));
    }
    let to = args.to.as_deref().unwrap_or(Path::new("")).display();
    match done.held {
        None => text.push_str("Everything was copied. The old registry goes on; without --copy comes the switch.\n"),
        Some(held) => text.push_str(&format!(
            "Done. For {:.1} s nothing could be pushed. The old registry serves pulls and takes no pushes any more.\n\
             Next: deltaport serve --config {to}, lead clients there, and stop the old one.\n\
             To stay with the old one after all: deltaport migrate --release --from {}\n",
            held.as_secs_f64(),
            args.from.display(),
        )),
    }
    text
}
