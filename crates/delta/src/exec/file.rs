//! One executable in its content, and the fields of its sections.

use std::io;
use std::ops::Range;

use super::elf::Elf;
use super::field::Field;
use super::go::Tables;
use super::rule::{BEFORE, BEHIND, Finder, Rule, Window};
use crate::content::Content;

/// How many bytes are searched for fields at once.
pub(super) const BLOCK: u64 = 1 << 10;

/// A section that has fields.
#[derive(Clone, Debug)]
pub(super) struct Ruled {
    /// Its index.
    pub(super) section: usize,
    pub(super) rule: Rule,
    /// Where it is in the content.
    pub(super) range: Range<u64>,
}

/// An executable, and by which rules it is looked into.
#[derive(Debug)]
pub(super) struct File {
    finder: Finder,
    /// Where it is in its content.
    pub(super) start: u64,
    /// In the order of the content, not overlapping.
    pub(super) ruled: Vec<Ruled>,
    /// The sections whose addresses were looked for in the code, which takes as long as everything else.
    taken: Vec<Range<u64>>,
    window: Vec<u8>,
}

impl File {
    /// The file that begins at `start`; there are no rules yet.
    pub(super) fn new(elf: Elf, start: u64) -> Self {
        Self { finder: Finder::new(elf), start, ruled: Vec::new(), taken: Vec::new(), window: Vec::new() }
    }

    pub(super) fn elf(&self) -> &Elf {
        &self.finder.elf
    }

    /// Where the sections are in the content.
    pub(super) fn range(&self, section: usize) -> Range<u64> {
        let range = self.finder.elf.sections.get(section).map_or(0..0, |section| section.in_file());
        self.start + range.start..self.start + range.end
    }

    /// Looks for fields by these rules from now on, one for each section.
    pub(super) fn set_rules(&mut self, content: &mut impl Content, rules: &[Rule]) -> io::Result<()> {
        self.ruled.clear();
        for (section, rule) in rules.iter().enumerate() {
            let range = self.range(section);
            if *rule != Rule::Nothing && !range.is_empty() {
                self.ruled.push(Ruled { section, rule: *rule, range });
            }
        }
        self.ruled.sort_by_key(|ruled| (ruled.range.start, ruled.section));
        let mut end = 0;
        self.ruled.retain(|ruled| {
            let apart = ruled.range.start >= end;
            end = end.max(ruled.range.end);
            apart
        });
        let go = |ruled: &Ruled| matches!(ruled.rule, Rule::GoFunctions | Rule::GoData);
        if self.finder.go.is_none() && self.ruled.iter().any(go) {
            self.finder.go = Tables::find(content, self.start, &self.finder.elf)?;
        }
        let tables = self.ruled.iter().filter(|ruled| ruled.rule == Rule::Jumps);
        let tables: Vec<_> = tables.map(|ruled| self.elf().sections[ruled.section].in_memory()).collect();
        if tables.is_empty() || tables == self.taken {
            return Ok(());
        }
        self.taken.clear();
        self.take(content, &tables)?;
        self.taken = tables;
        Ok(())
    }

    /// Finds the addresses that the code takes.
    fn take(&mut self, content: &mut impl Content, of: &[Range<u64>]) -> io::Result<()> {
        self.finder.forget();
        for index in 0..self.elf().sections.len() {
            let section = self.elf().sections[index].clone();
            if !(section.executable && section.mapped) {
                continue;
            }
            let range = self.range(index);
            let mut at = range.start;
            while at < range.end {
                let until = (at + BLOCK).min(range.end);
                let window = window(content, &mut self.window, self.start, &range, at..until)?;
                self.finder.take(&section, window, of);
                at = until;
            }
        }
        self.finder.tidy();
        Ok(())
    }

    /// The fields of the block that begins at `at` of the content, in the section of a rule; in order.
    pub(super) fn fields(
        &mut self,
        content: &mut impl Content,
        index: usize,
        at: u64,
        fields: &mut Vec<Field>,
    ) -> io::Result<()> {
        let ruled = &self.ruled[index];
        let until = (at + BLOCK).min(ruled.range.end);
        let window = window(content, &mut self.window, self.start, &ruled.range, at..until)?;
        fields.clear();
        self.finder.fields(&self.finder.elf.sections[ruled.section], ruled.rule, window, fields);
        Ok(())
    }

    /// The file with the value of each field replaced by where its target is in the end, as far as the field can hold
    /// that: equal fields refer to the same place, wherever they are themselves.
    pub(super) fn normalized(
        &mut self,
        content: &mut impl Content,
        len: u64,
        target: impl Fn(u64) -> u64,
    ) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        content.read_at(self.start, &mut bytes)?;
        let mut fields = Vec::new();
        for index in 0..self.ruled.len() {
            let range = self.ruled[index].range.clone();
            for at in range.step_by(BLOCK as usize) {
                self.fields(content, index, at, &mut fields)?;
                for field in &fields {
                    let at = field.at as usize;
                    let value = field.absolute(target(field.target));
                    if let Some(place) = bytes.get_mut(at..at + field.form.len()) {
                        place.copy_from_slice(&value[..field.form.len()]);
                    }
                }
            }
        }
        Ok(bytes)
    }
}

/// Reads a block and some of the section around it.
fn window<'a>(
    content: &mut impl Content,
    bytes: &'a mut Vec<u8>,
    file: u64,
    section: &Range<u64>,
    block: Range<u64>,
) -> io::Result<Window<'a>> {
    let start = block.start.saturating_sub(BEFORE as u64).max(section.start);
    let end = block.end.saturating_add(BEHIND as u64).min(section.end);
    bytes.resize((end - start) as usize, 0);
    content.read_at(start, bytes)?;
    let (from, to) = ((block.start - start) as usize, (block.end - start) as usize);
    Ok(Window { at: start - file, bytes, from, to })
}
