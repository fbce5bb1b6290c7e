//! Which Debian package brings which program.

use std::path::Path;

/// A Debian package and a program by which one sees that it is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package<'a> {
    /// The package's name.
    pub name: &'a str,
    /// Absolute path of the program.
    pub program: &'a str,
}

/// The packages in the format of set-up: a name and a program per line, `#` for remarks.
pub const PACKAGES: &str = include_str!("../../../../xtask/client-packages");

/// Panics unless `program` is there, and says what to install. `program` is an absolute path: the search path may
/// hold another version than the package's.
#[track_caller]
pub fn require(program: &str) {
    if Path::new(program).exists() {
        return;
    }
    let package =
        packages().find(|package| package.program == program).map_or(program, |package| package.name);
    let all: Vec<_> = packages().map(|package| package.name).collect();
    panic!(
        "{program} is missing. The client tests run real clients; install it:\n  \
         apt-get install --no-install-recommends {package}\nor everything they need:\n  \
         apt-get install --no-install-recommends {}",
        all.join(" ")
    );
}

fn packages() -> impl Iterator<Item = Package<'static>> {
    let lines = PACKAGES.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        Some(Package { name: words.next()?, program: words.next()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_names_a_program() {
        assert!(packages().count() >= 10);
        for package in packages() {
            assert!(package.program.starts_with('/'), "{package:?}");
        }
    }

    #[test]
    fn a_missing_program_says_what_to_install() {
        let panic = std::panic::catch_unwind(|| require("/nonexistent/program")).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains("apt-get install") && message.contains("skopeo"), "{message}");
    }
}
