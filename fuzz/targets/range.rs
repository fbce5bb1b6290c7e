//! Whatever a `Range` header says, what is sent are parts of the content, in order, apart from each other and not too
//! many. The first byte of the input is the exponent of the size.

#![no_main]

use deltaport_oci::wire::{MAX_RANGES, Ranges};

libfuzzer_sys::fuzz_target!(|input: (u8, &str)| {
    let size = 1_u64.checked_shl(u32::from(input.0)).unwrap_or(0);
    let ranges = match Ranges::parse(input.1, size) {
        Ranges::Full | Ranges::Unsatisfiable => Vec::new(),
        Ranges::Single(range) => vec![range],
        Ranges::Multiple(ranges) => {
            assert!((2..=MAX_RANGES).contains(&ranges.len()));
            ranges
        }
    };
    assert!(ranges.iter().all(|range| range.start < range.end && range.end <= size && range.len() > 0));
    assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
    assert!(ranges.iter().all(|range| range.content_range(size).ends_with(&format!("/{size}"))));
});
