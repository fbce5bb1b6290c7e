//! Patterns over repository names.

use std::fmt;
use std::str::FromStr;

use deltaport_oci::MAX_NAME_LEN;

/// Which repositories a rule is about: a name in which `*` stands for any characters within one component and `**` for
/// any characters, slashes too. Either may stand for none at all.
///
/// `team/app` is one repository; `team/*` is `team/app` and not `team/app/debug`; `team/**` is both and not `team`;
/// `**` is every repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    /// How many bytes of `text` stand in front of the first star: what most names are told apart by.
    beginning: usize,
    /// The rest.
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    /// This byte.
    Byte(u8),
    /// `*`
    WithinComponent,
    /// `**`
    Across,
}

/// Why a text is not a pattern. All but the length are texts that could never match a repository, which somebody who
/// writes a rule does not mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// Nothing at all.
    #[error("a repository pattern cannot be empty; ** means every repository")]
    Empty,
    /// Longer than any repository name.
    #[error("a repository pattern has at most {MAX_NAME_LEN} bytes, as a name has")]
    Length,
    /// A character that no repository name contains.
    #[error(
        "{0:?} cannot stand in a repository pattern; it is made of lower-case letters, digits, . _ - and slashes, with \
         * for anything within one component and ** for anything"
    )]
    Character(char),
    /// A slash at the start, at the end or after a slash.
    #[error("a repository pattern neither begins nor ends with a slash, nor has it two in a row")]
    Slash,
    /// `***`
    #[error("three stars in a row mean nothing; use * within one component and ** across components")]
    Stars,
}

impl Pattern {
    /// The pattern `**`.
    pub(super) fn everything() -> Self {
        Self { text: "**".into(), beginning: 0, pieces: vec![Piece::Across] }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether `name` fits. Takes time proportional to the product of both lengths at most, whatever the pattern.
    pub fn matches(&self, name: &str) -> bool {
        let Some(name) = name.as_bytes().strip_prefix(&self.text.as_bytes()[..self.beginning]) else {
            return false;
        };
        match self.pieces[..] {
            [] => name.is_empty(),
            [Piece::Across] => true,
            _ => self.rest_matches(name),
        }
    }

    /// Whether the pieces can stand for `name`.
    fn rest_matches(&self, name: &[u8]) -> bool {
        // For each number of pieces, whether they can stand for exactly the bytes that have been read.
        let mut reached = [false; MAX_NAME_LEN + 1];
        reached[0] = true;
        self.skip_stars(&mut reached);
        for &byte in name {
            let mut next = [false; MAX_NAME_LEN + 1];
            for (index, piece) in self.pieces.iter().enumerate().filter(|(index, _)| reached[*index]) {
                match piece {
                    Piece::Byte(expected) => next[index + 1] |= *expected == byte,
                    Piece::WithinComponent => next[index] |= byte != b'/',
                    Piece::Across => next[index] = true,
                }
            }
            self.skip_stars(&mut next);
            reached = next;
        }
        reached[self.pieces.len()]
    }

    /// A star may stand for nothing: where it is reached, so is what follows it.
    fn skip_stars(&self, reached: &mut [bool; MAX_NAME_LEN + 1]) {
        for (index, piece) in self.pieces.iter().enumerate() {
            reached[index + 1] |= reached[index] && !matches!(piece, Piece::Byte(_));
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > MAX_NAME_LEN {
            return Err(PatternError::Length);
        }
        let known = |c: &char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-' | '/' | '*');
        if let Some(stranger) = text.chars().find(|c| !known(c)) {
            return Err(PatternError::Character(stranger));
        }
        if text.split('/').any(str::is_empty) {
            return Err(PatternError::Slash);
        }
        if text.contains("***") {
            return Err(PatternError::Stars);
        }
        let beginning = text.find('*').unwrap_or(text.len());
        let mut pieces = Vec::with_capacity(text.len() - beginning);
        for byte in text.bytes().skip(beginning) {
            match (byte, pieces.last_mut()) {
                (b'*', Some(last @ Piece::WithinComponent)) => *last = Piece::Across,
                (b'*', _) => pieces.push(Piece::WithinComponent),
                _ => pieces.push(Piece::Byte(byte)),
            }
        }
        Ok(Self { text: text.into(), beginning, pieces })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
