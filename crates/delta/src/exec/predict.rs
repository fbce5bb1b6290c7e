//! Expecting addresses where they have moved to.
//!
//! What is expected of a byte depends on where it is, in both contents, on the match that it is in, and on nothing
//! else: it does not matter in which pieces it is read. Fields are looked for in blocks of fixed length, and are
//! rewritten only where all of a field is inside one match.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::elf;
use super::field::{Base, Field, Shifts};
use super::file::{BLOCK, File};
use super::map::{Layout, Map};
use super::model::Model;
use super::rule::Rule;
use super::x86::MAX_INSTRUCTION;
use crate::code::Reference;
use crate::content::Content;
use crate::matching::Match;

/// How many blocks are remembered.
const BLOCKS: usize = 256;

/// A pair of executables in which addresses are predicted.
#[derive(Debug)]
pub(super) struct Pair {
    /// The old one.
    pub(super) file: File,
    map: Map,
    layout: Layout,
    /// Where the new one is.
    pub(super) new: Range<u64>,
    /// The fields of blocks of the old one, by the place of the block.
    blocks: Vec<(u64, Vec<Field>)>,
}

impl Pair {
    /// Looks into the old file of a model; `None` if the model is not about that file. `matches` are all matches.
    pub(super) fn open(
        content: &mut impl Content,
        model: &Model,
        matches: &[Match],
    ) -> io::Result<Option<Self>> {
        let Some(elf) = elf::parse(content, model.old, u64::MAX)? else { return Ok(None) };
        let Some(layout) = model.layout(&elf) else { return Ok(None) };
        let first = matches.partition_point(|found| found.new_end() <= model.new.start);
        let last = matches.partition_point(|found| found.new < model.new.end);
        let matches = matches.get(first..last).unwrap_or_default();
        let map = Map::new(&elf, &layout, model.old, model.new.clone(), matches);
        let sections = elf.sections.iter().enumerate();
        let rules = sections.map(|(index, section)| {
            let own = model.rules.iter().find(|(own, _)| usize::from(*own) == index);
            own.map_or_else(|| Rule::expected(&elf, section), |(_, rule)| *rule)
        });
        let rules: Vec<Rule> = rules.collect();
        let file = File::new(elf, model.old);
        let mut pair = Self { file, map, layout, new: model.new.clone(), blocks: Vec::new() };
        pair.set_rules(content, &rules)?;
        Ok(Some(pair))
    }

    /// Looks for fields by these rules from now on, one for each section.
    pub(super) fn set_rules(&mut self, content: &mut impl Content, rules: &[Rule]) -> io::Result<()> {
        self.blocks = vec![(u64::MAX, Vec::new()); BLOCKS];
        self.file.set_rules(content, rules)
    }

    /// The old file with addresses that mean the same as in the new one.
    pub(super) fn normalized(&mut self, content: &mut impl Content) -> io::Result<Vec<u8>> {
        let (map, len) = (&self.map, self.file.elf().len);
        self.file.normalized(content, len, |target| target.wrapping_add(map.shift(target) as u64))
    }

    /// Rewrites the fields in what was read at `from..to` of the old content, all of it in one match.
    pub(super) fn rewrite(
        &mut self,
        content: &mut impl Content,
        found: &Match,
        old: Range<u64>,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        let diagonal = found.new.wrapping_sub(found.old);
        let inside = found.old + self.new.start.saturating_sub(found.new)
            ..found.old_end().saturating_sub(found.new_end().saturating_sub(self.new.end));
        let first = self.file.ruled.partition_point(|ruled| ruled.range.end <= old.start);
        for index in first..self.file.ruled.len() {
            let section = self.file.ruled[index].range.clone();
            if section.start >= old.end {
                break;
            }
            let bounds = inside.start.max(section.start)..inside.end.min(section.end);
            let wanted = old.start.max(bounds.start)..old.end.min(bounds.end);
            if wanted.is_empty() {
                continue;
            }
            // A field may begin in the block before.
            let mut at = wanted.start.saturating_sub(MAX_INSTRUCTION as u64).max(section.start);
            at -= (at - section.start) % BLOCK;
            while at < wanted.end {
                let slot = self.block(content, index, at)?;
                self.rewrite_block(slot, diagonal, &bounds, &old, buffer);
                at += BLOCK;
            }
        }
        Ok(())
    }

