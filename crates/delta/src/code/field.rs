//! Fields that moved: little-endian numbers inside matches, and by what they are expected to have grown.
//!
//! Most differences inside a match are addresses. They grew by the same amount as others before them, or they point
//! where others point which were seen to move already. A field begins at a byte that differs and has four bytes, which
//! is all of a relative address and the half of an absolute one that changes.

use super::history::{learn, probability};

/// How long a field is.
const FIELD: u32 = 4;

/// The amounts that are kept because they were the last ones.
const RECENT: usize = 4;

/// All guesses: by exact target, by near target, by the field's own value, and by recent amounts.
pub(super) const GUESSES: usize = TABLES + RECENT;
const TABLES: usize = 3;

/// How far targets may lie from each other to be near, as a shift.
const NEAR: u32 = 8;

/// The number of amounts that a table holds, as a power of two: 512 KiB.
const TABLE_BITS: u32 = 16;

/// How long scores average.
const SCORE_LIMIT: u32 = 255;

/// Amounts by a key, with a check; forgets what another key needs the place of.
#[derive(Debug)]
struct Amounts {
    cells: Vec<(u32, u32)>,
}

impl Amounts {
    fn new() -> Self {
        Self { cells: vec![(0, 0); 1 << TABLE_BITS] }
    }

    #[inline]
    fn place(key: u32) -> (usize, u32) {
        let spread = key.wrapping_mul(0x9e37_79b1);
        // A check of 0 is for empty cells.
        ((spread >> (32 - TABLE_BITS)) as usize, key.wrapping_add(1).max(1))
    }

    #[inline]
    fn find(&self, key: u32) -> Option<u32> {
        let (place, check) = Self::place(key);
        let (found, amount) = self.cells[place];
        (found == check).then_some(amount)
    }

    fn put(&mut self, key: u32, amount: u32) {
        let (place, check) = Self::place(key);
        self.cells[place] = (check, amount);
    }
}

/// A field, and what is expected of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Field {
    /// Bytes since its first one; from [`FIELD`] on it is over.
    pub(super) age: u32,
    /// Its expected value.
    old: u32,
    /// What is known of its value: the first `age` bytes.
    new: u32,
    /// The place that it points to if it is relative to itself, in the old content.
    target: u32,
    /// Old position minus new position.
    displacement: u32,
    /// Its values if it grew by the amounts that are expected; those without an opinion repeat the old value.
    guesses: [u32; GUESSES],
    /// Which of the tables have an opinion.
    pub(super) known: u32,
}

impl Field {
    /// A field that no byte belongs to any more.
    pub(super) fn over() -> Self {
        Self { age: FIELD, ..Self::default() }
    }

    /// Whether bytes of it are still to come.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.age < FIELD
    }

    /// What the guesses say about the next byte, which is expected to be `old`.
    #[inline]
    pub(super) fn opinions(&self, old: u8) -> Opinions {
        let shift = 8 * self.age;
        let below = (1_u32 << shift) - 1;
        let mut opinions =
            Opinions { bytes: self.guesses.map(|guess| (guess >> shift) as u8), agree: 0, differ: 0 };
        for (n, guess) in self.guesses.iter().enumerate() {
            opinions.agree |= u32::from((guess ^ self.new) & below == 0) << n;
            opinions.differ |= u32::from(opinions.bytes[n] != old) << n;
        }
        opinions
    }
}

/// What the guesses say about one byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opinions {
    pub(super) bytes: [u8; GUESSES],
    /// Which guesses agree with what is known of the field.
    pub(super) agree: u32,
    /// Which say that the byte is not as expected.
    pub(super) differ: u32,
}

impl Opinions {
    /// The guesses that may still be right for a byte that is not as expected.
    pub(super) fn eligible(&self) -> u32 {
        self.agree & self.differ
    }

    /// Those of them that say `byte`.
    pub(super) fn saying(&self, byte: u8) -> u32 {
        let same =
            self.bytes.iter().enumerate().fold(0, |same, (n, said)| same | u32::from(*said == byte) << n);
        same & self.eligible()
    }
}

/// What was learned from the fields so far.
#[derive(Debug)]
pub(super) struct Fields {
    recent: [u32; RECENT],
    exact: Amounts,
    near: Amounts,
    own: Amounts,
    /// How often each guess was right lately about whole fields, as bits.
    hits: [u32; GUESSES],
    /// For each guess, by [`Fields::cell`]: how likely it is right about a byte that differs.
    scores: Vec<u32>,
}

impl Fields {
    pub(super) fn new() -> Self {
        Self {
            recent: [0; RECENT],
            exact: Amounts::new(),
            near: Amounts::new(),
            own: Amounts::new(),
            hits: [0; GUESSES],
            scores: vec![1 << 31; GUESSES << 8],
        }
    }

