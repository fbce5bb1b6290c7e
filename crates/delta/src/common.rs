//! How far two runs of bytes are the same, eight bytes at a time.

/// How many bytes at the start of both are the same.
#[inline(always)]
pub(crate) fn common_prefix(one: &[u8], two: &[u8]) -> usize {
    let len = one.len().min(two.len());
    let (one, two) = (&one[..len], &two[..len]);
    let mut same = 0;
    for (a, b) in one.as_chunks::<8>().0.iter().zip(two.as_chunks::<8>().0) {
        let difference = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if difference != 0 {
            return same + (difference.trailing_zeros() / 8) as usize;
        }
        same += 8;
    }
    same + one[same..].iter().zip(&two[same..]).take_while(|(a, b)| a == b).count()
}

/// How many bytes at the end of both are the same.
#[inline]
pub(crate) fn common_suffix(one: &[u8], two: &[u8]) -> usize {
    let len = one.len().min(two.len());
    let (one, two) = (&one[one.len() - len..], &two[two.len() - len..]);
    let mut same = 0;
    for (a, b) in one.as_rchunks::<8>().1.iter().rev().zip(two.as_rchunks::<8>().1.iter().rev()) {
        let difference = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if difference != 0 {
            return same + (difference.leading_zeros() / 8) as usize;
        }
        same += 8;
    }
    let (one, two) = (&one[..len - same], &two[..len - same]);
    same + one.iter().rev().zip(two.iter().rev()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_count_as_one_would(
            mut one in proptest::collection::vec(0..3_u8, 0..60), cut in 0..60_usize, change in 0..60_usize
        ) {
            let two = one.clone();
            if let Some(byte) = one.get_mut(change) {
                *byte ^= 4;
            }
            let two = &two[..cut.min(two.len())];
            let prefix = one.iter().zip(two).take_while(|(a, b)| a == b).count();
            prop_assert_eq!(common_prefix(&one, two), prefix);
            let suffix = one.iter().rev().zip(two.iter().rev()).take_while(|(a, b)| a == b).count();
            prop_assert_eq!(common_suffix(two, &one), suffix);
            prop_assert_eq!(common_suffix(&one, &one), one.len());
            let last = &one[one.len().min(cut)..];
            prop_assert_eq!(common_suffix(&one, last), last.len());
        }
    }
}
