use deltaport_oci::Tag;

use super::{NewestBy, Pattern, PatternError, Range, RangeError, Selection, Version};

fn selection(patterns: &[&str], range: Option<&str>, newest: Option<usize>) -> Selection {
    Selection {
        patterns: patterns.iter().map(|text| text.parse().unwrap()).collect(),
        range: range.map(|text| text.parse().unwrap()),
        newest,
        ..Selection::default()
    }
}

fn tags(names: &[&str]) -> Vec<Tag> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[test]
fn a_regular_expression_is_about_the_whole_tag() {
    for (expression, fits, does_not) in [
        ("regex:v[0-9]+", &["v1", "v22"][..], &["v", "v1.2", "xv1"][..]),
        (r"regex:v\d+\.\d+", &["v1.2"], &["v1.2.3", "v1"]),
        ("regex:a|bc", &["a", "bc"], &["abc", "ac", "b"]),
        ("regex:", &[], &["a"]),
        ("regex:(?i)RC.*", &["rc1", "Rc"], &["1rc"]),
        // What would end the expression in front of its end does not.
        ("regex:a$|b", &["a", "b"], &["ab", "ba"]),
        ("v*", &["v", "v1"], &["1v"]),
    ] {
        let pattern: Pattern = expression.parse().unwrap();
        for tag in fits {
            assert!(pattern.matches(&tag.parse().unwrap()), "{expression} {tag}");
        }
        for tag in does_not {
            assert!(!pattern.matches(&tag.parse().unwrap()), "{expression} {tag}");
        }
        assert_eq!(pattern.to_string(), expression);
        assert_eq!(expression.parse::<Pattern>().unwrap(), pattern);
    }
    for text in [
        "regex:(",
        "regex:a)|(b",
        "regex:[",
        "regex:(a{1000}){1000}",
        "regex:a{9999999}",
        &format!("regex:{}", "(".repeat(100)),
    ] {
        assert!(matches!(text.parse::<Pattern>(), Err(PatternError::Regex(_))), "{text}");
    }
    assert!(format!("regex:{}", "a".repeat(513)).parse::<Pattern>().is_err());
    assert_eq!("v?".parse::<Pattern>(), Err(PatternError::Glob));
    assert_eq!("regexp:a".parse::<Pattern>(), Err(PatternError::Glob));
    // It takes no time that grows out of bounds either.
    let slow: Pattern = "regex:(a*)*(a*)*b".parse().unwrap();
    assert!(!slow.matches(&"a".repeat(128).parse().unwrap()));
}

