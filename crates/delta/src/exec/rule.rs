//! Which fields of a section hold addresses: rules, one for each section.

use std::ops::Range;

use super::arm;
use super::elf::{Elf, Kind, Machine, Section, u32_at, u64_at};
use super::field::{Base, Field, Form};
use super::go;
use super::x86::{self, Operand};

/// What holds addresses in a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rule {
    /// Nothing.
    Nothing,
    /// Operands of instructions.
    Code,
    /// Aligned words of eight bytes, by a mask over groups of three of them.
    Words(u8),
    /// Aligned words of four bytes that count from themselves.
    FromHere,
    /// Aligned words of four bytes that count from the section's first byte.
    FromStart,
    /// Aligned words of four bytes that count from the first byte of the code.
    FromCode,
    /// Tables of words of four bytes that count from the table's first byte, whose address is taken in the code.
    Jumps,
    /// The table of functions of a Go program.
    GoFunctions,
    /// Types and other data of a Go program.
    GoData,
    /// Records of `.eh_frame`: where a function is, and how far before it is what it has in common with others.
    Frames,
}

/// All rules, in the order of their codes.
const RULES: [Rule; 12] = [
    Rule::Nothing,
    Rule::Code,
    Rule::Words(0b111),
    Rule::Words(0b101),
    Rule::Words(0b010),
    Rule::FromHere,
    Rule::FromStart,
    Rule::FromCode,
    Rule::Jumps,
    Rule::GoFunctions,
    Rule::GoData,
    Rule::Frames,
];

impl Rule {
    pub(super) fn code(self) -> u8 {
        RULES.iter().position(|rule| *rule == self).unwrap_or_default() as u8
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        RULES.get(usize::from(code)).copied()
    }

    /// What a section holds unless the delta says otherwise.
    pub(super) fn expected(elf: &Elf, section: &Section) -> Self {
        match section.kind {
            Kind::Zeros | Kind::Fixed => Self::Nothing,
            Kind::Symbols => Self::Words(0b010),
            Kind::Relocations => Self::Words(0b101),
            Kind::Relative | Kind::Dynamic => Self::Words(0b111),
            Kind::Bytes if !section.mapped => Self::Nothing,
            Kind::Bytes if section.executable && elf.machine == Machine::Other => Self::Nothing,
            Kind::Bytes if section.executable => Self::Code,
            Kind::Bytes if go::is_table(section) => Self::GoFunctions,
            Kind::Bytes if section.writable => Self::Words(0b111),
            Kind::Bytes if elf.sections.iter().any(go::is_table) => Self::GoData,
            Kind::Bytes => match &section.name[..] {
                b".eh_frame" => Self::Frames,
                b".eh_frame_hdr" => Self::FromStart,
                b".rodata" => Self::Jumps,
                _ => Self::Nothing,
            },
        }
    }

    /// What else may be in a section, for the trial.
    pub(super) fn candidates(section: &Section) -> &'static [Self] {
        match section.kind {
            Kind::Bytes if section.mapped && !section.executable => {
                &[Self::Words(0b111), Self::FromHere, Self::FromStart, Self::FromCode, Self::Jumps]
            }
            _ => &[],
        }
    }
}

/// What the rules need to know about a file, beside its sections.
#[derive(Clone, Debug)]
pub(super) struct Finder {
    pub(super) elf: Elf,
    /// Where tables may begin: the addresses that code takes, sorted.
    taken: Vec<u32>,
    /// The tables of a Go program.
    pub(super) go: Option<go::Tables>,
    /// The lowest address.
    base: u64,
    /// The address of the first code.
    code: u64,
}

/// How many addresses that code takes are kept.
const MAX_TAKEN: usize = 1 << 20;

/// How many bytes before and behind a block are needed to find its fields.
pub(super) const BEFORE: usize = 128;
pub(super) const BEHIND: usize = 32;

/// A stretch of a section, with some bytes around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'a> {
    /// Where the first byte is in the file.
    pub(super) at: u64,
    pub(super) bytes: &'a [u8],
    /// Which bytes may begin a field (or an instruction that has fields).
    pub(super) from: usize,
    pub(super) to: usize,
}

