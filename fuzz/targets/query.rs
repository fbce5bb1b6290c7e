//! Every query string parses, and what was rendered reads back.

#![no_main]

use deltaport_oci::wire::Query;

libfuzzer_sys::fuzz_target!(|input: (&str, &str, &str)| {
    let _ = Query::parse(input.2).first(input.0);
    let text = Query::render([(input.0, input.1), (input.0, input.2)]);
    let query = Query::parse(&text);
    assert!(query.all(input.0).eq([input.1, input.2]));
});
