//! How many bits a block takes at least, as the encoder reckons it.
//!
//! The logarithm is that of FreeBSD's `e_log.c`, which Go's `math.Log` follows (BSD-style licence of Sun
//! Microsystems): another one may differ in the last bit.

use std::f64::consts::{FRAC_1_SQRT_2, LOG2_E};

/// The entropy of the bytes in bits, rounded up for each value.
pub(super) fn bits(bytes: &[u8]) -> usize {
    let mut counts = [0_u32; 256];
    bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let share = 1.0 / bytes.len() as f64;
    let each = counts.iter().filter(|count| **count > 0).map(|count| {
        let count = f64::from(*count);
        (-log2(count * share) * count).ceil()
    });
    each.sum::<f64>().ceil() as usize
}

/// The binary logarithm of a number above 0 that is not subnormal.
fn log2(x: f64) -> f64 {
    const EXPONENT: u64 = 0x7ff << 52;
    let bits = x.to_bits();
    let exponent = ((bits & EXPONENT) >> 52) as f64 - 1022.0;
    // From 0.5 to below 1.
    let fraction = f64::from_bits(bits & !EXPONENT | 1022 << 52);
    if fraction == 0.5 { exponent - 1.0 } else { ln(fraction) * LOG2_E + exponent }
}

/// The natural logarithm of a number from 0.5 to below 1.
fn ln(x: f64) -> f64 {
    const HALVES: [f64; 2] = [f64::from_bits(0x3fe6_2e42_fee0_0000), f64::from_bits(0x3dea_39ef_3579_3c76)];
    const TERMS: [f64; 7] = [
        f64::from_bits(0x3fe5_5555_5555_5593),
        f64::from_bits(0x3fd9_9999_9997_fa04),
        f64::from_bits(0x3fd2_4924_9422_9359),
        f64::from_bits(0x3fcc_71c5_1d8e_78af),
        f64::from_bits(0x3fc7_4664_96cb_03de),
        f64::from_bits(0x3fc3_9a09_d078_c69f),
        f64::from_bits(0x3fc2_f112_df3e_5244),
    ];
    let (x, exponent) = if x < FRAC_1_SQRT_2 { (x * 2.0, -1.0) } else { (x, 0.0) };
    let f = x - 1.0;
    let s = f / (2.0 + f);
    let s2 = s * s;
    let s4 = s2 * s2;
    let odd = s2 * (TERMS[0] + s4 * (TERMS[2] + s4 * (TERMS[4] + s4 * TERMS[6])));
    let even = s4 * (TERMS[1] + s4 * (TERMS[3] + s4 * TERMS[5]));
    let square = 0.5 * f * f;
    exponent * HALVES[0] - ((square - (s * (square + (odd + even)) + exponent * HALVES[1])) - f)
}
