//! Deltas between uncompressed contents.

use std::io::{self, Read, Seek, Write};
use std::ops::Range;

use super::{Contents, Made, Making, Stage, Staged};
use crate::content::{Content, Part, Seekable};
use crate::error::Error;
use crate::format::{Form, Kind};
use crate::matching::Segment;
use crate::open::guess;
use crate::outline::{self, Opened, Outline};
use crate::recipe::Recipe;
use crate::tables::Tables;
use crate::unfold::{self, Packed, Unfolded, Unfolder};
use crate::{stream, tar};

impl<B, T, F, S> Making<'_, B, T, S>
where
    B: Read + Seek + Send,
    T: Read + Seek,
    F: Read + Write + Seek + Send,
    S: FnMut() -> io::Result<F>,
{
    /// Makes a delta of the kind `plain`; [`Error::Unrepresentable`] when it is not known how the target was compressed.
    pub(super) fn plain(&mut self) -> Result<Made, Error> {
        (self.at)(Stage::Open);
        let form = guess_form(self.target)?;
        let (target, opened, new) = self.open_target(with_outline(form))?;
        let mut new = new.into_content()?;
        (self.at)(Stage::Recipe);
        let is_single = form == Form::AsIs || opened.outline.is_single();
        let (recipes, outline) = match is_single {
            true => (self.recipes(form, &mut new, target.size)?, None),
            false => self.members(opened, &mut new)?,
        };
        (self.at)(Stage::Open);
        let mut forms = self.bases.iter_mut().map(guess_form).collect::<Result<Vec<_>, _>>()?;
        if outline.is_some() {
            forms.iter_mut().for_each(|form| *form = with_outline(*form));
        }
        let (bases, old, outlines) = self.open_bases(&forms)?;
        let outline = outline.map(|outline| outline::write(outlines.bytes(), &outline)).transpose()?;
        let ranges = old.ranges().to_vec();
        let mut old = old.into_content()?;
        let segments = self.segments();
        let new_layout = tar::walk(&mut new, segments / 2)?;
        let old_layout = layout(&mut old, &ranges, segments - new_layout.len())?;
        let mut contents = Contents {
            tables: Tables {
                unfold: vec![Vec::new(); bases.len()],
                outline: outline.unwrap_or_default(),
                ..Tables::default()
            },
            bases,
            target,
            old,
            old_layout,
            new,
            new_layout,
            recipes,
        };
        (self.at)(Stage::Unfold);
        self.unfold(&mut contents, &ranges)?;
        self.write(Kind::Plain, contents)
    }

    /// How the target may have been compressed, the most likely first.
    fn recipes(&mut self, form: Form, content: &mut impl Content, blob: u64) -> Result<Vec<Recipe>, Error> {
        let mut found = match form {
            Form::AsIs => vec![Recipe::stored()],
            Form::Gzip => Recipe::of_gzip(self.target, content)?,
            Form::Zstd => Recipe::of_zstd(self.target, content)?,
            Form::Tokens | Form::GzipMembers | Form::ZstdFrames => Vec::new(),
        };
        let memory = self.encoder_memory();
        found.retain(|recipe| recipe.memory(content.len(), blob) <= memory);
        if found.is_empty() {
            return Err(UNKNOWN);
        }
        Ok(found)
    }

    /// How the members of the target were compressed, and what else is in it.
    fn members(
        &mut self,
        opened: Opened,
        content: &mut impl Content,
    ) -> Result<(Vec<Recipe>, Option<Outline>), Error> {
        let (recipe, outline) = Recipe::of_members(self.target, opened, content)?.ok_or(UNKNOWN)?;
        Ok((vec![recipe], Some(outline)))
    }

    /// Opens the files inside that are compressed and have changed.
    fn unfold(&mut self, contents: &mut Contents<F>, ranges: &[Range<u64>]) -> Result<(), Error> {
        let (old, new) = (&mut contents.old, &mut contents.new);
        let found = unfold::find(old, &contents.old_layout, ranges, new, &contents.new_layout, self.memory)?;
        let Some(Unfolded { unfold, old: old_layout, packed, folds, new: new_layout }) = found else {
            return Ok(());
        };
        contents.old = self.unfolded(old, ranges, &unfold)?;
        let whole = 0..new.len();
        contents.new = self.unfolded(new, &[whole], &[packed])?;
        contents.tables.unfold = unfold;
        contents.tables.folds = folds;
        contents.old_layout = old_layout;
        contents.new_layout = new_layout;
        Ok(())
    }

    /// The content with these stretches of each range inflated.
    fn unfolded(
        &mut self,
        content: &mut Seekable<F>,
        ranges: &[Range<u64>],
        packed: &[Vec<Packed>],
    ) -> Result<Seekable<F>, Error> {
        let mut staged = Staged::new((self.scratch)()?);
        for (range, packed) in ranges.iter().zip(packed) {
            staged.append_with(|file| {
                let mut unfolder = Unfolder::new(file, packed);
                stream::copy(&mut Part::new(&mut *content, range.clone()), &mut unfolder)?;
                unfolder.finish().map(drop)
            })?;
        }
        staged.into_content()
    }
}

/// The layout of several archives, one behind the other. They share so many segments; each has one at least.
fn layout(content: &mut impl Content, ranges: &[Range<u64>], most: usize) -> Result<Vec<Segment>, Error> {
    let mut layout = Vec::new();
    for range in ranges {
        let walked =
            tar::walk(&mut Part::new(&mut *content, range.clone()), most.saturating_sub(layout.len()))?;
        layout.extend(
            walked.into_iter().map(|segment| Segment { start: segment.start + range.start, ..segment }),
        );
    }
    Ok(layout)
}

const UNKNOWN: Error = Error::Unrepresentable("it was compressed by no known encoder");

/// The form that opens the same, and has an outline.
fn with_outline(form: Form) -> Form {
    match form {
        Form::Gzip => Form::GzipMembers,
        Form::Zstd => Form::ZstdFrames,
        other => other,
    }
}

/// How a blob seems to be compressed.
fn guess_form(blob: &mut (impl Read + Seek)) -> Result<Form, Error> {
    blob.rewind()?;
    let mut head = Vec::new();
    blob.by_ref().take(8).read_to_end(&mut head)?;
    Ok(guess(&head))
}
