//! Finding references to addresses in x86-64 code.
//!
//! A linear sweep that knows how long instructions are (Intel's Software Developer's Manual, volume 2, appendix A) and
//! nothing else about them. Begun in the middle of an instruction, it is in step after a few.

use super::elf::u32_at;

/// The longest instruction, in bytes.
pub(super) const MAX_INSTRUCTION: usize = 15;

/// What a field of four bytes in an instruction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    /// Where a call or jump goes, relative to the instruction's end.
    Branch,
    /// Where data is, relative to the instruction's end.
    Data,
    /// Likewise, in `lea`: its address is taken.
    Address,
    /// A displacement or an immediate value: an address, if the code is loaded where it says.
    Number,
}

/// A field in an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// Where the field is.
    pub(super) at: usize,
    /// Where the instruction ends.
    pub(super) end: usize,
    pub(super) operand: Operand,
}

/// What follows an opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Invalid,
    /// Prefixes that change nothing about the length but one: the operand size.
    Prefix,
    Rex,
    Plain(u8),
    /// An immediate value of the operand's size, at most 4 bytes.
    Sized,
    /// Likewise, but 8 bytes with REX.W.
    Wide,
    /// An address of 8 bytes.
    Moffs,
    Branch,
    /// A ModRM byte and an immediate value of so many bytes.
    ModRm(u8),
    ModRmSized,
    /// A ModRM byte, and an immediate value for two of the eight operations.
    Group(u8),
    /// The second table of opcodes.
    Escape,
    Vex(u8),
}

/// The table of one-byte opcodes.
static ONE: [Form; 256] = one();
/// The table of opcodes behind 0F.
static TWO: [Form; 256] = two();

const fn one() -> [Form; 256] {
    let mut table = [Form::Plain(0); 256];
    let mut op = 0;
    while op < 256 {
        table[op] = match op {
            0x0f => Form::Escape,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3 => Form::Prefix,
            0x06 | 0x07 | 0x0e | 0x16 | 0x17 | 0x1e | 0x1f | 0x27 | 0x2f | 0x37 | 0x3f => Form::Invalid,
            0x60 | 0x61 | 0x82 | 0x9a | 0xce | 0xd4..=0xd6 | 0xea => Form::Invalid,
            0x00..=0x3f => match op & 7 {
                0..=3 => Form::ModRm(0),
                4 => Form::Plain(1),
                _ => Form::Sized,
            },
            0x40..=0x4f => Form::Rex,
            0x62 => Form::Vex(3),
            0x63 | 0x84..=0x8f | 0xd0..=0xd3 | 0xd8..=0xdf | 0xfe | 0xff => Form::ModRm(0),
            0x68 | 0xa9 => Form::Sized,
            0x69 | 0x81 | 0xc7 => Form::ModRmSized,
            0x6a | 0x70..=0x7f | 0xa8 | 0xb0..=0xb7 | 0xcd | 0xe0..=0xe7 | 0xeb => Form::Plain(1),
            0x6b | 0x80 | 0x83 | 0xc0 | 0xc1 | 0xc6 => Form::ModRm(1),
            0xa0..=0xa3 => Form::Moffs,
            0xb8..=0xbf => Form::Wide,
            0xc2 | 0xca => Form::Plain(2),
            0xc4 => Form::Vex(2),
            0xc5 => Form::Vex(1),
            0xc8 => Form::Plain(3),
            0xe8 | 0xe9 => Form::Branch,
            0xf6 => Form::Group(1),
            0xf7 => Form::Group(4),
            _ => Form::Plain(0),
        };
        op += 1;
    }
    table
}

const fn two() -> [Form; 256] {
    let mut table = [Form::ModRm(0); 256];
    let mut op = 0;
    while op < 256 {
        table[op] = match op {
            0x05..=0x09 | 0x0b | 0x0e | 0x30..=0x37 | 0x77 | 0xa0..=0xa2 | 0xa8..=0xaa | 0xc8..=0xcf => {
                Form::Plain(0)
            }
            0x04 | 0x0a | 0x0c | 0x24..=0x27 | 0x38..=0x3f => Form::Invalid,
            0x0f | 0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6 => Form::ModRm(1),
            0x80..=0x8f => Form::Branch,
            _ => Form::ModRm(0),
        };
        op += 1;
    }
    table
}