#[test]
fn exceptions_are_taken_out_before_the_newest_are_counted() {
    let all = tags(&["1.0.0", "1.1.0", "1.2.0", "1.2.0-debug", "1.3.0", "latest"]);
    for (patterns, except, newest, expected) in [
        (&["*"][..], &["1.3.0"][..], Some(2), &["1.1.0", "1.2.0"][..]),
        (&["1.*"], &["*-debug", r"regex:1\.[01]\..*"], None, &["1.2.0", "1.3.0"]),
        (&["*"], &["*"], None, &[]),
    ] {
        let selection = Selection {
            except: except.iter().map(|text| text.parse().unwrap()).collect(),
            ..selection(patterns, None, newest)
        };
        assert_eq!(
            selection.select(&all).iter().map(Tag::as_str).collect::<Vec<_>>(),
            expected,
            "{except:?}"
        );
    }
    let named = Selection { except: vec!["b*".parse().unwrap()], ..selection(&["a", "b"], None, None) };
    assert_eq!(named.named().unwrap().iter().map(Tag::as_str).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn the_newest_by_date() {
    let selection = Selection { newest_by: NewestBy::Created, ..selection(&["*"], None, Some(2)) };
    assert!(selection.needs_dates());
    let all = tags(&["a", "b", "c", "d"]);
    assert_eq!(selection.select(&all).len(), 4, "all may be");
    for (dates, expected) in [
        ([Some(1), Some(4), Some(3), Some(2)], ["b", "c"]),
        ([Some(1), None, None, Some(-5)], ["a", "d"]),
        ([None, None, None, None], ["c", "d"]),
        ([Some(7), Some(7), Some(7), Some(1)], ["b", "c"]),
    ] {
        let dated = all.iter().cloned().zip(dates);
        let dated = dated.map(|(tag, at)| (tag, at.map(|at| jiff::Timestamp::from_second(at).unwrap())));
        let newest = selection.newest_of(dated.collect());
        assert_eq!(newest.iter().map(Tag::as_str).collect::<Vec<_>>(), expected, "{dates:?}");
    }
    let ranged = Selection { range: Some(">=1".parse().unwrap()), ..selection.clone() };
    let all = tags(&["0.9", "1.0", "1.1", "1.2", "edge"]);
    assert_eq!(ranged.select(&all).len(), 3, "in the range, of any date");
    let named = Selection { patterns: vec!["a".parse().unwrap(), "b".parse().unwrap()], ..selection };
    assert_eq!(named.named().map(|tags| tags.len()), Some(2), "which there are is known");
}

#[test]
fn tags_are_selected_by_pattern_range_and_age() {
    let signature = format!("sha256-{}.sig", "ab".repeat(32));
    let list = format!("sha256-{}", "ab".repeat(32));
    let tags: Vec<Tag> = [
        "latest",
        "1",
        "1.9",
        "1.9.3",
        "1.10.0",
        "v2.0.0",
        "2.1.0-rc.2",
        "2.1.0-rc.10",
        "2.1.0",
        "edge-1",
        &signature,
        &list,
    ]
    .iter()
    .map(|tag| tag.parse().unwrap())
    .collect();
    for (patterns, range, newest, expected) in [
        (&["latest"][..], None, None, &["latest"][..]),
        (&["no-such"], None, None, &[]),
        (&["1.*", "edge-*"], None, None, &["1.10.0", "1.9", "1.9.3", "edge-1"]),
        (&["*"], Some(">=1.10, <2.1"), None, &["1.10.0", "v2.0.0"]),
        (&["*"], Some("^1.9"), None, &["1.10.0", "1.9", "1.9.3"]),
        (&["*"], Some(">=2.1.0-rc.9"), None, &["2.1.0", "2.1.0-rc.10"]),
        (&["*"], None, Some(2), &["2.1.0", "v2.0.0"]),
        (&["1.*"], None, Some(1), &["1.10.0"]),
        (&["*"], Some("<2"), Some(2), &["1.10.0", "1.9.3"]),
        (&["*-rc.*"], None, Some(1), &[]),
        (&["*.sig", "sha256-*"], None, None, &[]),
    ] {
        let selected = selection(patterns, range, newest).select(&tags);
        let selected: Vec<&str> = selected.iter().map(Tag::as_str).collect();
        assert_eq!(selected, expected, "{patterns:?} {range:?} {newest:?}");
    }
}

#[test]
fn only_patterns_without_a_star_name_their_tags() {
    let named = |patterns: &[&str], range, newest| selection(patterns, range, newest).named();
    assert_eq!(named(&["b", "a"], None, None).map(|tags| tags.len()), Some(2));
    assert_eq!(named(&["b", "a*"], None, None), None);
    assert_eq!(named(&["1.0"], Some(">=1"), None), None);
    assert_eq!(named(&["1.0"], None, Some(1)), None);
}

#[test]
fn versions_are_ordered_as_the_specification_says() {
    let in_order = [
        "0.9.9",
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "1.0.1",
        "1.2",
        "1.10",
        "v2",
    ];
    for pair in in_order.windows(2) {
        let [a, b] = [pair[0], pair[1]].map(|text| Version::parse(text).unwrap());
        assert!(a < b, "{pair:?}");
    }
    assert_eq!(Version::parse("v1.2"), Version::parse("1.2.0"));
    for text in ["", "v", "latest", "1.2.3.4", "1..2", "1.x", "1.2-", "-1", "+1", "99999999999999999999"] {
        assert_eq!(Version::parse(text), None, "{text}");
    }
}

#[test]
fn ranges_hold_what_they_say() {
    for (range, inside, outside) in [
        ("1.2.3", &["1.2.3"][..], &["1.2.4", "1.2.2"][..]),
        ("1.2", &["1.2", "1.2.9"], &["1.3.0", "1.1.9", "1.2.9-rc1"]),
        ("^1.2.3", &["1.2.3", "1.9.0"], &["1.2.2", "2.0.0", "2.0.0-rc1"]),
        ("^0.2.3", &["0.2.3", "0.2.9"], &["0.3.0", "0.2.2"]),
        ("^0", &["0.0.1", "0.9.0"], &["1.0.0"]),
        ("~1.2.3", &["1.2.3", "1.2.9"], &["1.3.0"]),
        ("~1", &["1.0.0", "1.9.0"], &["2.0.0"]),
        (">1.2", &["1.3.0", "2"], &["1.2.5"]),
        ("<=1.2", &["1.2.5", "0.1"], &["1.3.0"]),
        (">1.2.3 <2", &["1.2.4", "1.9"], &["1.2.3", "2.0.0"]),
        ("=1.0.0-rc1", &["1.0.0-rc1"], &["1.0.0"]),
    ] {
        let parsed: Range = range.parse().unwrap();
        for version in inside {
            assert!(parsed.contains(&Version::parse(version).unwrap()), "{range} {version}");
        }
        for version in outside {
            assert!(!parsed.contains(&Version::parse(version).unwrap()), "{range} {version}");
        }
    }
    for text in
        ["", ",", "latest", ">=", ">> 1", "1.2.3.4", "1.x", "^18446744073709551615", &"1,".repeat(200)]
    {
        assert_eq!(text.parse::<Range>(), Err(RangeError), "{text}");
    }
}
