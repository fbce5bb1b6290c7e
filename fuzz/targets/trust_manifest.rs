//! A manifest of signatures asks for few blobs and small ones, and takes no other bytes for them.

#![no_main]

use deltaport_trust::signatures::{MAX_BUNDLE_LEN, MAX_DOCUMENTS, layers};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok(layers) = layers(input) else { return };
    assert!(layers.len() <= MAX_DOCUMENTS);
    for layer in layers {
        assert!(layer.size() <= MAX_BUNDLE_LEN as u64);
        let named = layer.digest();
        if layer.with(input.to_vec()).is_ok() {
            panic!("a manifest that has its own digest, {named}");
        }
    }
});
