//! Password files as Apache's tools and ours write them, and those that must be refused.

use std::time::{Duration, Instant};

use super::*;
use proptest::prelude::*;

/// The password of every good line here.
const PASSWORD: &str = "hunter2";
/// Costs as little as an argon2id hash can.
const CHEAP: &str = "$argon2id$v=19$m=8,t=1,p=1$";

fn bcrypt_hash(prefix: &str) -> String {
    bcrypt::hash_with_salt(PASSWORD, 4, [7; 16]).unwrap().to_string().replacen("$2b$", prefix, 1)
}

fn cheap_argon2id() -> String {
    let params = Params::new(8, 1, 1, None).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_with_salt(PASSWORD.as_bytes(), &[9; 16]).unwrap().to_string()
}

fn refused(text: &str) -> PasswordError {
    Passwords::parse(text).expect_err("refused")
}

#[test]
fn good_lines_let_their_users_in() {
    let text = format!(
        "# users of the site\n\nanna:{}\nbert:{}\r\ncleo:{}\ndora:{}\n",
        bcrypt_hash("$2a$"),
        bcrypt_hash("$2b$"),
        bcrypt_hash("$2y$"),
        cheap_argon2id(),
    );
    let passwords = Passwords::parse(&text).unwrap();
    assert_eq!(passwords.len(), 4);
    for user in ["anna", "bert", "cleo", "dora"] {
        assert!(passwords.verify(user, PASSWORD), "{user}");
        assert!(!passwords.verify(user, "hunter3"), "{user}");
        assert!(!passwords.verify(user, ""), "{user}");
        assert!(!passwords.verify(user, &PASSWORD.repeat(200)), "{user}");
    }
    // Whoever stands in for a stranger has this very password.
    for stranger in ["emil", "", "anna ", "ANNA", "anna:"] {
        assert!(!passwords.verify(stranger, PASSWORD), "{stranger}");
    }
}

#[test]
fn what_another_implementation_wrote_is_understood() {
    // From the crypt(3) of libxcrypt.
    let passwords =
        Passwords::parse("other:$2y$05$Ck4ojGuw0Ve1XZ7RM5KHveIpIZDxLO1nwxoLYaMga.jMsdy3JKUXa").unwrap();
    assert!(passwords.verify("other", PASSWORD) && !passwords.verify("other", "hunter3"));
}

#[test]
fn nobody_gets_in_without_users() {
    let passwords = Passwords::parse("# nobody yet\n").unwrap();
    assert!(passwords.is_empty());
    assert!(!passwords.verify("anna", PASSWORD));
}

