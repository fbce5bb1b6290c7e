//! A pattern of repositories that parses is its own text; one without stars matches itself alone; and matching takes
//! time that a pattern cannot blow up (the fuzzer's limit of time watches).

#![no_main]

use deltaport_trust::Pattern;

libfuzzer_sys::fuzz_target!(|input: (&str, &str)| {
    if let Ok(pattern) = input.0.parse::<Pattern>() {
        assert_eq!(pattern.to_string(), input.0);
        let matches = pattern.matches(input.1);
        if !input.0.contains('*') {
            assert_eq!(matches, input.0 == input.1);
        }
        assert!(
            pattern.matches(&input.0.replace('*', "")) || input.0.contains("*/") || input.0.contains("/*")
        );
    }
});
