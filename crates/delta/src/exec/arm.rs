//! Finding references to addresses in aarch64 code (Arm Architecture Reference Manual, C4.1).

use super::elf::u32_at;
use super::field::{Base, Field, Form, near};

/// How many instructions may stand between `ADRP` and what adds the lower bits.
const REACH: usize = 8;

/// Appends the fields of the instructions at `from..to` of `code`, whose first byte is `at` in the file and has this
/// address.
pub(super) fn fields(
    code: &[u8],
    from: usize,
    to: usize,
    at: u32,
    address: u64,
    mut found: impl FnMut(Field),
) {
    for here in (from..to.min(code.len() & !3)).step_by(4) {
        let Some(word) = u32_at(code, here) else { return };
        let pc = address.wrapping_add(here as u64);
        let mut add =
            |form, target, base| found(Field { at: at + here as u32, raw: word.into(), form, target, base });
        let branch = |bits: u32, above: u32| {
            let value = ((word >> above << (32 - bits)) as i32 >> (32 - bits)) as i64;
            (Form::Branch { bits, above }, pc.wrapping_add((value * 4) as u64), Base::Here)
        };
        let (form, target, base) = match word >> 24 {
            _ if word & 0x7c00_0000 == 0x1400_0000 => branch(26, 0),
            // B.cond, BC.cond, CBZ, CBNZ, LDR (literal)
            0x54 | 0x34 | 0x35 | 0xb4 | 0xb5 | 0x18 | 0x58 | 0x98 | 0x1c | 0x5c | 0x9c => branch(19, 5),
            0x36 | 0x37 | 0xb6 | 0xb7 => branch(14, 5),
            _ if word & 0x9f00_0000 == 0x1000_0000 => {
                (Form::Near, pc.wrapping_add(i64::from(near(word) as i32) as u64), Base::Here)
            }
            _ if word & 0x9f00_0000 == 0x9000_0000 => {
                let low = (1..=REACH).find_map(|n| low(u32_at(code, here + 4 * n)?, word & 31));
                (Form::Page, page(word, pc) | low.map_or(0, |(low, _)| low), Base::Here)
            }
            _ => {
                let register = word >> 5 & 31;
                let Some((low, scale)) = low(word, register) else { continue };
                let adrp = (1..=REACH).find_map(|n| {
                    let before = here.checked_sub(4 * n)?;
                    let word = u32_at(code, before)?;
                    let same = word & 0x9f00_0000 == 0x9000_0000 && word & 31 == register;
                    same.then(|| page(word, address.wrapping_add(before as u64)))
                });
                let Some(page) = adrp else { continue };
                (Form::Low(scale), page | low, Base::Zero)
            }
        };
        add(form, target, base);
    }
}

/// The page that `ADRP` at `pc` gives.
fn page(word: u32, pc: u64) -> u64 {
    (pc & !0xfff).wrapping_add((i64::from(near(word) as i32) << 12) as u64)
}

/// The low bits that an instruction adds to a register: `ADD` (immediate, 64 bits), and loads and stores with an
/// unsigned offset; and the scale of the field.
fn low(word: u32, register: u32) -> Option<(u64, u32)> {
    if word >> 5 & 31 != register {
        return None;
    }
    let value = u64::from(word >> 10 & 0xfff);
    if word & 0xffc0_0000 == 0x9100_0000 {
        return Some((value, 0));
    }
    if word & 0x3b00_0000 != 0x3900_0000 {
        return None;
    }
    let vector = word & 0x0400_0000 != 0;
    let scale = if vector && word >> 30 == 0 && word & 0x0080_0000 != 0 { 4 } else { word >> 30 };
    // What lies behind the page is no part of it.
    let low = value << scale;
    (low < 4096).then_some((low, scale))
}

#[cfg(test)]
mod tests {
    use super::super::field::Shifts;
    use super::*;

    /// The fields of instructions that begin at this address.
    fn found(words: &[u32], address: u64) -> Vec<Field> {
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut found = Vec::new();
        fields(&code, 0, code.len(), 0, address, |field| found.push(field));
        found
    }

    #[test]
    fn references_point_where_they_do() {
        for (word, target) in [
            (0x9400_0002, 0x10008), // bl #8
            (0x17ff_ffff, 0xfffc),  // b #-4
            (0x5400_0041, 0x10008), // b.ne #8
            (0xb4ff_ffe0, 0xfffc),  // cbz x0, #-4
            (0x3608_0040, 0x10008), // tbz w0, #1, #8
            (0x5800_0040, 0x10008), // ldr x0, #8
            (0x3000_0000, 0x10001), // adr x0, #1
            (0xb000_0000, 0x11000), // adrp x0, #0x1000
        ] {
            let found = found(&[word], 0x10000);
            assert_eq!(found.iter().map(|field| field.target).collect::<Vec<_>>(), [target], "{word:x}");
        }
        assert_eq!(found(&[0xd503_201f, 0x9100_43ff, 0xf940_0fe1], 0), []);
    }

    #[test]
    fn pages_and_what_is_added_belong_together() {
        // adrp x0, 0x11000; nop; add x0, x0, #0x10; ldr x1, [x0, #0x18]
        let found = found(&[0xb000_0000, 0xd503_201f, 0x9100_4000, 0xf940_0c01], 0x10000);
        let targets: Vec<_> = found.iter().map(|field| (field.at, field.target)).collect();
        assert_eq!(targets, [(0, 0x11010), (8, 0x11010), (12, 0x11018)]);
        // What is at 0x11010 is now at 0x13008, and the code where it was.
        let shifts = Shifts { target: 0x1ff8, base: 0, here: 0x10000 };
        let moved = |at: usize| u64::from_le_bytes(found[at].moved(shifts).unwrap());
        assert_eq!((moved(0), moved(1)), (0xf000_0000, 0x9100_2000));
        let odd = Shifts { target: 0x1ff9, ..shifts };
        assert_eq!(found[2].moved(odd), None, "a load of eight bytes must be aligned");
    }

    #[test]
    fn branches_move() {
        let shifts = Shifts { target: -8, base: 0x100, here: 0x10000 };
        let word = |word: u32| found(&[word], 0x10000)[0].moved(shifts).map(|bytes| bytes[..4].to_vec());
        assert_eq!(word(0x9400_0042), Some(0x9400_0000_u32.to_le_bytes().to_vec()));
        assert_eq!(word(0x5400_0841), Some(0x5400_0001_u32.to_le_bytes().to_vec()));
        assert_eq!(word(0x3608_0840), Some(0x3608_0000_u32.to_le_bytes().to_vec()));
    }
}
