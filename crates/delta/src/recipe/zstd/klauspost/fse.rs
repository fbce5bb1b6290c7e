//! Finite state entropy: how often each symbol occurs, scaled to a power of two, and the states made of it.
//!
//! The algorithm is klauspost/compress's `fse` and `zstd` (BSD-3-Clause), which follow Yann Collet's; the form of the
//! tables is RFC 8878's, section 4.1.

use super::bits::Bits;

/// One more than the largest symbol of any table: that of match lengths.
pub(super) const MAX_SYMBOLS: usize = 53;
/// The largest table that these encoders make.
pub(super) const MAX_LOG: u32 = 8;
const MIN_LOG: u32 = 5;

/// The table of the encoder for one distribution.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// How many bits a state has.
    log: u32,
    /// How many symbols the distribution has; the last occurs.
    symbols: usize,
    /// The share of each symbol in the states, or -1 for one state that always takes all bits.
    shares: [i16; MAX_SYMBOLS],
    /// The states in the order of the symbols that lead to them.
    states: [u16; 1 << MAX_LOG],
    steps: [Step; MAX_SYMBOLS],
}

/// How a symbol changes the state.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    /// Added to the state, gives the number of bits to write in the upper 16 bits.
    bits: u32,
    /// Added to what is left of the state, gives the index of the next.
    state: i32,
}

impl Table {
    /// The table for shares that add up to `1 << log`.
    pub(super) fn new(shares: &[i16], log: u32) -> Self {
        let mut table = Self {
            log,
            symbols: shares.len(),
            shares: [0; MAX_SYMBOLS],
            states: [0; 1 << MAX_LOG],
            steps: [Step::default(); MAX_SYMBOLS],
        };
        table.shares[..shares.len()].copy_from_slice(shares);
        table.fill_states(&spread(shares, log));
        table.fill_steps();
        table
    }

    /// The table of one symbol, which takes no bits.
    pub(super) fn constant() -> Self {
        Self {
            log: 0,
            symbols: 0,
            shares: [0; MAX_SYMBOLS],
            states: [0; 1 << MAX_LOG],
            steps: [Step::default(); MAX_SYMBOLS],
        }
    }

    /// The table that the encoder makes for `counts`, which add up to `total`. `None` when it gives up.
    pub(super) fn of_counts(counts: &[u32], total: u32, log: u32) -> Option<Self> {
        let shares = normalize(counts, total, log)?;
        Some(Self::new(&shares[..counts.len()], log))
    }

    fn fill_states(&mut self, spread: &[u8]) {
        let mut starts = [0_usize; MAX_SYMBOLS];
        let mut start = 0;
        for (slot, share) in starts.iter_mut().zip(&self.shares[..self.symbols]) {
            *slot = start;
            start += usize::from(share.unsigned_abs());
        }
        for (state, symbol) in spread.iter().enumerate() {
            let slot = &mut starts[usize::from(*symbol)];
            self.states[*slot] = (spread.len() + state) as u16;
            *slot += 1;
        }
    }

    fn fill_steps(&mut self) {
        let mut start = 0_i32;
        for (step, share) in self.steps.iter_mut().zip(&self.shares[..self.symbols]) {
            match *share {
                0 => {}
                -1 | 1 => {
                    *step = Step { bits: (self.log << 16) - (1 << self.log), state: start - 1 };
                    start += 1;
                }
                share => {
                    let most = self.log - (share as u32 - 1).ilog2();
                    let bits = (most << 16) - ((share as u32) << most);
                    *step = Step { bits, state: start - i32::from(share) };
                    start += i32::from(share);
                }
            }
        }
    }

    /// Writes the shares, as a decoder wants them (RFC 8878, section 4.1.1).
    pub(super) fn write_shares(&self, out: &mut Vec<u8>) {
        let mut bits = Header { out, pending: u64::from(self.log - MIN_LOG), len: 4 };
        let mut left = (1_i32 << self.log) + 1;
        let mut threshold = 1_i32 << self.log;
        let mut width = self.log + 1;
        let mut symbol = 0;
        while left > 1 && symbol < self.symbols {
            let share = i32::from(self.shares[symbol]);
            let room = 2 * threshold - 1 - left;
            left -= share.abs();
            let mut value = share + 1;
            if value >= threshold {
                value += room;
            }
            bits.put(value as u32, if value < room { width - 1 } else { width });
            while left < threshold && threshold > 1 {
                width -= 1;
                threshold >>= 1;
            }
            symbol += 1;
            if share == 0 {
                symbol = self.write_zeros(symbol, &mut bits);
            }
        }
        bits.finish();
    }

