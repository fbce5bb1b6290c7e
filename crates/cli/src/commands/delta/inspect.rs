//! `deltaport delta inspect`: what a delta says about itself.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::Described;
use crate::args::DeltaInspect;
use crate::output::Output;

pub(super) fn run(args: &DeltaInspect, output: &mut Output) -> anyhow::Result<ExitCode> {
    let described = Described::read(&args.delta)?;
    if args.json {
        output.json(&described.json())?;
    } else {
        output.text(&words(&described))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn words(described: &Described) -> String {
    let header = &described.header;
    let mut text = format!("size      {} bytes\nkind      {}\n", described.size, header.kind.as_str());
    if let Some(recipe) = &header.recipe {
        let _ = writeln!(text, "recipe    {recipe}");
    }
    let _ = writeln!(text, "target    {}, {} bytes", header.target.digest, header.target.size);
    for base in &header.bases {
        let (blob, form) = (base.blob, base.form.as_str());
        let _ = writeln!(text, "base      {}, {} bytes, {form}", blob.digest, blob.size);
    }
    let _ = writeln!(text, "content   {} bytes from {} bytes", header.new_len, header.old_len);
    let _ = writeln!(text, "sections  header       {:>12} bytes", described.header_size);
    for (name, size) in header.sections.by_name() {
        let _ = writeln!(text, "          {name:<12} {size:>12} bytes");
    }
    text
}