impl Finder {
    pub(super) fn new(elf: Elf) -> Self {
        let base = elf.loads.first().map_or(0, |load| load.address);
        let text = elf.sections.iter().find(|section| section.name == b".text");
        let code = text.or_else(|| elf.sections.iter().find(|section| section.executable));
        let code = code.map_or(base, |section| section.address);
        Self { elf, taken: Vec::new(), go: None, base, code }
    }

    /// Whether the program has this address.
    fn has(&self, address: u64) -> bool {
        // The address behind the last byte is one that is often meant.
        self.elf.loads.iter().any(|load| address >= load.address && address <= load.in_memory().end)
    }

    /// Whether there is code at this address.
    fn has_code(&self, address: u64) -> bool {
        let code = |section: &&Section| section.executable && section.mapped;
        self.elf.sections.iter().filter(code).any(|section| section.in_memory().contains(&address))
    }

    /// Appends the fields of a stretch of a section.
    pub(super) fn fields(&self, section: &Section, rule: Rule, window: Window<'_>, fields: &mut Vec<Field>) {
        let address = section.address.wrapping_add(window.at.wrapping_sub(section.offset));
        match rule {
            Rule::Nothing => {}
            Rule::Code if self.elf.machine == Machine::Arm => {
                let found = |field: Field| {
                    if self.has(field.target) {
                        fields.push(field);
                    }
                };
                arm::fields(window.bytes, window.from, window.to, window.at as u32, address, found);
            }
            Rule::Code => self.instructions(window, address, fields),
            Rule::Words(mask) => self.words(section, mask, window, fields),
            Rule::FromHere => self.halves(window, address, fields, |_| Some(Base::Here)),
            Rule::FromStart => self.halves(window, address, fields, |_| Some(Base::At(section.address))),
            Rule::FromCode => self.halves(window, address, fields, |_| Some(Base::At(self.code))),
            Rule::Jumps => self.jumps(window, address, fields),
            Rule::Frames => self.frames(section, window, address, fields),
            Rule::GoFunctions | Rule::GoData => {
                let before = fields.len();
                let keep = |field: Field| fields.extend(self.has(field.target).then_some(field));
                match &self.go {
                    Some(go) if rule == Rule::GoData => go.data(window, address, keep),
                    Some(go) => go.functions(window, address, keep),
                    None => {}
                }
                fields[before..].sort_by_key(|field| field.at);
            }
        }
    }

    fn instructions(&self, window: Window<'_>, address: u64, fields: &mut Vec<Field>) {
        let mut at = 0;
        while at < window.to {
            let (end, found) = x86::instruction(window.bytes, at);
            if let Some(found) = found.filter(|_| at >= window.from) {
                let value = x86::value(window.bytes, found.at);
                let from_end = value.wrapping_add(address).wrapping_add(found.end as u64);
                let (target, base) = match found.operand {
                    Operand::Number => (value, Base::Zero),
                    _ => (from_end, Base::Here),
                };
                let likely = match found.operand {
                    Operand::Number => self.elf.fixed && self.base > 0,
                    _ => true,
                };
                if likely && self.has(target) {
                    let at = (window.at + found.at as u64) as u32;
                    let raw = value & u64::from(u32::MAX);
                    fields.push(Field { at, raw, form: Form::Word32, target, base });
                }
            }
            at = end;
        }
    }

    fn words(&self, section: &Section, mask: u8, window: Window<'_>, fields: &mut Vec<Field>) {
        let first = window.at + window.from as u64;
        let first = section.offset + (first - section.offset).next_multiple_of(8);
        for at in (first..window.at + window.to as u64).step_by(8) {
            let lane = (at - section.offset) / 8 % 3;
            let target = u64_at(window.bytes, (at - window.at) as usize);
            let Some(target) = target.filter(|target| mask >> lane & 1 == 1 && self.has(*target)) else {
                continue;
            };
            fields.push(Field { at: at as u32, raw: target, form: Form::Word64, target, base: Base::Zero });
        }
    }

