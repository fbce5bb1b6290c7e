//! `deltaport delta apply`: the new layer from the old ones.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use deltaport_delta::{Applied, Blob, Error, Header, Limits};
use serde_json::json;

use super::files::{Named, Place};
use super::{Described, blob_of, damaged, threads_of_machine};
use crate::args::{DeltaApply, Layers};
use crate::commands::layout;
use crate::commands::progress::Line;
use crate::output::{Output, rounded};

/// With how many threads applying still keeps within [`deltaport_delta::MAX_MEMORY`].
const MAX_THREADS: usize = 8;
/// How much is read or written at once.
const BUFFER: usize = 256 << 10;

pub(super) fn run(args: &DeltaApply, output: &mut Output) -> anyhow::Result<ExitCode> {
    let Described { header, .. } = Described::read(&args.delta)?;
    let place = Place::of(&args.out)?;
    let bases = find(&header, &args.bases, &args.delta)?;
    place.has_room(header.target.size.saturating_add(header.old_len))?;
    let line = Line::on_terminal();
    let applied = apply(&args.delta, &header, &bases, &place, &line);
    line.clear();
    let Applied { digest, size } = applied?;
    if args.json {
        output.json(&json!({ "digest": digest.to_string(), "size": size }))?;
    } else {
        output.line(&format!("{}: {digest}, {size} bytes.", args.out.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn apply(
    delta: &Path,
    header: &Header,
    paths: &[PathBuf],
    place: &Place,
    line: &Line,
) -> anyhow::Result<Applied> {
    line.begin("Opening the old layers");
    let mut bases = paths.iter().map(|path| Named::open(path)).collect::<Result<Vec<_>, _>>()?;
    // The engine holds the delta to these: no more than there is room for, as was just checked.
    let limits = Limits {
        target_size: header.target.size,
        scratch: header.old_len,
        threads: threads_of_machine().min(MAX_THREADS),
    };
    let source = BufReader::with_capacity(BUFFER, Named::open(delta)?);
    place.write(|file| {
        let shown = Shown { inner: file, line, written: 0, size: header.target.size };
        let out = BufWriter::with_capacity(BUFFER, shown);
        let scratch = place.scratch()?;
        deltaport_delta::apply(&mut bases, source, out, scratch, &limits).map_err(|error| match error {
            Error::BaseMismatch(_) => changed(header, paths).unwrap_or_else(|| damaged(delta, error)),
            error => damaged(delta, error),
        })
    })
}

/// Finds the file of each base that a delta needs, in its order.
///
/// A file that is the only one of its size is taken by that; whether it is the base is proven when the delta is applied.
fn find(header: &Header, given: &[Layers], delta: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for layers in given {
        match layers {
            Layers::File(path) => files.push((path, Named::open(path)?.len()?)),
            Layers::Image { layout, .. } => layout::must_be_layout(layout)?,
        }
    }
    let (mut found, mut missing) = (Vec::new(), String::new());
    for base in &header.bases {
        match find_one(&base.blob, given, &files)? {
            Some(path) => found.push(path),
            None => _ = writeln!(missing, "  {}, {} bytes", base.blob.digest, base.blob.size),
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    let mut given = String::new();
    for (path, _) in &files {
        let blob = blob_of(path, header.target.digest.algorithm())?;
        let _ = writeln!(given, "  {} is {}, {} bytes", path.display(), blob.digest, blob.size);
    }
    bail!(
        "{} needs old layers that were not given:\n{missing}{given}Give each of them with --base, or fetch the whole \
         layer",
        delta.display()
    )
}

fn find_one(blob: &Blob, given: &[Layers], files: &[(&PathBuf, u64)]) -> anyhow::Result<Option<PathBuf>> {
    let in_layout = given.iter().find_map(|layers| match layers {
        Layers::File(_) => None,
        Layers::Image { layout, .. } => {
            let path = layout::blob_path(layout, &blob.digest);
            fs::metadata(&path).is_ok_and(|there| there.len() == blob.size).then_some(path)
        }
    });
    if in_layout.is_some() {
        return Ok(in_layout);
    }
    let of_its_size: Vec<&PathBuf> =
        files.iter().filter(|(_, size)| *size == blob.size).map(|(path, _)| *path).collect();
    if let [path] = of_its_size[..] {
        return Ok(Some(path.clone()));
    }
    for path in of_its_size {
        if blob_of(path, blob.digest.algorithm())?.digest == blob.digest {
            return Ok(Some(path.clone()));
        }
    }
    Ok(None)
}

/// Says which file is not the base that it was taken for.
fn changed(header: &Header, paths: &[PathBuf]) -> Option<anyhow::Error> {
    header.bases.iter().zip(paths).find_map(|(base, path)| {
        let blob = blob_of(path, base.blob.digest.algorithm()).ok()?;
        (blob != base.blob).then(|| {
            anyhow::anyhow!(
                "{} is {}, and the delta needs {}; give that one with --base, or fetch the whole layer",
                path.display(),
                blob.digest,
                base.blob.digest
            )
        })
    })
}

/// A writer that shows how far it is.
struct Shown<'a, W> {
    inner: W,
    line: &'a Line,
    written: u64,
    size: u64,
}

impl<W: Write> Write for Shown<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.written += count as u64;
        let percent = self.written.saturating_mul(100).checked_div(self.size).unwrap_or(100);
        self.line.show(&format!("{percent} %, {} of {}", rounded(self.written), rounded(self.size)));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
