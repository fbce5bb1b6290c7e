//! Where each short string of old bytes is.

/// How many bytes a key has. Shorter ones are everywhere in machine code, longer ones are missed between two changed
/// addresses.
pub(super) const KEY: usize = 8;

/// The places of all keys in old bytes, or of a regular sample of them, by the hash of the key.
#[derive(Debug)]
pub(super) struct Index {
    /// How far a hash is shifted to give its bucket.
    shift: u32,
    /// Where each bucket starts in `places`, and where the last one ends.
    starts: Vec<u32>,
    /// Places in the old bytes, ascending within each bucket.
    places: Vec<u32>,
}

impl Index {
    /// Indexes the keys at every `step`-th place of `old`, which has less than 4 GiB.
    ///
    /// Of a run of one byte only the start is indexed.
    pub(super) fn new(old: &[u8], step: usize) -> Self {
        let bits = buckets(old.len(), step).ilog2();
        let shift = 64 - bits;
        let mut starts = vec![0_u32; (1 << bits) + 1];
        for (_, key) in keys(old, step) {
            starts[bucket(key, shift) + 1] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        // Each bucket is filled from its start, which moves to its end by that; the shift by one is put right after.
        let mut places = vec![0_u32; sum as usize];
        for (place, key) in keys(old, step) {
            let next = &mut starts[bucket(key, shift)];
            places[*next as usize] = place as u32;
            *next += 1;
        }
        starts.rotate_right(1);
        starts[0] = 0;
        Self { shift, starts, places }
    }

    /// How much memory an index needs, in bytes.
    pub(super) fn memory(old: usize, step: usize) -> usize {
        4 * (old / step + buckets(old, step) + 2)
    }

    /// Places that may have `key`, ascending. Others with the same hash are among them.
    pub(super) fn places(&self, key: u64) -> &[u32] {
        let bucket = bucket(key, self.shift);
        &self.places[self.starts[bucket] as usize..self.starts[bucket + 1] as usize]
    }
}

/// How many buckets an index has: a power of two.
fn buckets(old: usize, step: usize) -> usize {
    (old / step / 2 + 1).next_power_of_two().max(2)
}

/// The bucket of a key: the upper bits of a product (Knuth's multiplicative hashing).
fn bucket(key: u64, shift: u32) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> shift) as usize
}

/// The key at `at`; none at the end of the bytes.
#[inline]
pub(super) fn key_at(bytes: &[u8], at: usize) -> Option<u64> {
    let key = bytes.get(at..)?.first_chunk::<KEY>()?;
    Some(u64::from_le_bytes(*key))
}

/// The keys to be indexed and their places.
fn keys(old: &[u8], step: usize) -> impl Iterator<Item = (usize, u64)> + '_ {
    (0..old.len().saturating_sub(KEY - 1)).step_by(step).filter_map(move |at| {
        let key = key_at(old, at)?;
        let run = key == key.rotate_left(8) && at >= step && key_at(old, at - step) == Some(key);
        (!run).then_some((at, key))
    })
}