    /// Words of four bytes.
    fn halves(
        &self,
        window: Window<'_>,
        address: u64,
        fields: &mut Vec<Field>,
        mut base: impl FnMut(u64) -> Option<Base>,
    ) {
        let first = (address + window.from as u64).next_multiple_of(4) - address;
        for at in (first as usize..window.to).step_by(4) {
            let Some(value) = u32_at(window.bytes, at) else { return };
            let here = address + at as u64;
            let Some(base) = base(here) else { continue };
            let from = match base {
                Base::Zero => 0,
                Base::Here => here,
                Base::At(address) => address,
            };
            let target = from.wrapping_add(i64::from(value as i32) as u64);
            if value != 0 && self.has(target) {
                let at = (window.at + at as u64) as u32;
                fields.push(Field { at, raw: value.into(), form: Form::Word32, target, base });
            }
        }
    }

    /// The records of `.eh_frame`, known by what a record looks like (Linux Standard Base, 10.6): a length, how far
    /// before its description of registers is, and where the function is.
    fn frames(&self, section: &Section, window: Window<'_>, address: u64, fields: &mut Vec<Field>) {
        let first = (address + window.from as u64).next_multiple_of(4) - address;
        for at in (first as usize..window.to).step_by(4) {
            let word = |at: usize| u32_at(window.bytes, at);
            let Some(before) = at.checked_sub(4) else { continue };
            let (Some(len), Some(back), Some(value)) = (word(before), word(at), word(at + 4)) else {
                continue;
            };
            let here = address + at as u64;
            let common = here.wrapping_sub(back.into());
            let target = (here + 4).wrapping_add(i64::from(value as i32) as u64);
            let likely = len % 4 == 0 && (12..1 << 16).contains(&len) && back % 4 == 0 && back > 0;
            if likely && (section.address..here).contains(&common) && self.has_code(target) {
                let at = (window.at + at as u64) as u32;
                let base = Base::Here;
                fields.push(Field { at, raw: back.into(), form: Form::Back, target: common, base });
                fields.push(Field { at: at + 4, raw: value.into(), form: Form::Word32, target, base });
            }
        }
    }

    fn jumps(&self, window: Window<'_>, address: u64, fields: &mut Vec<Field>) {
        let start = address.wrapping_add(window.from as u64).wrapping_sub(self.base) as u32;
        let mut next = self.taken.partition_point(|taken| *taken <= start);
        let before = fields.len();
        self.halves(window, address, fields, |here| {
            let here = here.wrapping_sub(self.base) as u32;
            while self.taken.get(next).is_some_and(|taken| *taken <= here) {
                next += 1;
            }
            let table = self.taken.get(next.checked_sub(1)?)?;
            Some(Base::At(self.base + u64::from(*table)))
        });
        let mut at = before;
        fields.retain(|field| {
            at += 1;
            at <= before || self.has_code(field.target)
        });
    }

    /// Forgets which addresses the code takes.
    pub(super) fn forget(&mut self) {
        self.taken.clear();
    }

    /// Ends taking note of addresses.
    pub(super) fn tidy(&mut self) {
        self.taken.sort_unstable();
        self.taken.dedup();
    }

    /// Takes note of the addresses that some code takes, of those that are in `of`.
    pub(super) fn take(&mut self, section: &Section, window: Window<'_>, of: &[Range<u64>]) {
        if self.elf.machine != Machine::X86 {
            return self.take_arm(section, window, of);
        }
        let address = section.address.wrapping_add(window.at.wrapping_sub(section.offset));
        let mut at = 0;
        while at < window.to {
            let (end, found) = x86::instruction(window.bytes, at);
            if let Some(found) = found.filter(|found| at >= window.from && found.operand == Operand::Address)
            {
                let value = x86::value(window.bytes, found.at);
                self.keep(value.wrapping_add(address).wrapping_add(found.end as u64), of);
            }
            at = end;
        }
    }

    fn take_arm(&mut self, section: &Section, window: Window<'_>, of: &[Range<u64>]) {
        let address = section.address.wrapping_add(window.at.wrapping_sub(section.offset));
        let mut taken = Vec::new();
        arm::fields(window.bytes, window.from, window.to, window.at as u32, address, |field| {
            if matches!(field.form, Form::Near | Form::Low(0)) {
                taken.push(field.target);
            }
        });
        taken.into_iter().for_each(|target| self.keep(target, of));
    }

