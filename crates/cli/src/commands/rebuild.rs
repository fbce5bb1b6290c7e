//! `deltaport rebuild`: the database again, from the blobs and the journal.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use deltaport_store::Rebuilt;

use crate::args::Rebuild;
use crate::output::Output;
use crate::{logging, wiring};

pub(crate) fn run(args: &Rebuild, output: &mut Output) -> anyhow::Result<ExitCode> {
    logging::start_for_command();
    let data = wiring::stored_data(&args.place)?;
    let (bytes, names) = (wiring::stored_bytes(&args.place)?, wiring::stored_names(&args.place)?);
    let rebuilt = deltaport_store::rebuild(&data, &bytes, &names)
        .with_context(|| format!("the database in {} was not made again", data.display()))?;
    let whole = rebuilt.lost == 0 && rebuilt.damaged_lines == 0;
    if args.json {
        output.json(&serde_json::json!({ "ok": whole, "rebuilt": rebuilt }))?;
    } else {
        output.text(&report(&rebuilt))?;
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(rebuilt: &Rebuilt) -> String {
    let Rebuilt { repositories, manifests, tags, links, blobs, deltas, lost, damaged_lines, .. } = rebuilt;
    let mut text = format!(
        "The database was made again: {repositories} repositories, {manifests} manifests, {tags} tags, {links} links to \
         {blobs} blobs, {deltas} deltas.\n"
    );
    if let Some(old) = &rebuilt.set_aside {
        let _ = writeln!(text, "The old one is now {}; delete it when all is well.", old.display());
    }
    if *damaged_lines > 0 {
        let _ =
            writeln!(text, "{damaged_lines} lines of the journal could not be read; what they said is lost.");
    }
    if *lost > 0 {
        let _ = writeln!(text, "{lost} names could not be given back; push them again:");
        for loss in &rebuilt.losses {
            let _ = writeln!(text, "  {loss}");
        }
        let unnamed = lost.saturating_sub(u64::try_from(rebuilt.losses.len()).unwrap_or(u64::MAX));
        if unnamed > 0 {
            let _ = writeln!(text, "  and {unnamed} more");
        }
    }
    if *lost == 0 && *damaged_lines == 0 {
        text.push_str("Nothing is lost. `deltaport fsck` checks every byte.\n");
    }
    text
}
