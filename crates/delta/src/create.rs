//! From bases and a target to a delta.

mod plain;
mod staged;

use std::io::{self, Read, Seek, Write};
use std::sync::Arc;

use deltaport_oci::Algorithm;

use self::staged::Staged;
use crate::apply::{Limits, MAX_ENCODER_MEMORY, apply};
use crate::code::{self, Effort};
use crate::content::{Content as _, Seekable};
use crate::error::Error;
use crate::exec::{self, Predicted};
use crate::format::{Base, Blob, Form, Header, Kind, MAX_BASES};
use crate::matching::{self, Segment};
use crate::outline::{Opened, Outlines};
use crate::recipe::Recipe;
use crate::stream::{Scratch, Source};
use crate::tables::Tables;

/// How much work goes into a delta.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// For a delta that somebody waits for.
    Fast,
    /// For one that is made once and sent often.
    #[default]
    Best,
}

/// How a delta is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The hash by which the delta names its bases and its target: the one that their manifests use. Default: SHA-256.
    pub algorithm: Algorithm,
    /// How much work goes into it. Default: [`Profile::Best`].
    pub profile: Profile,
    /// The most memory that is taken, in bytes; less than [`MIN_MEMORY`] counts as that. With little memory the search
    /// is a coarser one, and a delta that does not fit into it is not worth it: into a third of what is above 160 MiB.
    /// Default: 1 GiB.
    pub memory: u64,
    /// How many threads may work at the same time. They do not change the delta. Default: 1.
    pub threads: usize,
    /// The largest delta that is worth it, in percent of the target's size. Default: 70.
    pub worth_percent: u32,
}

/// What little memory is enough to make a delta, in bytes.
pub const MIN_MEMORY: u64 = 256 << 20;

impl Default for Options {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::Sha256,
            profile: Profile::Best,
            memory: 1 << 30,
            threads: 1,
            worth_percent: 70,
        }
    }
}

/// A delta that was proven to give its target back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delta {
    /// What the delta says about itself.
    pub header: Header,
    /// The whole delta.
    pub bytes: Vec<u8>,
}

/// What is being done, for whoever shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Bases and target are opened.
    Open,
    /// The encoder of the target is looked for.
    Recipe,
    /// Compressed files inside are opened.
    Unfold,
    /// What is alike is looked for.
    Match,
    /// The delta is written.
    Code,
    /// The delta is applied, and the result compared with the target.
    Prove,
}

/// Makes a delta from `bases` to `target`, and proves it by applying it.
///
/// The kinds are tried in the order in which they give small deltas: `plain` for what can be compressed again, `token`
/// for other gzip, `raw` for everything else. All inputs are read from their starts, several times. `scratch` opens an
/// empty file whenever one is needed; they take bases and target uncompressed, at most twice. `at` hears of every
/// stage. The same inputs and options give the same bytes for as long as this crate and the zstd library stay the same.
///
/// Fails with
/// - [`Error::NotWorthIt`] when every delta is larger than `options` allow,
/// - [`Error::BaseMismatch`] when `bases` are none or more than [`MAX_BASES`], or change meanwhile,
/// - [`Error::Io`] when `bases`, `target` or `scratch` do.
pub fn create<B, T, F>(
    bases: &mut [B],
    target: &mut T,
    mut scratch: impl FnMut() -> io::Result<F>,
    options: &Options,
    mut at: impl FnMut(Stage),
) -> Result<Delta, Error>
where
    B: Read + Seek + Send,
    T: Read + Seek + Send,
    F: Read + Write + Seek + Send + 'static,
{
    // The types of the caller end here, so that what follows is compiled once, and with this crate.
    let mut bases: Vec<&mut dyn Source> = bases.iter_mut().map(|base| base as _).collect();
    let mut scratch = || Ok(Box::new(scratch()?) as Box<dyn Scratch>);
    smallest(&mut bases, target, &mut scratch, options, &mut at)
}