    /// Rewrites the fields of one block.
    fn rewrite_block(
        &self,
        slot: usize,
        diagonal: u64,
        bounds: &Range<u64>,
        old: &Range<u64>,
        buffer: &mut [u8],
    ) {
        let fields = &self.blocks[slot].1;
        let from = old.start.saturating_sub(self.file.start + 8);
        let first = fields.partition_point(|field| u64::from(field.at) < from);
        for field in &fields[first..] {
            let start = self.file.start + u64::from(field.at);
            let end = start + field.form.len() as u64;
            if start >= old.end {
                break;
            }
            if start < bounds.start || end > bounds.end || end <= old.start {
                continue;
            }
            let Some(moved) = self.moved(field, start.wrapping_add(diagonal)) else { continue };
            for (at, byte) in (start..end).zip(moved) {
                if old.contains(&at) {
                    buffer[(at - old.start) as usize] = byte;
                }
            }
        }
    }

    /// What a field holds at a place in the new content.
    fn moved(&self, field: &Field, new: u64) -> Option<[u8; 8]> {
        let target = self.map.shift(field.target);
        let (base, here) = match field.base {
            Base::Zero => (0, 0),
            Base::At(address) => (self.map.shift(address), 0),
            Base::Here => {
                let load = self.file.elf().loads.iter();
                let mut load = load.filter(|load| load.in_file().contains(&field.at.into()));
                let load = load.next()?;
                let was = load.address + (u64::from(field.at) - load.offset);
                (self.layout.address(new.checked_sub(self.new.start)?)?.wrapping_sub(was) as i64, was)
            }
        };
        field.moved(Shifts { target, base, here })
    }

    /// Makes sure that the fields of a block are known, and says in which slot.
    fn block(&mut self, content: &mut impl Content, index: usize, at: u64) -> io::Result<usize> {
        let slot = (at / BLOCK) as usize % BLOCKS;
        let (place, fields) = &mut self.blocks[slot];
        if *place != at {
            *place = u64::MAX;
            self.file.fields(content, index, at, fields)?;
            *place = at;
        }
        Ok(slot)
    }
}

/// Expects the old bytes, with addresses in executables moved to where the matches say that they are now.
#[derive(Debug)]
pub(crate) struct Predicted<C> {
    content: C,
    matches: Arc<[Match]>,
    models: Vec<Model>,
    /// Which model is open, and what it gave.
    open: Option<(usize, Option<Box<Pair>>)>,
}

impl<C: Content> Predicted<C> {
    /// Predicts by models, which are in the order of the new content, and by all matches of the delta.
    pub(crate) fn new(content: C, matches: Arc<[Match]>, models: Vec<Model>) -> Self {
        Self { content, matches, models, open: None }
    }

    /// Rewrites what was read for the part `new..end` of the new content.
    fn predict(&mut self, model: usize, new: u64, old: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != model) {
            let pair = Pair::open(&mut self.content, &self.models[model], &self.matches)?;
            self.open = Some((model, pair.map(Box::new)));
        }
        let Some((_, Some(pair))) = &mut self.open else { return Ok(()) };
        let end = new + buffer.len() as u64;
        let first = self.matches.partition_point(|found| found.new_end() <= new);
        for found in &self.matches[first..] {
            if found.new >= end {
                break;
            }
            if found.new.wrapping_sub(found.old) != new.wrapping_sub(old) {
                continue;
            }
            let (from, to) = (found.new.max(new), found.new_end().min(end));
            let part = &mut buffer[(from - new) as usize..(to - new) as usize];
            let range = old + (from - new)..old + (to - new);
            pair.rewrite(&mut self.content, found, range, part)?;
        }
        Ok(())
    }
}

impl<C: Content> Reference for Predicted<C> {
    fn old_len(&self) -> u64 {
        self.content.len()
    }

    fn read(&mut self, new: u64, old: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.content.read_at(old, buffer)?;
        let end = new.saturating_add(buffer.len() as u64);
        let mut next = self.models.partition_point(|model| model.new.end <= new);
        while let Some(model) = self.models.get(next).filter(|model| model.new.start < end) {
            let (from, to) = (model.new.start.max(new), model.new.end.min(end));
            let part = &mut buffer[(from - new) as usize..(to - new) as usize];
            self.predict(next, from, old + (from - new), part)?;
            next += 1;
        }
        Ok(())
    }
}
