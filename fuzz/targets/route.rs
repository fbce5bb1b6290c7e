//! A path that means something is rendered as a path that means the same, and names no repository that is none.

#![no_main]

use deltaport_oci::RepositoryName;
use deltaport_oci::wire::Route;

libfuzzer_sys::fuzz_target!(|path: &str| {
    if let Ok(route) = Route::parse(path) {
        if let Some(name) = route.repository() {
            assert_eq!(name.as_str().parse::<RepositoryName>().as_ref(), Ok(name));
        }
        // An identifier of an upload may be any text; it is looked up and never part of a path on disk.
        if !matches!(route, Route::Upload(..)) {
            assert_eq!(Route::parse(&route.to_string()), Ok(route));
        }
    }
});