#[test]
fn lines_that_are_refused_say_where_and_what_to_do() {
    let good = format!("anna:{}", bcrypt_hash("$2y$"));
    for (line, expected) in [
        ("anna", "not a user and a hash"),
        (":x", "not a user name"),
        ("a\tb:x", "not a user name"),
        (&good, "also on line 1"),
        ("bob:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/", "MD5 ($apr1$)"),
        ("bob:{SHA}2PRZAyDhNDqRW2OUFwZQqPNdaSY=", "SHA-1"),
        ("bob:$6$salt$hash", "SHA-512 crypt"),
        ("bob:$2x$05$xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "$2x$"),
        ("bob:$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo", "argon2i instead"),
        ("bob:hunter2", "plain text or crypt"),
        ("bob:", "plain text or crypt"),
        ("bob:$2y$05$tooshort", "damaged"),
        ("bob:$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ", "damaged"),
        ("bob:$argon2id$v=16$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo", "damaged"),
        ("bob:$argon2id$v=19$m=262145,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo", "too much memory"),
        ("bob:$argon2id$v=19$m=8,t=17,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo", "too long"),
        (&format!("bob:{}", bcrypt_hash("$2y$").replacen("$04$", "$17$", 1)), "too long"),
        (&format!("bob:{}", bcrypt_hash("$2y$").replacen("$04$", "$03$", 1)), "damaged"),
        (&format!("bob:{}", "x".repeat(2000)), "at most 1024 bytes"),
    ] {
        let error = refused(&format!("{good}\n\n{line}\n"));
        assert_eq!(error.line, 3, "{line}");
        assert!(error.to_string().contains(expected), "{line}: {error}");
        assert!(!error.to_string().contains("hunter2"), "a message shows a password: {error}");
    }
}

#[test]
fn the_number_of_users_is_limited() {
    let hash = cheap_argon2id();
    let users = |count: usize| (0..count).map(|i| format!("u{i}:{hash}\n")).collect::<String>();
    assert_eq!(Passwords::parse(&users(MAX_USERS)).unwrap().len(), MAX_USERS);
    assert_eq!(
        refused(&users(MAX_USERS + 1)),
        PasswordError { line: MAX_USERS + 1, reason: Reason::TooMuch }
    );
}

#[test]
fn nothing_of_a_hash_is_shown() {
    let passwords = Passwords::parse(&format!("anna:{}", cheap_argon2id())).unwrap();
    let shown = format!("{passwords:?}");
    assert!(!shown.contains("anna") && !shown.contains('$'), "{shown}");
}

#[test]
fn a_line_that_was_made_is_accepted() {
    let line = line("anna", PASSWORD, [3; SALT_LEN]).unwrap();
    assert!(line.starts_with("anna:$argon2id$v=19$m=19456,t=2,p=1$"), "{line}");
    let passwords = Passwords::parse(&line).unwrap();
    assert!(passwords.verify("anna", PASSWORD) && !passwords.verify("anna", "other"));
}

#[test]
fn lines_that_could_not_be_read_back_are_not_made() {
    for user in ["", "a:b", "#a", "a\nb", &"a".repeat(256)] {
        assert_eq!(line(user, PASSWORD, [0; SALT_LEN]), Err(LineError::User), "{user:?}");
    }
    for password in ["", &"x".repeat(MAX_PASSWORD_LEN + 1)] {
        assert_eq!(line("anna", password, [0; SALT_LEN]), Err(LineError::Password));
    }
}

/// Not a measurement: without a hash to check, an answer takes a thousandth of the time, on a busy machine too.
#[test]
fn strangers_take_as_long_as_users() {
    let hash = bcrypt::hash_with_salt(PASSWORD, 9, [7; 16]).unwrap();
    let passwords = Passwords::parse(&format!("anna:{hash}")).unwrap();
    let fastest = |user: &str| {
        (0..5).fold(Duration::MAX, |best, _| {
            let begun = Instant::now();
            assert!(!passwords.verify(user, "wrong"));
            best.min(begun.elapsed())
        })
    };
    let (user, stranger) = (fastest("anna"), fastest("emil"));
    assert!(stranger * 50 > user, "a stranger takes {stranger:?}, a user {user:?}");
}

#[test]
fn a_stranger_is_always_checked_against_the_same_hash() {
    let text: String = (4..8)
        .map(|cost| format!("u{cost}:{}\n", bcrypt::hash_with_salt(PASSWORD, cost, [7; 16]).unwrap()))
        .collect();
    let passwords = Passwords::parse(&text).unwrap();
    let line = |name: &str| passwords.stand_in(name).unwrap().line;
    let names: Vec<String> = (0..100).map(|i| format!("stranger{i}")).collect();
    assert!(names.iter().all(|name| line(name) == line(name)));
    let lines: std::collections::BTreeSet<usize> = names.iter().map(|name| line(name)).collect();
    assert_eq!(lines.len(), 4, "strangers are spread as users are");
}

proptest! {
    #[test]
    fn no_text_panics(text in "(?s).{0,300}", user in ".{0,20}", password in ".{0,20}") {
        if let Ok(passwords) = Passwords::parse(&text) {
            passwords.verify(&user, &password);
        }
    }

    #[test]
    fn no_damage_to_a_hash_panics(at in 0..120_usize, with in any::<char>(), argon in any::<bool>()) {
        let hash = if argon { cheap_argon2id() } else { bcrypt_hash("$2y$") };
        let damaged: String =
            hash.chars().enumerate().map(|(i, c)| if i == at { with } else { c }).collect();
        // Not verified: damage may make a hash legitimately expensive.
        let _ = Passwords::parse(&format!("anna:{damaged}"));
    }

    #[test]
    fn no_argon2id_parameters_panic(tail in "[0-9a-z,=$+/A-Z]{0,60}") {
        let _ = Passwords::parse(&format!("anna:$argon2id${tail}"));
        let _ = Passwords::parse(&format!("anna:{CHEAP}{tail}"));
    }
}