    /// Writes how many more symbols do not occur, and gives the first that does.
    fn write_zeros(&self, first: usize, bits: &mut Header<'_>) -> usize {
        let zeros = self.shares[first..self.symbols].iter().take_while(|share| **share == 0).count();
        for _ in 0..zeros / 3 {
            bits.put(3, 2);
        }
        bits.put((zeros % 3) as u32, 2);
        first + zeros
    }

    /// About how many bits the table takes for a distribution; `u32::MAX` when it has no state for one of the symbols.
    pub(super) fn cost(&self, counts: &[u32]) -> u32 {
        const FRACTION: u32 = 8;
        if counts.len() > self.symbols {
            return u32::MAX;
        }
        let mut cost = 0_u32;
        for (symbol, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            if self.shares[symbol] == 0 {
                return u32::MAX;
            }
            let step = self.steps[symbol].bits;
            let least = step >> 16;
            let beyond = ((least + 1) << 16) - (step + (1 << self.log));
            let each = ((least + 1) << FRACTION) - ((beyond << FRACTION) >> self.log);
            cost = cost.wrapping_add(count.wrapping_mul(each));
        }
        cost >> FRACTION
    }

    /// The fewest bits that a symbol can take.
    pub(super) fn least_bits(&self, symbol: u8) -> u32 {
        self.steps[usize::from(symbol)].bits >> 16
    }

    /// A bound in bits for the size of what [`Table::write_shares`] writes, as the encoder reckons it.
    pub(super) fn header_cost(&self) -> u32 {
        (((self.symbols as u32 * self.log) >> 3) + 3) * 8
    }
}

/// Bits of a header, which may be many zeros long.
struct Header<'a> {
    out: &'a mut Vec<u8>,
    pending: u64,
    len: u32,
}

impl Header<'_> {
    fn put(&mut self, value: u32, len: u32) {
        self.pending |= u64::from(value) << self.len;
        self.len += len;
        while self.len >= 16 {
            self.out.extend_from_slice(&(self.pending as u16).to_le_bytes());
            self.pending >>= 16;
            self.len -= 16;
        }
    }

    fn finish(self) {
        let bytes = self.len.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.pending.to_le_bytes()[..bytes]);
    }
}

/// A state on its way from the last symbol to the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct State(u16);

impl State {
    /// The cheapest state that says `symbol`.
    pub(super) fn new(table: &Table, symbol: u8) -> Self {
        let step = table.steps[usize::from(symbol)];
        let bits = (step.bits + (1 << 15)) >> 16;
        let value = (bits << 16).wrapping_sub(step.bits) as i32;
        Self(table.states[(((value >> bits) + step.state) & 0xff) as usize])
    }

    /// Writes at most [`MAX_LOG`] bits and goes on to a state that says `symbol`.
    #[inline(always)]
    pub(super) fn step(&mut self, table: &Table, symbol: u8, bits: &mut Bits<'_>) {
        let step = table.steps[usize::from(symbol)];
        let len = (u32::from(self.0) + step.bits) >> 16;
        bits.put(u64::from(self.0 & ((1 << len) - 1)), len);
        // The index is below 256 by construction; the mask lets the compiler know.
        self.0 = table.states[((i32::from(self.0 >> len) + step.state) & 0xff) as usize];
    }

    /// Writes the state itself, for the decoder to start from.
    pub(super) fn finish(self, table: &Table, bits: &mut Bits<'_>) {
        bits.put(u64::from(self.0) & ((1 << table.log) - 1), table.log);
    }
}

/// Which symbol each state says: a symbol's states are far apart, and those of rare symbols are at the end.
fn spread(shares: &[i16], log: u32) -> Vec<u8> {
    let size = 1_usize << log;
    let mut symbols = vec![0; size];
    let rare = shares.iter().enumerate().filter(|(_, share)| **share == -1);
    let mut end = size;
    for (symbol, _) in rare {
        end -= 1;
        symbols[end] = symbol as u8;
    }
    let step = (size >> 1) + (size >> 3) + 3;
    let mut position = 0;
    for (symbol, share) in shares.iter().enumerate() {
        for _ in 0..*share {
            symbols[position] = symbol as u8;
            position = (position + step) & (size - 1);
            while position >= end {
                position = (position + step) & (size - 1);
            }
        }
    }
    symbols
}

