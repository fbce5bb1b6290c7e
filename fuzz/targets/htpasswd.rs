//! A password file is read or refused, line by line, without a password being checked that would take minutes; and no
//! message shows what stands behind a colon.

#![no_main]

use deltaport_trust::Passwords;

libfuzzer_sys::fuzz_target!(|text: &str| {
    match Passwords::parse(text) {
        Ok(passwords) => assert!(passwords.len() <= text.lines().count()),
        Err(error) => assert!((1..=text.lines().count().max(1)).contains(&error.line)),
    }
});