    fn keep(&mut self, target: u64, of: &[Range<u64>]) {
        if target & 3 != 0 || self.taken.len() >= MAX_TAKEN || !of.iter().any(|range| range.contains(&target))
        {
            return;
        }
        if let Ok(target) = u32::try_from(target.wrapping_sub(self.base)) {
            self.taken.push(target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::elf::Load;
    use super::*;

    /// A program with 4 KiB of code at 0x1000 and a section of data at 0x2000.
    fn finder() -> (Finder, Section) {
        let section = |name: &[u8], address: u64, executable| Section {
            kind: Kind::Bytes,
            name: name.to_vec(),
            mapped: true,
            writable: false,
            executable,
            per_thread: false,
            address,
            offset: address,
            len: 0x1000,
        };
        let (text, data) = (section(b".text", 0x1000, true), section(b".rodata", 0x2000, false));
        let loads = vec![Load { offset: 0, address: 0, len: 0x3000, memory: 0x3000 }];
        let sections = vec![text, data.clone()];
        (Finder::new(Elf { machine: Machine::X86, fixed: false, len: 0x3000, loads, sections }), data)
    }

    /// What a rule finds in words at 0x2000: where, and the target.
    fn found(finder: &Finder, section: &Section, rule: Rule, words: &[u32]) -> Vec<(u32, u64)> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut fields = Vec::new();
        let window = Window { at: 0x2000, bytes: &bytes, from: 0, to: bytes.len() };
        finder.fields(section, rule, window, &mut fields);
        fields.iter().map(|field| (field.at, field.target)).collect()
    }

    #[test]
    fn words_count_from_where_the_rule_says() {
        let (finder, section) = finder();
        let found = |rule, words: &[u32]| found(&finder, &section, rule, words);
        let less = 0xffff_f800;
        assert_eq!(found(Rule::FromHere, &[0x10, 0, less]), [(0x2000, 0x2010), (0x2008, 0x1808)]);
        assert_eq!(found(Rule::FromStart, &[7, less, 0x7fff_ffff]), [(0x2000, 0x2007), (0x2004, 0x1800)]);
        assert_eq!(found(Rule::FromCode, &[0x20]), [(0x2000, 0x1020)]);
        let pointers = [0x1234, 0, 0x1234, 1, 0x2000, 0];
        assert_eq!(found(Rule::Words(0b111), &pointers), [(0x2000, 0x1234), (0x2010, 0x2000)]);
        assert_eq!(found(Rule::Words(0b100), &pointers), [(0x2010, 0x2000)]);
    }

    #[test]
    fn tables_begin_where_their_address_is_taken() {
        let (mut finder, section) = finder();
        // lea rax, [rip + 0x2004 - 0x1007]
        let code = [0x48, 0x8d, 0x05, 0xfd, 0x0f, 0, 0];
        let text = finder.elf.sections[0].clone();
        let window = Window { at: 0x1000, bytes: &code, from: 0, to: code.len() };
        finder.take(&text, window, &[section.in_memory()]);
        finder.tidy();
        let words = [0xffff_f800, 0xffff_f800, 0xffff_0000, 4];
        assert_eq!(found(&finder, &section, Rule::Jumps, &words), [(0x2004, 0x1804)]);
    }

    #[test]
    fn records_of_frames_are_known() {
        let (finder, section) = finder();
        // One that describes registers, one about a function at 0x1100, and what only looks like one.
        let words = [8, 0, 0, 16, 16, 0x1100_u32.wrapping_sub(0x2014), 0x30, 0, 0, 16, 16, 0x40];
        let expected = [(0x2010, 0x2000), (0x2014, 0x1100)];
        assert_eq!(found(&finder, &section, Rule::Frames, &words), expected);
    }

    #[test]
    fn rules_have_one_code_each() {
        for code in 0..RULES.len() as u8 {
            assert_eq!(Rule::from_code(code).map(Rule::code), Some(code));
        }
        assert_eq!(Rule::from_code(RULES.len() as u8), None);
    }
}