/// Makes the delta of the first kind that is possible and worth it.
fn smallest(
    bases: &mut [&mut dyn Source],
    mut target: &mut dyn Source,
    scratch: &mut dyn FnMut() -> io::Result<Box<dyn Scratch>>,
    options: &Options,
    at: &mut dyn FnMut(Stage),
) -> Result<Delta, Error> {
    if bases.is_empty() || bases.len() > MAX_BASES {
        return Err(Error::BaseMismatch("a delta has at least one base and at most 16"));
    }
    let size = target.seek(io::SeekFrom::End(0))?;
    let memory = options.memory.max(MIN_MEMORY);
    let allowed = (size.saturating_mul(options.worth_percent.into()) / 100).min((memory - CODING) / COPIES);
    let mut job = Making { bases, target: &mut target, scratch, options, memory, allowed, at };
    let mut worth = Err(Error::NotWorthIt { allowed });
    for kind in [Kind::Plain, Kind::Token, Kind::Raw] {
        let made = match kind {
            Kind::Plain => job.plain(),
            Kind::Token => job.same_form(kind, Form::Tokens),
            Kind::Raw => job.same_form(kind, Form::AsIs),
        };
        let made = match made {
            Ok(made) => made,
            Err(Error::Unrepresentable(_)) => continue,
            // A kind that saves too little is the best that there is: those behind it give larger deltas.
            Err(error) => return Err(error),
        };
        if made.len() > allowed {
            break;
        }
        match job.prove(made) {
            // Every recipe was right for the first blocks only, or takes too much memory.
            Err(Error::OutputMismatch(_) | Error::Limit { .. }) if kind == Kind::Plain => continue,
            proven => worth = proven,
        }
        break;
    }
    worth
}

/// A delta in the making.
struct Making<'a, B, T, S> {
    bases: &'a mut [B],
    target: &'a mut T,
    scratch: S,
    options: &'a Options,
    /// The most memory that is taken, in bytes.
    memory: u64,
    /// How large the delta may be, in bytes.
    allowed: u64,
    at: &'a mut dyn FnMut(Stage),
}

/// Two contents and what is known about them.
struct Contents<F> {
    bases: Vec<Base>,
    target: Blob,
    old: Seekable<F>,
    old_layout: Vec<Segment>,
    new: Seekable<F>,
    new_layout: Vec<Segment>,
    /// How the target may have been compressed.
    recipes: Vec<Recipe>,
    tables: Tables,
}

/// A delta that is not proven yet.
struct Made {
    header: Header,
    payload: Vec<u8>,
    /// Other recipes that may be the right one.
    others: Vec<Recipe>,
}

impl Made {
    /// How long the delta is.
    fn len(&self) -> u64 {
        (self.header.to_bytes().len() + self.payload.len()) as u64
    }

    /// The delta. It may be a large part of the memory, so there are never two of it.
    fn into_delta(self) -> Delta {
        let header = self.header.to_bytes();
        let mut bytes = self.payload;
        bytes.reserve_exact(header.len());
        bytes.splice(0..0, header);
        Delta { header: self.header, bytes }
    }
}

