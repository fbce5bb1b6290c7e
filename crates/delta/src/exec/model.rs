//! What a delta says about one executable: the section `executables`.

use std::io::Read;
use std::ops::Range;

use super::elf::{Elf, Load};
use super::map::Layout;
use super::rule::Rule;
use crate::error::Error;
use crate::matching::Match;

/// How many executables may be looked into.
pub(super) const MAX_MODELS: u64 = 1 << 16;
/// The most entries in each list of a model.
const MAX_LIST: u64 = 1 << 10;
/// The most entries in all lists of all models.
pub(super) const MAX_ENTRIES: u64 = 1 << 20;

/// How to predict the addresses of a new executable from an old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    /// Where the file is in the new content.
    pub(super) new: Range<u64>,
    /// Where its old version begins in the old content.
    pub(super) old: u64,
    /// For each load of the old file: how much further behind it is in the file than the load before would say, how
    /// much more its address grew than that, and by how much it is longer.
    pub(super) loads: Vec<[i64; 3]>,
    /// By how much each section of zeros of the old file moved more than the one before it.
    pub(super) zeros: Vec<i64>,
    /// The sections whose rule is not the expected one, and their rules.
    pub(super) rules: Vec<(u16, Rule)>,
}

impl Model {
    /// The layout of the new file, or `None` if this model is not about `old`.
    pub(super) fn layout(&self, old: &Elf) -> Option<Layout> {
        if old.loads.len() != self.loads.len() || super::map::zeros(old).count() != self.zeros.len() {
            return None;
        }
        let mut further = 0_i64;
        let limit = u64::from(u32::MAX);
        let loads = old.loads.iter().zip(&self.loads).map(|(old, [offset, address, len])| {
            further = further.wrapping_add(*offset);
            let offset = old.offset.wrapping_add(further as u64);
            let address = old.address.wrapping_add(further as u64).wrapping_add(*address as u64);
            let len = old.len.wrapping_add(*len as u64);
            let fits = offset <= limit && len <= limit && address.checked_add(limit).is_some();
            fits.then_some(Load { offset, address, len, memory: len })
        });
        let mut sum = 0_i64;
        let zeros = self.zeros.iter().map(|shift| {
            sum = sum.wrapping_add(*shift);
            sum
        });
        Some(Layout { loads: loads.collect::<Option<_>>()?, zeros: zeros.collect() })
    }

    /// How many entries its lists have.
    pub(super) fn entries(&self) -> u64 {
        (self.loads.len() + self.zeros.len() + self.rules.len()) as u64
    }

    /// Keeps a layout as it is written.
    pub(super) fn set_layout(&mut self, old: &Elf, layout: &Layout) {
        let mut further = 0_i64;
        let loads = old.loads.iter().zip(&layout.loads).map(|(old, new)| {
            let offset = new.offset.wrapping_sub(old.offset) as i64;
            let address = (new.address.wrapping_sub(old.address) as i64).wrapping_sub(offset);
            let len = new.len.wrapping_sub(old.len) as i64;
            [offset.wrapping_sub(std::mem::replace(&mut further, offset)), address, len]
        });
        self.loads = loads.collect();
        let mut before = 0_i64;
        let zeros = layout.zeros.iter();
        self.zeros = zeros.map(|shift| shift.wrapping_sub(std::mem::replace(&mut before, *shift))).collect();
    }
}

/// The first match that reaches behind `at` in the new content.
fn first(matches: &[Match], at: u64) -> usize {
    matches.partition_point(|found| found.new_end() <= at)
}

