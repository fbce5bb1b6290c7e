//! Fields that hold addresses, and how they are written.

/// What an address is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// From 0.
    Zero,
    /// From the field itself, or the instruction that it is in.
    Here,
    /// From another address.
    At(u64),
}

/// How a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Word32,
    Word64,
    /// Four bytes that count backwards.
    Back,
    /// A part of an aarch64 instruction: so many bits above so many others, in instructions.
    Branch {
        bits: u32,
        above: u32,
    },
    /// `ADR`: 21 bits in two parts, in bytes.
    Near,
    /// `ADRP`: likewise, in pages.
    Page,
    /// The address inside its page, in units of 2^n bytes.
    Low(u32),
}

impl Form {
    /// How many bytes it takes.
    pub(super) fn len(self) -> usize {
        if self == Self::Word64 { 8 } else { 4 }
    }
}

/// A field of an old file that holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Where it is in the file.
    pub(super) at: u32,
    /// What it holds.
    pub(super) raw: u64,
    pub(super) form: Form,
    /// The old address that it refers to.
    pub(super) target: u64,
    pub(super) base: Base,
}

/// How addresses move for a field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shifts {
    pub(super) target: i64,
    pub(super) base: i64,
    /// The old address of the field itself.
    pub(super) here: u64,
}

const PAGE: u32 = 12;

impl Field {
    /// What the field holds when addresses have moved, or `None` when it cannot hold that.
    pub(super) fn moved(&self, shifts: Shifts) -> Option<[u8; 8]> {
        let amount = shifts.target.wrapping_sub(shifts.base);
        if self.form == Form::Word64 {
            return Some(self.raw.wrapping_add(amount as u64).to_le_bytes());
        }
        let word = self.raw as u32;
        let target = self.target.wrapping_add(shifts.target as u64);
        let new = match self.form {
            Form::Branch { bits, above } => {
                let mask = ((1_u32 << bits) - 1) << above;
                if amount & 3 != 0 {
                    return None;
                }
                let value = (word & mask).wrapping_add((amount >> 2 << above) as u32);
                word & !mask | value & mask
            }
            Form::Near => with_near(word, near(word).wrapping_add(amount as u32)),
            Form::Page => {
                let here = shifts.here.wrapping_add(shifts.base as u64);
                with_near(word, (target >> PAGE).wrapping_sub(here >> PAGE) as u32)
            }
            Form::Low(scale) => {
                let low = (target & 0xfff) as u32;
                if low & ((1 << scale) - 1) != 0 {
                    return None;
                }
                word & !(0xfff << 10) | low >> scale << 10
            }
            Form::Back => word.wrapping_sub(amount as u32),
            Form::Word32 | Form::Word64 => word.wrapping_add(amount as u32),
        };
        Some(u64::from(new).to_le_bytes())
    }
}

impl Field {
    /// The field if it held an address as such, as far as it can.
    pub(super) fn absolute(&self, target: u64) -> [u8; 8] {
        let word = self.raw as u32;
        let new = match self.form {
            Form::Word64 => return target.to_le_bytes(),
            Form::Back | Form::Word32 => target as u32,
            Form::Branch { bits, above } => {
                let mask = ((1_u32 << bits) - 1) << above;
                word & !mask | ((target >> 2) as u32) << above & mask
            }
            Form::Near => with_near(word, target as u32),
            Form::Page => with_near(word, (target >> PAGE) as u32),
            Form::Low(scale) => word & !(0xfff << 10) | ((target & 0xfff) as u32) >> scale << 10,
        };
        u64::from(new).to_le_bytes()
    }
}

/// The value of `ADR` and `ADRP`, as 32 bits with a sign.
pub(super) fn near(word: u32) -> u32 {
    let value = word >> 3 & 0x1f_fffc | word >> 29 & 3;
    ((value << 11) as i32 >> 11) as u32
}

fn with_near(word: u32, value: u32) -> u32 {
    word & !0x60ff_ffe0 | (value & 3) << 29 | (value >> 2 & 0x7_ffff) << 5
}
