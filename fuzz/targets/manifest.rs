//! What parses as a manifest is either an image or an index, stays within the limits, and can be shown in a list of
//! referrers that reads back as it was.

#![no_main]

use deltaport_oci::manifest::{Limits, View};
use deltaport_oci::{Descriptor, Digest, media_type};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for media_type in media_type::MANIFEST_ACCEPT {
        let Ok(view) = View::parse(media_type, bytes, Limits::DEFAULT) else { continue };
        assert_eq!(view.is_index(), media_type::is_index(media_type));
        assert!(if view.is_index() {
            view.config.is_none() && view.layers.is_empty()
        } else {
            view.manifests.is_empty()
        });
        assert!(view.blobs().count() <= view.layers.len() + 1);
        assert!(view.layers.len() + view.manifests.len() <= Limits::DEFAULT.descriptors);
        let shown = view.referrer(Digest::sha256(bytes), bytes.len() as u64);
        let json = serde_json::to_vec(&shown).expect("texts and numbers");
        assert_eq!(serde_json::from_slice::<Descriptor>(&json).expect("we wrote it"), shown);
    }
});