/// Appends models, which are in the order of the new content.
///
/// Positions are told by the first match of each file, because both ends know where that is.
pub(crate) fn write_models(models: &[Model], matches: &[Match], out: &mut Vec<u8>) {
    write(out, models.len() as u64);
    let mut before = 0;
    for model in models {
        let index = first(matches, model.new.start).min(matches.len().saturating_sub(1));
        let (new, old) = matches.get(index).map_or((0, 0), |found| (found.new, found.old));
        write(out, (index - before) as u64);
        before = index;
        let start = model.new.start.wrapping_sub(new);
        write_signed(out, start as i64);
        write(out, model.new.end - model.new.start);
        write_signed(out, model.old.wrapping_sub(old.wrapping_add(start)) as i64);
        write(out, model.loads.len() as u64);
        model.loads.iter().flatten().for_each(|number| write_signed(out, *number));
        write(out, model.zeros.len() as u64);
        model.zeros.iter().for_each(|number| write_signed(out, *number));
        write(out, model.rules.len() as u64);
        for (section, rule) in &model.rules {
            write(out, (*section).into());
            write(out, rule.code().into());
        }
    }
}

/// Reads models; the matches are those of the same delta.
///
/// Fails with [`Error::Format`] unless the models are in order and lie within the new content.
pub(crate) fn read_models(
    source: &mut impl Read,
    matches: &[Match],
    old_len: u64,
    new_len: u64,
) -> Result<Vec<Model>, Error> {
    const MALFORMED: Error = Error::Format("malformed executables");
    let count = read(source, MAX_MODELS)?;
    let mut models: Vec<Model> = Vec::new();
    let mut index = 0_u64;
    let mut left = MAX_ENTRIES;
    for _ in 0..count {
        index = index.saturating_add(read(source, u64::MAX)?);
        let found = usize::try_from(index).ok().and_then(|index| matches.get(index)).ok_or(MALFORMED)?;
        let distance = read_signed(source)? as u64;
        let start = found.new.wrapping_add(distance);
        let end = start.checked_add(read(source, u32::MAX.into())?).ok_or(MALFORMED)?;
        let old = found.old.wrapping_add(distance).wrapping_add(read_signed(source)? as u64);
        if end > new_len || old > old_len || models.last().is_some_and(|before| before.new.end > start) {
            return Err(MALFORMED);
        }
        let mut model =
            Model { new: start..end, old, loads: Vec::new(), zeros: Vec::new(), rules: Vec::new() };
        for _ in 0..read_len(source, &mut left)? {
            model.loads.push([read_signed(source)?, read_signed(source)?, read_signed(source)?]);
        }
        for _ in 0..read_len(source, &mut left)? {
            model.zeros.push(read_signed(source)?);
        }
        for _ in 0..read_len(source, &mut left)? {
            let section = read(source, u16::MAX.into())? as u16;
            let rule = Rule::from_code(read(source, u8::MAX.into())? as u8);
            model.rules.push((section, rule.ok_or(MALFORMED)?));
        }
        models.push(model);
    }
    Ok(models)
}

/// Reads the length of a list, and takes it off what is left for all.
fn read_len(source: &mut impl Read, left: &mut u64) -> Result<u64, Error> {
    let len = read(source, MAX_LIST)?;
    *left = left
        .checked_sub(len)
        .ok_or(Error::Limit { what: "what is known of executables", limit: MAX_ENTRIES })?;
    Ok(len)
}

/// Writes a number: seven bits a byte, the lowest first, the highest bit set in all but the last.
fn write(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Writes a number that may be negative; small ones of both signs are short.
fn write_signed(out: &mut Vec<u8>, number: i64) {
    write(out, (number << 1 ^ number >> 63) as u64);
}

fn read(source: &mut impl Read, most: u64) -> Result<u64, Error> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        match source.read_exact(&mut byte) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(Error::Format("executables end early"));
            }
            read => read?,
        }
        let bits = u64::from(byte[0] & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        number |= bits << shift;
        if byte[0] < 0x80 && number <= most {
            return Ok(number);
        }
        if byte[0] < 0x80 {
            break;
        }
    }
    Err(Error::Format("a number about executables is too large"))
}

fn read_signed(source: &mut impl Read) -> Result<i64, Error> {
    let number = read(source, u64::MAX)?;
    Ok((number >> 1) as i64 ^ -((number & 1) as i64))
}