/// What is known of an opcode without looking further: how many bytes an immediate value has, and the flags below.
type Shape = u8;
const IMMEDIATE: Shape = 7;
const MODRM: Shape = 8;
/// The immediate value may be an address.
const NUMBER: Shape = 16;
const BRANCH: Shape = 32;
/// There is more to it, if there is REX.W or in any case.
const NOT_WIDE: Shape = 64;
const NEVER: Shape = 128;

/// The shapes of opcodes without prefixes but REX.
static SHAPES_ONE: [Shape; 256] = shapes(&ONE);
/// The shapes of those behind 0F.
static SHAPES_TWO: [Shape; 256] = {
    let mut shapes = shapes(&TWO);
    (shapes[0x38], shapes[0x3a]) = (NEVER, NEVER);
    shapes
};

const fn shapes(forms: &[Form; 256]) -> [Shape; 256] {
    let mut shapes = [NEVER; 256];
    let mut op = 0;
    while op < 256 {
        shapes[op] = match forms[op] {
            Form::Plain(len) => len,
            Form::Sized => 4 | NUMBER,
            Form::Wide => 4 | NUMBER | NOT_WIDE,
            Form::Branch => 4 | BRANCH,
            Form::ModRm(len) => MODRM | len,
            Form::ModRmSized => MODRM | NUMBER | 4,
            _ => NEVER,
        };
        op += 1;
    }
    shapes
}

/// How many bytes a ModRM byte entails, without what a SIB byte may; [`FIELD`] if four of them are a displacement.
static ENTAILED: [u8; 256] = {
    let mut entailed = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mode, rm) = (byte >> 6, byte & 7);
        let sib = if mode != 3 && rm == 4 { 1 } else { 0 };
        entailed[byte] = match mode {
            0 if rm == 5 => 4 | FIELD,
            1 => sib + 1,
            2 => (sib + 4) | FIELD,
            _ => sib,
        };
        byte += 1;
    }
    entailed
};
const FIELD: u8 = 16;

/// Decodes the instruction at `at`: where it ends (behind `at`), and the reference in it. An instruction that is not
/// one, or that goes on behind the code, is one byte long.
#[inline]
pub(super) fn instruction(code: &[u8], at: usize) -> (usize, Option<Reference>) {
    usual(code, at).unwrap_or_else(|| decode(code, at).unwrap_or((at + 1, None)))
}

/// Decodes what most instructions are, in a third of the time; `None` when that does not say that it is not one.
#[inline]
fn usual(code: &[u8], start: usize) -> Option<(usize, Option<Reference>)> {
    let bytes = code.get(start..)?.first_chunk::<16>()?;
    let rex = bytes[0] & 0xf0 == 0x40;
    let wide = rex && bytes[0] & 8 != 0;
    let mut at = usize::from(rex);
    let op = bytes[at];
    at += 1;
    let mut shape = SHAPES_ONE[usize::from(op)];
    if op == 0x0f {
        shape = SHAPES_TWO[usize::from(bytes[at])];
        at += 1;
    }
    if shape >= NOT_WIDE && (shape >= NEVER || wide) {
        return None;
    }
    let immediate = usize::from(shape & IMMEDIATE);
    let mut reference = None;
    if shape & MODRM != 0 {
        let byte = bytes[at];
        let entailed = ENTAILED[usize::from(byte)];
        // A SIB byte without a base has a displacement.
        if byte & 0xc7 == 4 && bytes[at + 1] & 7 == 5 {
            return None;
        }
        at += 1 + usize::from(entailed & (FIELD - 1));
        if entailed & FIELD != 0 {
            let operand = match byte & 0xc7 {
                5 if op == 0x8d => Operand::Address,
                5 => Operand::Data,
                _ => Operand::Number,
            };
            reference = Some((at - 4, operand));
        }
    }
    let end = at + immediate;
    if shape & BRANCH != 0 {
        reference = Some((at, Operand::Branch));
    } else if shape & NUMBER != 0 && reference.is_none() {
        reference = Some((at, Operand::Number));
    }
    let end = start + end;
    Some((end, reference.map(|(at, operand)| Reference { at: start + at, end, operand })))
}

