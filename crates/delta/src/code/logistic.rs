//! The logistic curve and its inverse, as tables that integer arithmetic makes.
//!
//! Both ends of a delta must compute the same probabilities to the last bit, on every platform, so nothing here or
//! above it uses a floating-point number. Mixing in the logistic domain is an idea of the PAQ family of compressors
//! (Matt Mahoney); the tables are computed here from the exponential series.

/// The largest argument of [`squash`], in 1/256: e^12 is 162755 to 1, more than a probability of 16 bits can say.
pub(super) const STEEPEST: i32 = 12 * 256 - 1;

/// The bits behind the point in the exponentials below.
const POINT: u32 = 48;

/// e^(1/256) with [`POINT`] bits behind the point.
const fn step() -> u128 {
    let (mut sum, mut term, mut n) = (0_u128, 1_u128 << POINT, 1_u128);
    while term > 0 {
        sum += term;
        term /= 256 * n;
        n += 1;
    }
    sum
}

/// 65536 / (1 + e^-x) for x = 0, 1/256, 2/256 ...; the other half of the curve is its mirror image.
const SQUASH: [u16; STEEPEST as usize + 1] = {
    let mut table = [0; STEEPEST as usize + 1];
    let (one, step) = (1_u128 << POINT, step());
    let (mut power, mut x) = (one, 0);
    while x < table.len() {
        let value = (power << 16) / (power + one);
        table[x] = if value > 65535 { 65535 } else { value as u16 };
        power = (power * step) >> POINT;
        x += 1;
    }
    table
};

static UPPER: [u16; STEEPEST as usize + 1] = SQUASH;

/// ln(p / (1 - p)) in 1/256, for the middle of each of 4096 equal intervals of p.
static STRETCH: [i16; 4096] = {
    let mut table = [0; 4096];
    let (mut x, mut n) = (0, 2048);
    while n < 4096 {
        while x < STEEPEST as usize && (SQUASH[x] as usize) < n * 16 + 8 {
            x += 1;
        }
        table[n] = x as i16;
        table[4095 - n] = -(x as i16);
        n += 1;
    }
    table
};

/// The probability, in 1/65536 and never 0 or 1, whose logit is `x` / 256.
#[inline]
pub(super) fn squash(x: i32) -> u16 {
    let x = x.clamp(-STEEPEST, STEEPEST);
    if x >= 0 { UPPER[x as usize] } else { (65536 - u32::from(UPPER[x.unsigned_abs() as usize])) as u16 }
}

/// The logit, in 1/256 and between -2400 and 2400, of the probability `p` / 65536.
#[inline]
pub(super) fn stretch(p: u16) -> i32 {
    i32::from(STRETCH[usize::from(p >> 4)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_is_the_logistic_one() {
        for x in -STEEPEST..=STEEPEST {
            let exact = 65536.0 / (1.0 + (-f64::from(x) / 256.0).exp());
            assert!((f64::from(squash(x)) - exact).abs() <= 1.0, "{x}: {} for {exact}", squash(x));
            assert!(squash(x) > 0 && squash(x) >= squash(x - 1));
        }
    }

    #[test]
    fn stretch_goes_the_way_back() {
        for p in 1..=u16::MAX {
            let back = i32::from(squash(stretch(p)));
            let width = 24 + i32::from(p.min(u16::MAX - p)) / 128;
            assert!((back - i32::from(p)).abs() <= width, "{p}: {back}");
            assert!(stretch(p).abs() <= 2400);
        }
    }
}
