//! Decision tables for access rules, and properties of patterns.

use super::*;
use proptest::prelude::*;

fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn caller(who: &str) -> Caller {
    match who {
        "nobody" => Caller::default(),
        "local" => Caller { local: true, ..Caller::default() },
        user => Caller { user: Some(user.into()), ..Caller::default() },
    }
}

/// What `who` may do with `repository`, as one letter per action.
fn rights(rules: &Rules, who: &str, repository: &str) -> String {
    let name = repository.parse().unwrap();
    let may = |action| rules.allows(&caller(who), action, &name);
    [(Action::Pull, 'r'), (Action::Push, 'w'), (Action::Delete, 'd')]
        .into_iter()
        .filter(|(action, _)| may(*action))
        .map(|(_, letter)| letter)
        .collect()
}

fn example() -> Access {
    Access {
        logins: true,
        trust_loopback: None,
        groups: BTreeMap::from([("dev".to_owned(), set(&["alice", "bob"]))]),
        rules: vec![
            Rule {
                repositories: patterns(&["public/**"]),
                allow: [Action::Pull].into(),
                anonymous: true,
                ..Rule::default()
            },
            Rule {
                repositories: patterns(&["team/*", "library/debian"]),
                allow: [Action::Pull, Action::Push].into(),
                groups: set(&["dev"]),
                ..Rule::default()
            },
            Rule {
                repositories: patterns(&["**"]),
                allow: Action::ALL.into(),
                users: set(&["root"]),
                ..Rule::default()
            },
            Rule {
                repositories: patterns(&["shared/**"]),
                allow: [Action::Pull].into(),
                logged_in: true,
                ..Rule::default()
            },
            Rule {
                repositories: patterns(&["**"]),
                allow: [Action::Pull].into(),
                local: true,
                ..Rule::default()
            },
        ],
    }
}

#[test]
fn what_nobody_said_anything_about() {
    // (password file, trust_loopback) -> rights of nobody, of local callers, of a user
    for (passwords, trust_loopback, expected) in [
        (false, None, ["", "rwd", "rwd"]),
        (true, None, ["", "", "rwd"]),
        (false, Some(false), ["", "", "rwd"]),
        (true, Some(true), ["", "rwd", "rwd"]),
    ] {
        let rules = Rules::new(Access { logins: passwords, trust_loopback, ..Access::default() }).unwrap();
        let found = ["nobody", "local", "alice"].map(|who| rights(&rules, who, "any/thing"));
        assert_eq!(found, expected, "passwords: {passwords}, trust_loopback: {trust_loopback:?}");
    }
}

#[test]
fn with_rules_only_they_count() {
    let rules = Rules::new(example()).unwrap();
    for (repository, expected) in [
        // of nobody, local, alice (dev), carol (no group), root
        ("public/a/b", ["r", "r", "r", "r", "rwd"]),
        ("team/app", ["", "r", "rw", "", "rwd"]),
        ("team/app/debug", ["", "r", "", "", "rwd"]),
        ("library/debian", ["", "r", "rw", "", "rwd"]),
        ("library/debian-slim", ["", "r", "", "", "rwd"]),
        ("shared/x", ["", "r", "r", "r", "rwd"]),
        ("other", ["", "r", "", "", "rwd"]),
    ] {
        let found = ["nobody", "local", "alice", "carol", "root"].map(|who| rights(&rules, who, repository));
        assert_eq!(found, expected, "{repository}");
    }
}

#[test]
fn a_user_on_this_machine_has_the_rights_of_both() {
    let rules = Rules::new(example()).unwrap();
    let both = Caller { user: Some("alice".into()), local: true, ..Caller::default() };
    assert!(rules.allows(&both, Action::Pull, &"other".parse().unwrap()));
    assert!(rules.allows(&both, Action::Push, &"team/app".parse().unwrap()));
    assert!(!rules.allows(&both, Action::Push, &"other".parse().unwrap()));
}

#[test]
fn rules_take_trust_from_loopback_unless_it_is_asked_for() {
    let mut access = example();
    access.rules.pop();
    let rules = Rules::new(access.clone()).unwrap();
    assert_eq!(rights(&rules, "local", "other"), "");
    access.trust_loopback = Some(true);
    let rules = Rules::new(access).unwrap();
    assert_eq!(rights(&rules, "local", "other"), "rwd");
}

#[test]
fn who_is_answered_without_asking_about_a_repository() {
    let admitted = |access: &Access| {
        let rules = Rules::new(access.clone()).unwrap();
        ["nobody", "local", "alice"].map(|who| rules.admits(&caller(who)))
    };
    let untouched = Access::default();
    assert_eq!(admitted(&untouched), [false, true, true]);
    let users = Access { logins: true, ..Access::default() };
    assert_eq!(admitted(&users), [false, false, true]);
    // Anonymous callers may pull something here and are still asked to log in, so that docker does.
    assert_eq!(admitted(&example()), [false, false, true]);
    let trusting = Access { trust_loopback: Some(true), ..example() };
    assert_eq!(admitted(&trusting), [false, true, true]);
    let mut open = Access { logins: false, ..example() };
    open.rules.truncate(1);
    assert_eq!(admitted(&open), [true, true, true]);
}