fn decode(code: &[u8], start: usize) -> Option<(usize, Option<Reference>)> {
    let mut at = start;
    let (mut short, mut wide) = (false, false);
    let mut op = *code.get(at)?;
    let mut form = ONE[usize::from(op)];
    while form == Form::Prefix {
        short |= op == 0x66;
        at += 1;
        op = *code.get(at)?;
        form = ONE[usize::from(op)];
        if at - start >= MAX_INSTRUCTION {
            return None;
        }
    }
    if form == Form::Rex {
        wide = op & 8 != 0;
        at += 1;
        op = *code.get(at)?;
        form = ONE[usize::from(op)];
    }
    at += 1;
    let address = op == 0x8d;
    match form {
        Form::Escape => {
            op = *code.get(at)?;
            at += 1;
            form = match op {
                0x38 => Form::ModRm(0),
                0x3a => Form::ModRm(1),
                _ => TWO[usize::from(op)],
            };
            at += usize::from(matches!(op, 0x38 | 0x3a));
        }
        Form::Vex(len) => {
            let map = if len == 1 { 1 } else { *code.get(at)? & if len == 2 { 0x1f } else { 7 } };
            at += usize::from(len);
            op = *code.get(at)?;
            at += 1;
            form = match map {
                1 => TWO[usize::from(op)],
                2 | 5 | 6 => Form::ModRm(0),
                3 => Form::ModRm(1),
                _ => return None,
            };
            if form == Form::Branch {
                return None;
            }
        }
        _ => {}
    }
    let sized = if short { 2 } else { 4 };
    let immediate = match form {
        Form::Branch => {
            let end = at + 4;
            return (end <= code.len())
                .then_some((end, Some(Reference { at, end, operand: Operand::Branch })));
        }
        Form::Plain(len) => usize::from(len),
        Form::Moffs => 8,
        Form::Wide if wide => 8,
        Form::Sized | Form::Wide => {
            let operand = Operand::Number;
            let found = (!short).then_some(Reference { at, end: at + sized, operand });
            return (at + sized <= code.len()).then_some((at + sized, found));
        }
        Form::ModRm(len) => return operands(code, at, usize::from(len), address),
        Form::ModRmSized => return operands(code, at, sized, address),
        Form::Group(len) => {
            let tested = *code.get(at)? >> 3 & 7 < 2;
            let len = if len == 1 { 1 } else { sized };
            return operands(code, at, if tested { len } else { 0 }, false);
        }
        _ => return None,
    };
    (at + immediate <= code.len()).then_some((at + immediate, None))
}

/// A ModRM byte at `at`, what it entails, and `immediate` bytes behind.
fn operands(code: &[u8], at: usize, immediate: usize, address: bool) -> Option<(usize, Option<Reference>)> {
    let byte = *code.get(at)?;
    let (mode, rm) = (byte >> 6, byte & 7);
    let field = at + 1 + usize::from(mode != 3 && rm == 4);
    let (displacement, relative) = match (mode, rm) {
        (0, 5) => (4, true),
        (0, 4) if *code.get(at + 1)? & 7 == 5 => (4, false),
        (1, _) => (1, false),
        (2, _) => (4, false),
        _ => (0, false),
    };
    let end = field + displacement + immediate;
    if end > code.len() {
        return None;
    }
    let operand = match (displacement, relative) {
        (4, true) if address => Operand::Address,
        (4, true) => Operand::Data,
        (4, false) => Operand::Number,
        _ if immediate == 4 => {
            return Some((end, Some(Reference { at: end - 4, end, operand: Operand::Number })));
        }
        _ => return Some((end, None)),
    };
    Some((end, Some(Reference { at: field, end, operand })))
}

