//! How closely each byte of a match is looked at: what a content section trades size for time with.
//!
//! Both ends must look alike, so the section says which pace it was written at.

use super::plan::Costs;

/// The numbers behind a pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// Where in [`PACES`] it is.
    pub(super) code: u8,
    /// How many bytes in a row must be as expected before the rest of a run is one number.
    pub(super) streak: u32,
    /// The same at the beginning of a match: many matches have no difference at all.
    pub(super) first_streak: u32,
    /// Runs are counted in blocks of this many bytes; the last part is coded byte by byte, where contexts know more.
    pub(super) block: usize,
    /// Below this probability of a difference, in 1/65536, a small table decides alone.
    pub(super) placid: u16,
    /// The sizes of the tables of contexts, as powers of two: for whether a byte differs, in slots of 4 bytes, for what
    /// it is then, and for literals, in slots of 16 bytes.
    pub(super) flag_bits: u32,
    pub(super) byte_bits: u32,
    pub(super) literal_bits: u32,
    /// What all this takes.
    pub(super) costs: Costs,
}

/// Bytes where a difference is unlikely cost little time, and the contexts know better than a number where the next
/// difference comes. The tables, of 4, 8 and 16 MiB, have room for the contexts of a large layer.
pub(super) const CLOSE: Pace = Pace {
    code: 0,
    streak: 400,
    first_streak: 32,
    block: 128,
    placid: 128,
    flag_bits: 20,
    byte_bits: 19,
    literal_bits: 20,
    costs: Costs { matched: 1_000_000, changed: 4_500_000, near: 80_000, literal: 3_000_000 },
};

/// Nearly all that a decision costs is waiting for the contexts' slots. These tables, of 256 KiB, 1 MiB and 2 MiB, stay
/// in the processor's caches and lose less than a percent; few bytes are decided about one by one, and of those most
/// by the small table.
pub(super) const QUICK: Pace = Pace {
    code: 1,
    streak: 32,
    first_streak: 16,
    block: 16,
    placid: 30_000,
    flag_bits: 16,
    byte_bits: 16,
    literal_bits: 17,
    costs: Costs { matched: 600_000, changed: 2_500_000, near: 8_000, literal: 2_000_000 },
};

/// For contents that are so small that there would be more to clear than to know: as close, with the tables of the quick
/// one.
pub(super) const SMALL: Pace = Pace {
    code: 2,
    flag_bits: QUICK.flag_bits,
    byte_bits: QUICK.byte_bits,
    literal_bits: QUICK.literal_bits,
    ..CLOSE
};

/// All paces, by the code that a section has for them.
static PACES: [&Pace; 3] = [&CLOSE, &QUICK, &SMALL];

impl Pace {
    /// The pace that a section names, if there is one.
    pub(super) fn from_code(code: u8) -> Option<&'static Self> {
        PACES.get(usize::from(code)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paces_have_one_code_each() {
        for pace in PACES {
            assert_eq!(Pace::from_code(pace.code), Some(pace));
        }
        assert_eq!(Pace::from_code(PACES.len() as u8), None);
    }
}
