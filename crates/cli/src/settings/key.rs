//! What the table of keys is made of: a row, and the slot of the settings that it fills.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml_edit::Item;

use super::read::Reader;
use super::units::{SIZE_FORM, SPAN_FORM};
use super::{Size, Span};

/// One key of the table `T`.
pub(super) struct Key<T: 'static> {
    /// Its name, behind the names of the tables that it is in: `limits.manifest_size`.
    pub(super) name: &'static str,
    /// Where its value goes, and so what type it has.
    pub(super) slot: Slot<T>,
    /// What it is when it is not given.
    pub(super) default: Default,
    /// What it means. Sentences for an operator.
    pub(super) about: &'static str,
}

/// The keys of the table `T`, in groups: those of one file stand together.
pub(super) type Keys<T> = [&'static [Key<T>]];

/// What a key is when it is not given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Default {
    /// This value, as TOML.
    Value(&'static str),
    /// Nothing. The example, as TOML, is for the reference; the words say what happens then.
    Unset {
        /// A value that one could give.
        example: &'static str,
        /// What happens without one.
        means: &'static str,
    },
    /// It must be given; this is an example, as TOML.
    Required(&'static str),
}

/// The place of a key's value in `T`, with the type of the value and its bounds.
pub(super) enum Slot<T: 'static> {
    /// `true` or `false`.
    Flag(fn(&mut T) -> &mut bool),
    /// `true`, `false` or left open.
    OptionalFlag(fn(&mut T) -> &mut Option<bool>),
    /// A whole number.
    Count(fn(&mut T) -> &mut u64, RangeInclusive<u64>),
    /// A number of bytes with a unit.
    Size(fn(&mut T) -> &mut Size, RangeInclusive<Size>),
    /// A time with a unit.
    Span(fn(&mut T) -> &mut Span, RangeInclusive<Span>),
    /// A path; a relative one begins at the configuration file's directory.
    Path(fn(&mut T) -> &mut Option<PathBuf>),
    /// One of a few words.
    Choice(&'static [&'static str], fn(&mut T, &str)),
    /// A text of some form that may be a path; the function is given the directory at which a relative one begins, and
    /// refuses what is neither.
    Place(&'static str, fn(&mut T, &str, &Path) -> Result<(), String>),
    /// A text of some form; the function refuses others.
    Text(&'static str, fn(&mut T, &str) -> Result<(), String>),
    /// A list of texts of some form; the function is called for each.
    Texts(&'static str, fn(&mut T, &str) -> Result<(), String>),
    /// One of a few words, or a list of texts; the function is called with the whole.
    ChoiceOrTexts(&'static str, fn(&mut T, Texts<'_>) -> Result<(), String>),
    /// A table whose keys are free and whose values are lists of texts.
    Sets(&'static str, fn(&mut T) -> &mut BTreeMap<String, BTreeSet<String>>),
    /// Any number of tables, each with keys of its own.
    Tables(fn(&mut Reader<'_>, &Item, &mut T)),
}

/// The value of [`Slot::ChoiceOrTexts`].
pub(super) enum Texts<'a> {
    /// A word.
    One(&'a str),
    /// A list.
    Many(&'a [String]),
}

impl<T> Slot<T> {
    /// What a value must be: the end of a sentence that begins with "expected".
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Flag(_) | Self::OptionalFlag(_) => "true or false".to_owned(),
            Self::Count(_, bounds) => format!("a whole number from {} to {}", bounds.start(), bounds.end()),
            Self::Size(_, bounds) => format!("{SIZE_FORM} from {} to {}", bounds.start(), bounds.end()),
            Self::Span(_, bounds) => format!("{SPAN_FORM} from {} to {}", bounds.start(), bounds.end()),
            Self::Path(_) => "a path in quotes".to_owned(),
            Self::Choice(words, _) => one_of(words),
            Self::Text(form, _) | Self::Place(form, _) | Self::ChoiceOrTexts(form, _) => (*form).to_owned(),
            Self::Texts(form, _) => format!("a list of {form}"),
            Self::Sets(form, _) => format!("a table with a list of {form} for each name"),
            Self::Tables(_) => "tables, each with its name in double brackets".to_owned(),
        }
    }

    /// The type, in few words, for the reference.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Flag(_) | Self::OptionalFlag(_) => "true or false".to_owned(),
            Self::Count(_, bounds) => format!("number, {} to {}", bounds.start(), bounds.end()),
            Self::Size(_, bounds) => format!("size, {} to {}", bounds.start(), bounds.end()),
            Self::Span(_, bounds) => format!("time, {} to {}", bounds.start(), bounds.end()),
            Self::Path(_) => "path".to_owned(),
            _ => self.expected(),
        }
    }
}

/// `"a", "b" or "c"`.
pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}
