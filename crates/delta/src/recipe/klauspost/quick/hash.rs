//! The hashes by which places are remembered.

use super::Text;

/// A hash of the lowest 4 bytes, as an index of a table of `2^BITS` entries.
#[inline(always)]
pub(in super::super) fn hash4<const BITS: u32>(bytes: u64) -> usize {
    ((bytes as u32).wrapping_mul(2_654_435_761) >> (32 - BITS)) as usize
}

/// The same of the lowest 7 bytes.
#[inline(always)]
pub(super) fn hash7<const BITS: u32>(bytes: u64) -> usize {
    ((bytes << 8).wrapping_mul(58_295_818_150_454_627) >> (64 - BITS)) as usize
}

/// What the matchers that have a single table remember places by.
pub(super) trait Hash: Send + std::fmt::Debug {
    /// How many bytes there must be from the last place on that is remembered, and one more.
    const BYTES: usize;

    /// Reads at least the bytes of the hash.
    fn load(text: &Text<'_>, place: usize) -> u64;

    /// The hash as an index of a table of `2^BITS` entries.
    fn of<const BITS: u32>(bytes: u64) -> usize;
}

/// Five bytes, of eight that must be there.
#[derive(Debug)]
pub(super) struct Five;

impl Hash for Five {
    const BYTES: usize = 8;

    #[inline(always)]
    fn load(text: &Text<'_>, place: usize) -> u64 {
        text.load64(place)
    }

    #[inline(always)]
    fn of<const BITS: u32>(bytes: u64) -> usize {
        ((bytes << 24).wrapping_mul(889_523_592_379) >> (64 - BITS)) as usize
    }
}

/// Four bytes.
#[derive(Debug)]
pub(super) struct Four;

impl Hash for Four {
    const BYTES: usize = 4;

    #[inline(always)]
    fn load(text: &Text<'_>, place: usize) -> u64 {
        text.load32(place).into()
    }

    #[inline(always)]
    fn of<const BITS: u32>(bytes: u64) -> usize {
        hash4::<BITS>(bytes)
    }
}

/// Four bytes, with the factor that Snappy has.
#[derive(Debug)]
pub(super) struct FourOfSnappy;

impl Hash for FourOfSnappy {
    const BYTES: usize = 4;

    #[inline(always)]
    fn load(text: &Text<'_>, place: usize) -> u64 {
        text.load32(place).into()
    }

    #[inline(always)]
    fn of<const BITS: u32>(bytes: u64) -> usize {
        ((bytes as u32).wrapping_mul(0x1e35_a7bd) >> (32 - BITS)) as usize
    }
}
