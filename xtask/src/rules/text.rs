//! Rules about the text of the repository.

use anyhow::{Context, Result};

use super::Offences;
use crate::command::output;

/// A source file above this many lines has more than one reason to change; the aim is 600.
const MAX_SOURCE_LINES: usize = 700;
/// ARCHITECTURE.md is what a newcomer reads first, and whole.
const MAX_ARCHITECTURE_LINES: usize = 200;

/// Beginnings of paths that exist on one machine only. Written in pieces, or this file would break its own rule.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

pub(super) fn files_stay_readable() -> Result<Offences> {
    let mut offences = Offences::new();
    for (file, text) in tracked_texts()? {
        let limit = match file.as_str() {
            "ARCHITECTURE.md" => MAX_ARCHITECTURE_LINES,
            _ if file.ends_with(".rs") => MAX_SOURCE_LINES,
            _ => continue,
        };
        let lines = text.lines().count();
        if lines > limit {
            offences.push(format!("{file} has {lines} lines, more than {limit}"));
        }
    }
    Ok(offences)
}

pub(super) fn no_paths_of_one_machine() -> Result<Offences> {
    let mut offences = Offences::new();
    for (file, text) in tracked_texts()? {
        for (number, line) in text.lines().enumerate() {
            if let Some(path) = MACHINE_PATHS.iter().find(|path| names(line, path)) {
                offences.push(format!("{file}:{} names {path}", number + 1));
            }
        }
    }
    Ok(offences)
}

/// A test that is not run proves nothing; one that asserts today's behaviour, with a comment, does.
pub(super) fn no_test_is_switched_off() -> Result<Offences> {
    let marks = [concat!("#[ig", "nore"), concat!("#[should_", "panic")];
    let mut offences = Offences::new();
    for (file, text) in tracked_texts()?.into_iter().filter(|(file, _)| file.ends_with(".rs")) {
        for (number, line) in text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| line.contains(*mark)) {
                offences.push(format!("{file}:{} has {mark}]", number + 1));
            }
        }
    }
    Ok(offences)
}

/// Whether `path` begins a path in `line`, and is not the middle of another.
fn names(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '.'))
}

/// The files that git knows, as far as they are text.
fn tracked_texts() -> Result<Vec<(String, String)>> {
    let listed = output(std::process::Command::new("git").args(["ls-files", "-z"]))
        .context("the rules are about the files of the repository: run them in a clone")?;
    let mut texts = Vec::new();
    for file in listed.split('\0').filter(|file| !file.is_empty()) {
        // A file may have been removed and not yet committed, and images are not text.
        if let Ok(text) = std::fs::read_to_string(file) {
            texts.push((file.to_owned(), text));
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_path_is_found_where_it_begins() {
        let path = concat!("/ro", "ot/");
        for line in ["cd @x", "\"@x\"", "=@x and more", "at @"] {
            assert!(names(&line.replace('@', path), path), "{line}");
        }
        for line in ["usr@x", "..@x", "nothing"] {
            assert!(!names(&line.replace('@', path), path), "{line}");
        }
    }
}