/// The value of a field, as it is added to addresses.
pub(super) fn value(code: &[u8], at: usize) -> u64 {
    u32_at(code, at).map_or(0, |value| i64::from(value as i32) as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(code: &[u8]) -> (usize, Option<(usize, Operand)>) {
        let mut padded = code.to_vec();
        padded.extend_from_slice(&[0x90; 16]);
        let (end, found) = instruction(&padded, 0);
        assert!(found.is_none_or(|found| found.end == end));
        (end, found.map(|found| (found.at, found.operand)))
    }

    #[test]
    fn instructions_have_their_lengths() {
        for code in [
            &[0x90][..],
            &[0xc3],
            &[0x55],
            &[0x48, 0x89, 0xe5],
            &[0x48, 0x83, 0xec, 0x18],
            &[0x66, 0x90],
            &[0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x66, 0xb8, 1, 2],
            &[0x74, 0x10],
            &[0xf6, 0xc3, 0x01],
            &[0xf6, 0xd3],
            &[0xf7, 0xd8],
            &[0x66, 0xf7, 0xc1, 0x00, 0x10],
            &[0xc8, 0x10, 0x00, 0x00],
            &[0xf3, 0x0f, 0x1e, 0xfa],
            &[0x0f, 0xb6, 0x44, 0x24, 0x08],
            &[0x66, 0x0f, 0x3a, 0x0f, 0xc1, 0x08],
            &[0x0f, 0x38, 0xf0, 0x07],
            &[0xc5, 0xf8, 0x77],
            &[0xc5, 0xfd, 0x6f, 0x06],
            &[0xc4, 0xe2, 0x7d, 0x58, 0xc0],
            &[0xc4, 0xe3, 0x7d, 0x39, 0xc1, 0x01],
            &[0x62, 0xf1, 0x7c, 0x48, 0x10, 0x46, 0x01],
        ] {
            assert_eq!(found(code), (code.len(), None), "{code:x?}");
        }
    }

    #[test]
    fn references_are_found_where_they_are() {
        use Operand::*;
        for (code, at, operand) in [
            (&[0xe8, 1, 2, 3, 4][..], 1, Branch),
            (&[0x0f, 0x84, 1, 2, 3, 4], 2, Branch),
            (&[0xf2, 0xe9, 1, 2, 3, 4], 2, Branch),
            (&[0x48, 0x8d, 0x05, 1, 2, 3, 4], 3, Address),
            (&[0x48, 0x8b, 0x3d, 1, 2, 3, 4], 3, Data),
            (&[0xff, 0x15, 1, 2, 3, 4], 2, Data),
            (&[0xc7, 0x05, 1, 2, 3, 4, 0, 0, 0, 0], 2, Data),
            (&[0x80, 0x3d, 1, 2, 3, 4, 0], 2, Data),
            (&[0x66, 0xc7, 0x05, 1, 2, 3, 4, 0, 0], 3, Data),
            (&[0xf3, 0x0f, 0x10, 0x05, 1, 2, 3, 4], 4, Data),
            (&[0xc5, 0xfb, 0x10, 0x05, 1, 2, 3, 4], 4, Data),
            (&[0xbf, 1, 2, 3, 4], 1, Number),
            (&[0xff, 0x24, 0xc5, 1, 2, 3, 4], 3, Number),
            (&[0x48, 0xc7, 0xc0, 1, 2, 3, 4], 3, Number),
            (&[0x8b, 0x87, 1, 2, 3, 4], 2, Number),
            (&[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 1, 2, 3, 4], 6, Number),
        ] {
            assert_eq!(found(code), (code.len(), Some((at, operand))), "{code:x?}");
        }
    }

    proptest! {
        #[test]
        fn usual_instructions_are_what_they_are_otherwise(
            prefix in proptest::sample::select(vec![vec![], vec![0x48], vec![0x41], vec![0x0f], vec![0x4c, 0x0f], vec![0x66]]),
            bytes in any::<[u8; 24]>(),
        ) {
            let code = [&prefix[..], &bytes].concat();
            if let Some(found) = usual(&code, 0) {
                prop_assert_eq!(Some(found), decode(&code, 0));
            }
        }
    }

    #[test]
    fn every_opcode_is_the_same_both_ways() {
        let mut usual_ones = 0;
        for op in 0..=u16::MAX {
            for modrm in [0x05, 0x04, 0x44, 0x84, 0xc3] {
                let [op, next] = op.to_be_bytes();
                for code in [vec![op, next, modrm], vec![0x48, op, next, modrm], vec![0x0f, op, next, modrm]]
                {
                    let code = [&code[..], &[0x25; 20]].concat();
                    let found = usual(&code, 0);
                    usual_ones += u32::from(found.is_some());
                    assert!(found.is_none() || found == decode(&code, 0), "{code:x?}");
                }
            }
        }
        assert!(usual_ones > 600_000, "{usual_ones}");
    }

    #[test]
    fn nothing_goes_on_behind_the_code() {
        let code = [0x66, 0x48, 0x0f, 0x3a, 0x0f, 0x84, 0x24, 1, 2, 3, 4, 8, 0xe8, 1, 2];
        for len in 0..code.len() {
            for at in 0..len {
                let (end, found) = instruction(&code[..len], at);
                assert!(end > at && end <= len.max(at + 1) && found.is_none_or(|found| found.at + 4 <= len));
            }
        }
        assert_eq!(instruction(&[0x66; 20], 0), (1, None));
    }
}
