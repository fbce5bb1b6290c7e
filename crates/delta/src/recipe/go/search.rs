//! What both ways to search for matches need.

/// The factor of the multiplicative hash of the first four bytes of a match.
pub(super) const HASH_FACTOR: u32 = 0x1e35_a7bd;

/// How many bytes behind the last that counts [`common`] may read.
pub(super) const SLACK: usize = size_of::<u64>();

/// The bytes from `at` on, as an array.
#[inline(always)]
pub(super) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// How many of the first `most` bytes at `one` and at `other` are equal. Reads up to [`SLACK`] bytes behind them.
#[inline(always)]
pub(super) fn common(bytes: &[u8], one: usize, other: usize, most: usize) -> usize {
    let padded = most + SLACK;
    let (ones, _) = bytes[one..one + padded].as_chunks::<8>();
    let (others, _) = bytes[other..other + padded].as_chunks::<8>();
    let mut equal = 0;
    for (&a, &b) in ones.iter().zip(others) {
        let differ = u64::from_le_bytes(a) ^ u64::from_le_bytes(b);
        if differ != 0 {
            equal += differ.trailing_zeros() as usize / 8;
            break;
        }
        equal += 8;
    }
    equal.min(most)
}