#[test]
fn rules_that_cannot_be_meant_are_refused() {
    let change = |index: usize, change: fn(&mut Rule)| {
        let mut access = example();
        change(&mut access.rules[index]);
        Rules::new(access).err()
    };
    assert_eq!(change(0, |rule| rule.repositories.clear()), Some(AccessError::Nothing(1)));
    assert_eq!(change(1, |rule| rule.allow.clear()), Some(AccessError::Nothing(2)));
    assert_eq!(change(2, |rule| rule.users.clear()), Some(AccessError::Nobody(3)));
    assert_eq!(
        change(1, |rule| rule.groups = set(&["devs"])),
        Some(AccessError::UnknownGroup { rule: 2, group: "devs".to_owned() })
    );
    let unknown = Access { logins: false, ..example() };
    assert_eq!(Rules::new(unknown).err(), Some(AccessError::NoLogins(2)));
    let mut many = example();
    many.rules = vec![many.rules[0].clone(); MAX_RULES + 1];
    assert_eq!(Rules::new(many).err(), Some(AccessError::TooMany(MAX_RULES + 1)));
}

#[test]
fn patterns_match_as_documented() {
    for (pattern, fits, does_not) in [
        ("team/app", &["team/app"][..], &["team", "team/ap", "team/app2", "team/app/x", "xteam/app"][..]),
        ("team/*", &["team/app", "team/a-b.c"], &["team", "team/app/debug", "teams/app"]),
        ("team/**", &["team/app", "team/app/debug"], &["team", "teams/app"]),
        ("**", &["a", "a/b/c"], &[]),
        ("*", &["a", "debian"], &["a/b"]),
        ("*/debian", &["library/debian"], &["debian", "a/b/debian", "library/debian2"]),
        ("**/debian", &["library/debian", "a/b/debian"], &["debian"]),
        ("**debian", &["library/debian", "debian", "mydebian"], &["debian/x"]),
        ("a*b*c", &["abc", "axbxc", "abbcc"], &["ab/c", "a/bc", "abcd"]),
        ("a**b*c", &["abc", "a/x/bzc", "ab/bc"], &["ab/c", "a/b/c"]),
        ("*-prod/**/web*", &["x-prod/y/web1", "-prod/y/z/web"], &["x-prod/web", "x-prod/y/web/z"]),
    ] {
        let pattern: Pattern = pattern.parse().unwrap();
        for name in fits {
            assert!(pattern.matches(name), "{pattern} fits {name}");
        }
        for name in does_not {
            assert!(!pattern.matches(name), "{pattern} does not fit {name}");
        }
    }
}

#[test]
fn texts_that_are_no_patterns() {
    for (text, expected) in [
        ("", PatternError::Empty),
        ("Team/*", PatternError::Character('T')),
        ("team/[ab]", PatternError::Character('[')),
        ("team/?", PatternError::Character('?')),
        ("/team", PatternError::Slash),
        ("team/", PatternError::Slash),
        ("team//x", PatternError::Slash),
        ("team/***", PatternError::Stars),
        (&"a".repeat(256), PatternError::Length),
    ] {
        assert_eq!(text.parse::<Pattern>(), Err(expected), "{text}");
    }
}

#[test]
fn actions_are_written_as_they_are_read() {
    for action in Action::ALL {
        assert_eq!(action.to_string().parse(), Ok(action));
    }
    assert_eq!("Pull".parse::<Action>(), Err(ActionError));
}

/// What a pattern means, without any care for time.
fn means(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', b'*', rest @ ..], _) => (0..=name.len()).any(|taken| means(rest, &name[taken..])),
        ([b'*', rest @ ..], _) => {
            let component = name.iter().take_while(|byte| **byte != b'/').count();
            (0..=component).any(|taken| means(rest, &name[taken..]))
        }
        ([expected, rest @ ..], [found, name @ ..]) => expected == found && means(rest, name),
        _ => false,
    }
}

proptest! {
    #[test]
    fn a_pattern_matches_what_it_means(pattern in "[ab/*]{1,9}", name in "[ab/]{0,12}") {
        if let Ok(parsed) = pattern.parse::<Pattern>() {
            prop_assert_eq!(parsed.matches(&name), means(pattern.as_bytes(), name.as_bytes()));
        }
    }

    #[test]
    fn a_name_is_a_pattern_for_itself_alone(name in "[a-z]{1,5}(/[a-z]{1,5}){0,3}", other in "[a-z/]{1,10}") {
        let pattern: Pattern = name.parse().unwrap();
        prop_assert!(pattern.matches(&name));
        prop_assert_eq!(pattern.matches(&other), name == other);
    }

    #[test]
    fn no_pattern_and_no_name_panic(pattern in ".{0,300}", name in ".{0,300}") {
        if let Ok(pattern) = pattern.parse::<Pattern>() {
            pattern.matches(&name);
        }
    }
}
