//! XXH64 with seed 0, of which the low four bytes end a zstd frame (RFC 8878, section 3.1.1).
//!
//! The algorithm is Yann Collet's, as its specification describes it (BSD-2-Clause).

const PRIMES: [u64; 5] = [
    0x9e37_79b1_85eb_ca87,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0x85eb_ca77_c2b2_ae63,
    0x27d4_eb2f_1656_67c5,
];

/// How many bytes the four lanes take at once.
const STRIPE: usize = 32;

/// The hash of what has been taken so far.
#[derive(Clone, Debug)]
pub(super) struct Xxh64 {
    lanes: [u64; 4],
    /// The start of a stripe that is not complete.
    rest: [u8; STRIPE],
    rest_len: usize,
    size: u64,
}

impl Xxh64 {
    pub(super) fn new() -> Self {
        let lanes = [PRIMES[0].wrapping_add(PRIMES[1]), PRIMES[1], 0, 0_u64.wrapping_sub(PRIMES[0])];
        Self { lanes, rest: [0; STRIPE], rest_len: 0, size: 0 }
    }

    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if self.rest_len > 0 {
            let taken = bytes.len().min(STRIPE - self.rest_len);
            self.rest[self.rest_len..self.rest_len + taken].copy_from_slice(&bytes[..taken]);
            self.rest_len += taken;
            bytes = &bytes[taken..];
            if self.rest_len < STRIPE {
                return;
            }
            mix(&mut self.lanes, &self.rest);
            self.rest_len = 0;
        }
        let (stripes, rest) = bytes.as_chunks::<STRIPE>();
        // A copy, so that the lanes stay in registers.
        let mut lanes = self.lanes;
        for stripe in stripes {
            mix(&mut lanes, stripe);
        }
        self.lanes = lanes;
        self.rest[..rest.len()].copy_from_slice(rest);
        self.rest_len = rest.len();
    }

    pub(super) fn finish(&self) -> u64 {
        let mut hash = if self.size >= STRIPE as u64 { self.converge() } else { PRIMES[4] };
        hash = hash.wrapping_add(self.size);
        let (words, rest) = self.rest[..self.rest_len].as_chunks::<8>();
        for word in words {
            hash ^= round(0, u64::from_le_bytes(*word));
            hash = hash.rotate_left(27).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3]);
        }
        let (halves, rest) = rest.as_chunks::<4>();
        for half in halves {
            hash ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(PRIMES[0]);
            hash = hash.rotate_left(23).wrapping_mul(PRIMES[1]).wrapping_add(PRIMES[2]);
        }
        for byte in rest {
            hash ^= u64::from(*byte).wrapping_mul(PRIMES[4]);
            hash = hash.rotate_left(11).wrapping_mul(PRIMES[0]);
        }
        hash = (hash ^ hash >> 33).wrapping_mul(PRIMES[1]);
        hash = (hash ^ hash >> 29).wrapping_mul(PRIMES[2]);
        hash ^ hash >> 32
    }

    fn converge(&self) -> u64 {
        let turns = [1, 7, 12, 18];
        let sum = self.lanes.iter().zip(turns).map(|(lane, turn)| lane.rotate_left(turn));
        let mut hash = sum.fold(0_u64, u64::wrapping_add);
        for lane in self.lanes {
            hash = (hash ^ round(0, lane)).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3]);
        }
        hash
    }
}

fn mix(lanes: &mut [u64; 4], stripe: &[u8; STRIPE]) {
    let (words, _) = stripe.as_chunks::<8>();
    for (lane, word) in lanes.iter_mut().zip(words) {
        *lane = round(*lane, u64::from_le_bytes(*word));
    }
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIMES[1])).rotate_left(31).wrapping_mul(PRIMES[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(bytes: &[u8]) -> u64 {
        let mut hasher = Xxh64::new();
        hasher.update(bytes);
        hasher.finish()
    }

    #[test]
    fn known_hashes() {
        assert_eq!(hash(b""), 0xef46_db37_51d8_e999);
        assert_eq!(hash(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(hash(b"abc"), 0x44bc_2cf5_ad77_0999);
        assert_eq!(hash(b"Nobody inspects the spammish repetition"), 0xfbce_a83c_8a37_8bf1);
    }

    #[test]
    fn cuts_do_not_matter() {
        let bytes: Vec<u8> = (0..200_u8).collect();
        for piece in [1, 3, 31, 32, 33, 64, 199] {
            let mut hasher = Xxh64::new();
            bytes.chunks(piece).for_each(|piece| hasher.update(piece));
            assert_eq!(hasher.finish(), hash(&bytes), "{piece}");
        }
    }
}