/// The size of a table for `total` symbols up to `largest`, which is above 0. `source_bits` is how many bits the total
/// asks for: the two users of tables differ in that.
pub(super) fn table_log(total: u32, source_bits: u32, largest: u32, most: u32) -> u32 {
    let least = source_bits.min(largest.ilog2() + 2);
    // A total below 5 asks for a negative size, which the encoder takes for a large one.
    let enough = (total - 1).checked_ilog2().and_then(|log| log.checked_sub(2)).unwrap_or(most);
    most.min(enough).max(least).clamp(MIN_LOG, most.max(MIN_LOG))
}

/// Scales `counts`, which add up to `total`, to shares that add up to `1 << log`.
fn normalize(counts: &[u32], total: u32, log: u32) -> Option<[i16; MAX_SYMBOLS]> {
    /// When a small share is rounded up, in units of 2^-20.
    const ROUND_UP: [u64; 8] = [0, 473_195, 504_333, 520_860, 550_000, 700_000, 750_000, 830_000];
    let scale = 62 - log;
    let unit = (1_u64 << 62) / u64::from(total);
    let rare = total >> log;
    let mut shares = [0; MAX_SYMBOLS];
    let mut left = 1_i16 << log;
    let (mut largest, mut largest_share) = (0, 0);
    for (symbol, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        if *count <= rare {
            shares[symbol] = -1;
            left -= 1;
            continue;
        }
        let exact = u64::from(*count) * unit;
        let mut share = (exact >> scale) as i16;
        if let Some(bound) = ROUND_UP.get(share as usize) {
            let over = exact - ((share as u64) << scale);
            share += i16::from(over > bound << (scale - 20));
        }
        if share > largest_share {
            (largest, largest_share) = (symbol, share);
        }
        shares[symbol] = share;
        left -= share;
    }
    if -left >= shares[largest] >> 1 {
        return normalize_flat(counts, total, log);
    }
    shares[largest] += left;
    Some(shares)
}

/// Scales where [`normalize`] would take too much from the most frequent symbol.
fn normalize_flat(counts: &[u32], total: u32, log: u32) -> Option<[i16; MAX_SYMBOLS]> {
    const OPEN: i16 = -2;
    let rare = total >> log;
    let mut one = (total * 3) >> (log + 1);
    let mut rest = total;
    let mut given = 0_u32;
    let mut shares = [0; MAX_SYMBOLS];
    for (share, count) in shares.iter_mut().zip(counts).filter(|(_, count)| **count > 0) {
        *share = match *count {
            count if count <= rare => -1,
            count if count <= one => 1,
            _ => OPEN,
        };
        if *share != OPEN {
            given += 1;
            rest -= count;
        }
    }
    let mut left = (1_u32 << log).checked_sub(given)?;
    if rest.checked_div(left)? > one {
        one = (rest * 3) / (left * 2);
        for (share, count) in shares.iter_mut().zip(counts) {
            if *share == OPEN && *count <= one {
                *share = 1;
                given += 1;
                rest -= count;
            }
        }
        left = (1_u32 << log).checked_sub(given)?;
    }
    if rest == 0 {
        hand_out(&mut shares[..counts.len()], left);
        return Some(shares);
    }
    let scale = 62 - log;
    let half = (1_u64 << (scale - 1)) - 1;
    let unit = ((u64::from(left) << scale) + half) / u64::from(rest);
    let mut done = half;
    for (share, count) in shares.iter_mut().zip(counts).filter(|(share, _)| **share == OPEN) {
        let end = done + u64::from(*count) * unit;
        *share = ((end >> scale) - (done >> scale)) as i16;
        if *share < 1 {
            return None;
        }
        done = end;
    }
    Some(shares)
}

/// Hands out what is left, one by one, among the symbols that have a share.
fn hand_out(shares: &mut [i16], mut left: u32) {
    while left > 0 && shares.iter().any(|share| *share > 0) {
        for share in shares.iter_mut().filter(|share| **share > 0) {
            if left > 0 {
                *share += 1;
                left -= 1;
            }
        }
    }
}
