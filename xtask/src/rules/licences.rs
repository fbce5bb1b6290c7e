//! Which licences the parts of the binary may have.

use anyhow::Result;

use super::{Offences, is_ours, packages, text};

/// Licences that ask for no more than their notice.
const PERMISSIVE: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Exceptions by package: a weaker copyleft that is kept by using the published source unchanged.
const EXCEPTIONS: [(&str, &str); 1] = [("option-ext", "MPL-2.0")];

pub(super) fn licences_are_permissive() -> Result<Offences> {
    let mut offences = Offences::new();
    for package in packages()?.filter(|package| !is_ours(package)) {
        let (name, licence) = (text(package, "name"), text(package, "license"));
        if !EXCEPTIONS.contains(&(name, licence)) && !allows(licence) {
            offences.push(format!("{name} is under {licence:?}"));
        }
    }
    Ok(offences)
}

/// Whether an SPDX expression can be satisfied with permissive licences; not when it is malformed. A slash is the old
/// spelling of `OR`.
fn allows(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    any(&mut rest) == Some(true) && rest.is_empty()
}

/// `all OR all OR ...`
fn any(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = all(rest)?;
    while let ["OR", tail @ ..] = rest {
        *rest = tail;
        allowed |= all(rest)?;
    }
    Some(allowed)
}

/// `one AND one AND ...`, which binds closer.
fn all(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = one(rest)?;
    while let ["AND", tail @ ..] = rest {
        *rest = tail;
        allowed &= one(rest)?;
    }
    Some(allowed)
}

/// A licence, perhaps with an exception, or an expression in brackets.
fn one(rest: &mut &[&str]) -> Option<bool> {
    match *rest {
        ["(", tail @ ..] => {
            *rest = tail;
            let allowed = any(rest)?;
            *rest = rest.strip_prefix(&[")"])?;
            Some(allowed)
        }
        [licence, "WITH", exception, tail @ ..] => {
            *rest = tail;
            Some(PERMISSIVE.contains(&format!("{licence} WITH {exception}").as_str()))
        }
        [licence, tail @ ..] => {
            *rest = tail;
            Some(PERMISSIVE.contains(licence))
        }
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::allows;

    #[test]
    fn expressions_are_read_as_spdx_says() {
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0 OR MIT",
            "MIT/Apache-2.0",
            "Apache-2.0 WITH LLVM-exception OR MIT",
            "(MIT OR GPL-2.0) AND Unicode-3.0",
            "ISC AND (Apache-2.0 OR ISC) AND MIT",
        ] {
            assert!(allows(good), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "MIT OR",
            "(MIT",
            "(MIT OR GPL-2.0) AND GPL-2.0",
            "GPL-2.0 WITH Classpath-exception-2.0",
            "MIT GPL-3.0",
        ] {
            assert!(!allows(bad), "{bad}");
        }
    }
}