impl<B, T, F, S> Making<'_, B, T, S>
where
    B: Read + Seek + Send,
    T: Read + Seek,
    F: Read + Write + Seek + Send,
    S: FnMut() -> io::Result<F>,
{
    /// Opens every base in its form, one behind the other.
    fn open_bases(&mut self, forms: &[Form]) -> Result<(Vec<Base>, Staged<F>, Outlines), Error> {
        let mut outlines = Outlines::default();
        let mut old = Staged::new((self.scratch)()?);
        let mut opened = Vec::with_capacity(forms.len());
        for (base, form) in self.bases.iter_mut().zip(forms) {
            base.rewind()?;
            let (blob, found) = old.append(base, *form, self.options.algorithm)?;
            opened.push(Base { blob, form: *form });
            outlines.push(&found.outline);
        }
        Ok((opened, old, outlines))
    }

    fn open_target(&mut self, form: Form) -> Result<(Blob, Opened, Staged<F>), Error> {
        let mut new = Staged::new((self.scratch)()?);
        self.target.rewind()?;
        let (blob, opened) = new.append(&mut *self.target, form, self.options.algorithm)?;
        Ok((blob, opened, new))
    }

    /// Makes a delta of a kind for which all blobs are opened in the same way.
    fn same_form(&mut self, kind: Kind, form: Form) -> Result<Made, Error> {
        (self.at)(Stage::Open);
        let (target, _, new) = self.open_target(form)?;
        let (bases, old, _) = self.open_bases(&vec![form; self.bases.len()])?;
        let contents = Contents {
            tables: Tables { unfold: vec![Vec::new(); bases.len()], ..Tables::default() },
            bases,
            target,
            old_layout: Segment::whole(old.len()),
            old: old.into_content()?,
            new_layout: Segment::whole(new.len()),
            new: new.into_content()?,
            recipes: Vec::new(),
        };
        self.write(kind, contents)
    }

    /// Looks for matches and writes the delta.
    fn write(&mut self, kind: Kind, contents: Contents<F>) -> Result<Made, Error> {
        let Contents { bases, target, mut old, old_layout, mut new, new_layout, recipes, mut tables } =
            contents;
        (self.at)(Stage::Match);
        let options = self.matching((old_layout.len() + new_layout.len()) as u64);
        let mut matches = matching::find(&mut old, &old_layout, &mut new, &new_layout, options)?;
        if kind == Kind::Plain {
            tables.models = exec::plan(&mut matches, &mut old, &old_layout, &mut new, &new_layout, options)?;
        }
        drop((old_layout, new_layout));
        tables.matches = matches.into();
        (self.at)(Stage::Code);
        let (old_len, new_len) = (old.len(), new.len());
        let mut payload = Vec::new();
        let mut sections = tables.write(old_len, new_len, &mut payload)?;
        let before = payload.len();
        let effort = match self.options.profile {
            Profile::Fast => Effort::Fast,
            Profile::Best => Effort::Best,
        };
        let old = Predicted::new(old, Arc::clone(&tables.matches), tables.models);
        code::encode_content_within(self.allowed, &tables.matches, old, new, effort, &mut payload)?;
        sections.data = (payload.len() - before) as u64;
        let mut recipes = recipes.into_iter();
        let recipe = recipes.next();
        let header = Header { kind, bases, target, old_len, new_len, recipe, sections };
        Ok(Made { header, payload, others: recipes.collect() })
    }

    /// What looking for matches may cost with so many segments.
    fn matching(&self, segments: u64) -> matching::Options {
        matching::Options {
            profile: match self.options.profile {
                Profile::Fast => matching::Profile::Fast,
                Profile::Best => matching::Profile::Best,
            },
            memory: (self.memory - RESERVED).saturating_sub(segments * SEGMENT),
            threads: self.options.threads,
        }
    }

    /// How much memory an encoder may take, in bytes: as much as when it is applied, and no more than is there beside the
    /// delta and what makes content of it.
    fn encoder_memory(&self) -> u64 {
        MAX_ENCODER_MEMORY.min(self.memory - 2 * self.allowed - APPLYING)
    }

    /// How many segments both layouts may have.
    fn segments(&self) -> usize {
        (self.memory / SEGMENTS_SHARE / SEGMENT) as usize
    }

    /// Applies a delta, so that nothing leaves this crate which does not give its target back. Tries every recipe.
    fn prove(&mut self, mut made: Made) -> Result<Delta, Error> {
        (self.at)(Stage::Prove);
        loop {
            match (self.apply(&made), made.others.is_empty()) {
                (Ok(()), _) => return Ok(made.into_delta()),
                (Err(Error::OutputMismatch(_)), false) => made.header.recipe = Some(made.others.remove(0)),
                (Err(error), _) => return Err(error),
            }
        }
    }

    fn apply(&mut self, made: &Made) -> Result<(), Error> {
        for base in &mut *self.bases {
            base.rewind()?;
        }
        let limits =
            Limits { target_size: made.header.target.size, scratch: u64::MAX, threads: self.options.threads };
        let header = made.header.to_bytes();
        let delta = header.chain(&made.payload[..]);
        apply(self.bases, delta, io::sink(), (self.scratch)()?, &limits)?;
        Ok(())
    }
}

/// What is kept of the memory for matches and buffers.
const RESERVED: u64 = 96 << 20;
/// What a segment takes, in bytes: itself, its name, and what is known of it while files are paired.
const SEGMENT: u64 = 192;
/// The part of the memory that all segments may take, as a divisor.
const SEGMENTS_SHARE: u64 = 4;
/// What is kept of the memory for what codes or applies a delta, in bytes.
const CODING: u64 = 160 << 20;
/// What of that applying takes beside the encoder, in bytes.
const APPLYING: u64 = 64 << 20;
/// How often the delta is in memory: when it grows, it moves to where there is room for two.
const COPIES: u64 = 3;