    /// What is expected of a field with the value `old` that begins at `position` of the old content.
    pub(super) fn expect(&self, old: u32, position: u32, displacement: u32) -> Field {
        let target = position.wrapping_add(old);
        let mut field =
            Field { age: 0, old, new: 0, target, displacement, guesses: [old; GUESSES], known: 0 };
        // A relative address grows by what its target moved, less what itself moved.
        let moved = |amount: Option<u32>| amount.map(|amount| amount.wrapping_add(displacement));
        let found =
            [moved(self.exact.find(target)), moved(self.near.find(target >> NEAR)), self.own.find(old)];
        for (n, amount) in found.into_iter().enumerate() {
            if let Some(amount) = amount {
                field.guesses[n] = old.wrapping_add(amount);
                field.known |= 1 << n;
            }
        }
        for (guess, amount) in field.guesses[TABLES..].iter_mut().zip(self.recent) {
            *guess = old.wrapping_add(amount);
        }
        field
    }

    /// Adds a byte to a field; when it is the last one, its amount will be expected again.
    pub(super) fn extend(&mut self, field: &mut Field, byte: u8) {
        field.new |= u32::from(byte) << (8 * field.age);
        field.age += 1;
        if field.is_open() {
            return;
        }
        for (hits, guess) in self.hits.iter_mut().zip(field.guesses) {
            *hits = *hits << 1 | u32::from(guess == field.new);
        }
        let amount = field.new.wrapping_sub(field.old);
        if amount != 0 {
            let place = self.recent.iter().position(|recent| *recent == amount).unwrap_or(RECENT - 1);
            self.recent[..=place].rotate_right(1);
            self.recent[0] = amount;
            let shift = amount.wrapping_sub(field.displacement);
            self.exact.put(field.target, shift);
            self.near.put(field.target >> NEAR, shift);
            self.own.put(field.old, amount);
        }
    }

    /// How often a guess was right lately, as bits.
    pub(super) fn hits(&self, guess: usize) -> u32 {
        self.hits[guess]
    }

    fn cell(&self, field: &Field, guess: usize) -> usize {
        let known = field.known >> guess & 1;
        guess << 8 | (field.age << 6 | known << 5 | self.hits[guess] & 31) as usize
    }

    /// The guess that is likeliest right about a byte that differs, and its probability in 1/65536.
    pub(super) fn best(&self, field: &Field, opinions: &Opinions) -> Option<(usize, u16)> {
        let eligible = (0..GUESSES).filter(|guess| opinions.eligible() >> guess & 1 == 1);
        let scored = eligible.map(|guess| (guess, probability(self.scores[self.cell(field, guess)])));
        // The first of those that are equal.
        scored.reduce(|best, other| if other.1 > best.1 { other } else { best })
    }

    /// Learns what a byte that differs turned out to be; `field` is as it was before that byte.
    pub(super) fn learn(&mut self, field: &Field, opinions: &Opinions, byte: u8) {
        for guess in (0..GUESSES).filter(|guess| opinions.eligible() >> guess & 1 == 1) {
            let cell = self.cell(field, guess);
            learn(&mut self.scores[cell], opinions.bytes[guess] == byte, SCORE_LIMIT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(fields: &mut Fields, mut field: Field, value: u32) {
        value.to_le_bytes().into_iter().for_each(|byte| fields.extend(&mut field, byte));
        assert!(!field.is_open());
    }

    #[test]
    fn the_same_amount_is_expected_again() {
        let mut fields = Fields::new();
        let first = fields.expect(1000, 50, 0);
        feed(&mut fields, first, 1300);
        let second = fields.expect(0xffff_ff00, 77, 0);
        assert_eq!(second.guesses[TABLES], 0xffff_ff00_u32.wrapping_add(300));
        assert_eq!(second.known, 0);
    }

    #[test]
    fn a_target_that_moved_is_known_from_elsewhere() {
        let mut fields = Fields::new();
        // At 100 a relative address of 5000, so the target is 5100; it moved by 64, and the field by 16.
        let first = fields.expect(5000, 100, 16_u32.wrapping_neg());
        feed(&mut fields, first, 5048);
        // At 900, moved by 32, another one to the same target.
        let second = fields.expect(4200, 900, 32_u32.wrapping_neg());
        assert_eq!(second.known & 1, 1);
        assert_eq!(second.guesses[0], 4200 + 64 - 32);
    }

    #[test]
    fn guesses_that_disagree_with_the_bytes_so_far_are_out() {
        let mut fields = Fields::new();
        let first = fields.expect(0, 0, 0);
        feed(&mut fields, first, 0x0102);
        let mut field = fields.expect(0x1000, 9000, 0);
        assert_eq!(field.opinions(0).saying(0x02), 1 << TABLES);
        fields.extend(&mut field, 0x03);
        assert_eq!(field.opinions(0x10).eligible(), 0);
    }
}
