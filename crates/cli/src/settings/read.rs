//! From TOML to settings: every mistake is reported, with its line and what would be right.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml_edit::{Document, Item, TableLike, Value};

use super::check;
use super::key::{Default as KeyDefault, Key, Keys, Slot, Texts};
use super::keys::{CERTIFICATE, MIRROR, OIDC, REPOSITORY, RULE, SETTINGS, TAG_RULE, UPSTREAM};
use super::{Certificate, Issuer, Mirror, Repository, Rule, Settings, TagRule, Upstream};

/// The most bytes that a configuration file may have.
pub const MAX_FILE_LEN: u64 = 1 << 20;
/// After so many problems the rest is not reported.
const MAX_PROBLEMS: usize = 100;

/// What was said on the command line; it wins over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--listen`
    pub listen: Option<SocketAddr>,
    /// `--data`
    pub data: Option<PathBuf>,
    /// `--insecure-http`
    pub insecure_http: bool,
}

/// Something that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The line, counted from 1; none when it is about something that is not in the file.
    pub line: Option<usize>,
    /// The character in the line, counted from 1.
    pub column: Option<usize>,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Everything that is wrong with the settings, never nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    /// The file, when there was one.
    pub file: Option<PathBuf>,
    /// In the order of the file.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Problems {
    /// A line for each, beginning with its place as compilers write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            if let Some(file) = &self.file {
                write!(f, "{}:", file.display())?;
                if let (Some(line), Some(column)) = (problem.line, problem.column) {
                    write!(f, "{line}:{column}:")?;
                }
                write!(f, " ")?;
            }
            write!(f, "{}", problem.message)?;
        }
        Ok(())
    }
}

impl Settings {
    /// Reads the configuration file, if there is one, and completes it with what was said on the command line and the
    /// defaults.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, Problems> {
        let failed = |problems| Problems { file: file.map(Path::to_owned), problems };
        let text = match file {
            Some(file) => read_file(file).map_err(|error| {
                failed(vec![Problem {
                    line: None,
                    column: None,
                    message: format!("cannot read it: {error}"),
                }])
            })?,
            None => String::new(),
        };
        let directory = file.and_then(Path::parent).unwrap_or(Path::new(""));
        Self::read(&text, directory, overrides).map_err(failed)
    }

    /// Reads `text`, a configuration file in the directory `directory`, and completes it with what was said on the
    /// command line and the defaults. Fails with every mistake that there is, up to a hundred.
    pub fn read(text: &str, directory: &Path, overrides: &Overrides) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader { text, directory, problems: Vec::new() };
        let mut settings = Self::empty();
        apply_defaults(SETTINGS, &mut settings);
        match Document::parse(text) {
            Ok(document) => {
                reader.table("", document.as_table(), SETTINGS, &mut settings);
                if let Some(listen) = overrides.listen {
                    settings.listen = listen;
                }
                if let Some(data) = &overrides.data {
                    settings.data = Some(data.clone());
                }
                settings.insecure_http |= overrides.insecure_http;
                if reader.problems.is_empty() {
                    check::check(&settings, document.as_table(), &mut reader);
                }
            }
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                reader.problem(at, format!("this is not TOML: {}", error.message().replace('\n', "; ")));
            }
        }
        reader.problems.sort_by_key(|problem| (problem.line, problem.column));
        if reader.problems.is_empty() { Ok(settings) } else { Err(reader.problems) }
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_FILE_LEN + 1).read_to_string(&mut text)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > MAX_FILE_LEN {
        return Err(io::Error::other(format!("it has more than {MAX_FILE_LEN} bytes")));
    }
    Ok(text)
}

/// Gives every key its default. Defaults are read as a file would be.
fn apply_defaults<T>(keys: &Keys<T>, into: &mut T) {
    for key in all(keys) {
        if let KeyDefault::Value(text) = key.default {
            let mut reader = Reader { text, directory: Path::new(""), problems: Vec::new() };
            let value: Item = Item::Value(text.parse().expect("a test reads every default"));
            reader.value(key.name, 0, &value, &key.slot, into);
            debug_assert!(reader.problems.is_empty(), "{}: {:?}", key.name, reader.problems);
        }
    }
}

/// The keys of every group.
fn all<T>(keys: &Keys<T>) -> impl Iterator<Item = &'static Key<T>> {
    keys.iter().copied().flatten()
}

/// A file that is being read.
pub(super) struct Reader<'a> {
    text: &'a str,
    directory: &'a Path,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    /// Reports a problem at a byte of the file.
    pub(super) fn problem(&mut self, at: usize, message: String) {
        if self.problems.len() < MAX_PROBLEMS {
            let before = self.text.get(..at).unwrap_or(self.text);
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            self.problems.push(Problem {
                line: Some(before.matches('\n').count() + 1),
                column: Some(before[line_start..].chars().count() + 1),
                message,
            });
        }
    }

    /// Reports a problem that has no place in the file.
    pub(super) fn problem_nowhere(&mut self, message: String) {
        self.problems.push(Problem { line: None, column: None, message });
    }

    /// Reads the entries of a table whose name, with a dot behind it, is `prefix`.
    fn table<T>(&mut self, prefix: &str, table: &dyn TableLike, keys: &Keys<T>, into: &mut T) {
        for (name, item) in table.iter() {
            let path = format!("{prefix}{name}");
            let at = start_of_key(table, name);
            if let Some(key) = all(keys).find(|key| key.name == path) {
                self.value(&path, at, item, &key.slot, into);
            } else if all(keys).any(|key| is_within(key.name, &path)) {
                match item.as_table_like() {
                    Some(inner) => self.table(&format!("{path}."), inner, keys, into),
                    None => self.problem(at, format!("`{path}` is a table: write [{path}] above its keys")),
                }
            } else {
                let message = match suggestion(keys, prefix, name) {
                    Some(known) => format!("unknown key `{path}`; did you mean `{known}`?"),
                    None => format!("unknown key `{path}`; `deltaport config reference` shows every key"),
                };
                self.problem(at, message);
            }
        }
    }

    /// Reads the value of one key.
    fn value<T>(&mut self, path: &str, at: usize, item: &Item, slot: &Slot<T>, into: &mut T) {
        let at_value = item.span().map_or(at, |span| span.start);
        let refused = match (slot, item) {
            (Slot::Tables(read), _) => {
                read(self, item, into);
                return;
            }
            (Slot::Sets(form, place), _) => {
                self.sets(path, at_value, item, form, place(into));
                return;
            }
            (Slot::Texts(form, take), Item::Value(Value::Array(array))) => {
                for element in array {
                    let at = element.span().map_or(at_value, |span| span.start);
                    match element.as_str().map(|text| take(into, text)) {
                        Some(Ok(())) => {}
                        Some(Err(why)) => {
                            self.problem(at, format!("`{path}`: {element}: {why}", element = plain(element)))
                        }
                        None => self.problem(at, format!("`{path}` must be a list of {form}")),
                    }
                }
                return;
            }
            (Slot::Flag(place), Item::Value(Value::Boolean(value))) => {
                *place(into) = *value.value();
                None
            }
            (Slot::OptionalFlag(place), Item::Value(Value::Boolean(value))) => {
                *place(into) = Some(*value.value());
                None
            }
            (Slot::Count(place, bounds), Item::Value(Value::Integer(value))) => {
                match u64::try_from(*value.value()).ok().filter(|count| bounds.contains(count)) {
                    Some(count) => {
                        *place(into) = count;
                        None
                    }
                    None => Some(String::new()),
                }
            }
            (_, Item::Value(Value::String(text))) => self.text(text.value(), slot, into),
            (Slot::ChoiceOrTexts(_, take), Item::Value(Value::Array(array))) => {
                let texts: Option<Vec<String>> =
                    array.iter().map(|element| element.as_str().map(str::to_owned)).collect();
                match texts {
                    Some(texts) => take(into, Texts::Many(&texts)).err(),
                    None => Some(String::new()),
                }
            }
            _ => Some(String::new()),
        };
        match refused {
            None => {}
            Some(why) if why.is_empty() => {
                self.problem(at_value, format!("`{path}` must be {}", slot.expected()))
            }
            Some(why) => self.problem(at_value, format!("`{path}` must be {}: {why}", slot.expected())),
        }
    }

    /// Reads a text; returns why it is refused, empty when there is no more to say than what is expected.
    fn text<T>(&self, text: &str, slot: &Slot<T>, into: &mut T) -> Option<String> {
        let bad = Some(String::new());
        match slot {
            Slot::Size(place, bounds) => match text.parse() {
                Ok(size) if bounds.contains(&size) => *place(into) = size,
                _ => return bad,
            },
            Slot::Span(place, bounds) => match text.parse() {
                Ok(span) if bounds.contains(&span) => *place(into) = span,
                _ => return bad,
            },
            Slot::Path(place) if !text.is_empty() => *place(into) = Some(self.directory.join(text)),
            Slot::Choice(words, take) if words.contains(&text) => take(into, text),
            Slot::Choice(words, _) => {
                return nearest(words.iter().copied(), text)
                    .map(|word| format!("did you mean \"{word}\"?"))
                    .or(bad);
            }
            Slot::Text(_, take) => return take(into, text).err(),
            Slot::Place(_, take) => return take(into, text, self.directory).err(),
            Slot::ChoiceOrTexts(_, take) => return take(into, Texts::One(text)).err(),
            _ => return bad,
        }
        None
    }

    /// Reads a table of lists of texts.
    fn sets(
        &mut self,
        path: &str,
        at: usize,
        item: &Item,
        form: &str,
        into: &mut std::collections::BTreeMap<String, std::collections::BTreeSet<String>>,
    ) {
        let Some(table) = item.as_table_like() else {
            self.problem(at, format!("`{path}` is a table: write [{path}] above its keys"));
            return;
        };
        for (name, item) in table.iter() {
            let texts =
                item.as_array().map(|array| array.iter().map(|e| e.as_str().map(str::to_owned)).collect());
            match texts {
                Some(Some(texts)) => {
                    into.insert(name.to_owned(), texts);
                }
                _ => self
                    .problem(start_of_key(table, name), format!("`{path}.{name}` must be a list of {form}")),
            }
        }
    }

    /// Reads any number of tables of one kind.
    fn tables<T: std::default::Default>(
        &mut self,
        path: &str,
        item: &Item,
        keys: &Keys<T>,
        into: &mut Vec<T>,
    ) {
        let at = item.span().map_or(0, |span| span.start);
        let tables: Vec<&dyn TableLike> = match item {
            Item::ArrayOfTables(array) => array.iter().map(|table| table as &dyn TableLike).collect(),
            Item::Value(Value::Array(array)) if array.iter().all(Value::is_inline_table) => {
                array.iter().filter_map(Value::as_inline_table).map(|table| table as &dyn TableLike).collect()
            }
            _ => {
                self.problem(
                    at,
                    format!("there can be several of `{path}`: write [[{path}]] with double brackets"),
                );
                return;
            }
        };
        for table in tables {
            let mut one = T::default();
            apply_defaults(keys, &mut one);
            self.table("", table, keys, &mut one);
            for key in all(keys) {
                if matches!(key.default, KeyDefault::Required(_)) && !table.contains_key(key.name) {
                    let at = start_of(table).unwrap_or(at);
                    self.problem(at, format!("[[{path}]] needs `{}`, {}", key.name, key.slot.expected()));
                }
            }
            into.push(one);
        }
    }
}

/// Reads `[[access.rule]]`.
pub(super) fn read_rules(reader: &mut Reader<'_>, item: &Item, settings: &mut Settings) {
    reader.tables::<Rule>("access.rule", item, &[RULE], &mut settings.access.rule);
}

/// Reads `[[access.certificate]]`.
pub(super) fn read_certificates(reader: &mut Reader<'_>, item: &Item, settings: &mut Settings) {
    let certificates = &mut settings.access.certificate;
    reader.tables::<Certificate>("access.certificate", item, &[CERTIFICATE], certificates);
}

/// Reads `[[access.oidc]]`.
pub(super) fn read_issuers(reader: &mut Reader<'_>, item: &Item, settings: &mut Settings) {
    reader.tables::<Issuer>("access.oidc", item, &[OIDC], &mut settings.access.oidc);
}

/// Reads `[[repository]]`.
pub(super) fn read_repositories(reader: &mut Reader<'_>, item: &Item, settings: &mut Settings) {
    reader.tables::<Repository>("repository", item, &[REPOSITORY], &mut settings.repository);
}

/// Reads `[[upstream]]`.
pub(super) fn read_upstreams(reader: &mut Reader<'_>, item: &Item, settings: &mut Settings) {
    reader.tables::<Upstream>("upstream", item, &[UPSTREAM], &mut settings.upstream);
}

/// Reads `[[mirror]]`.
pub(super) fn read_mirrors(reader: &mut Reader<'_>, item: &Item, settings: &mut Settings) {
    reader.tables::<Mirror>("mirror", item, &[MIRROR], &mut settings.mirror);
}

/// Reads `[[upstream.tags]]`.
pub(super) fn read_tag_rules(reader: &mut Reader<'_>, item: &Item, upstream: &mut Upstream) {
    reader.tables::<TagRule>("upstream.tags", item, &[TAG_RULE], &mut upstream.tags);
}

/// Where a key begins.
pub(super) fn start_of_key(table: &dyn TableLike, name: &str) -> usize {
    table
        .key(name)
        .and_then(toml_edit::Key::span)
        .or_else(|| table.get(name).and_then(Item::span))
        .map_or(0, |span| span.start)
}

/// Where a table's first key is: nearer to the eye than its header.
pub(super) fn start_of(table: &dyn TableLike) -> Option<usize> {
    table.iter().map(|(name, _)| start_of_key(table, name)).min()
}

/// An element of a list as it stands in the file.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), |text| format!("{text:?}"))
}

/// Whether the key `name` is in the table `path` or in one below it.
fn is_within(name: &str, path: &str) -> bool {
    name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
}

/// The key that was probably meant by `name` in the table `prefix`: one of the same table that is spelled nearly so, or
/// one of another table with just this name.
fn suggestion<T>(keys: &Keys<T>, prefix: &str, name: &str) -> Option<String> {
    let here = all(keys)
        .filter_map(|key| key.name.strip_prefix(prefix))
        .map(|rest| rest.split('.').next().unwrap_or(rest));
    if let Some(near) = nearest(here, name) {
        return Some(format!("{prefix}{near}"));
    }
    let last = |key: &'static str| key.rsplit('.').next().unwrap_or(key);
    if let Some(elsewhere) = all(keys).find(|key| last(key.name) == name) {
        return Some(elsewhere.name.to_owned());
    }
    nearest(all(keys).map(|key| key.name), &format!("{prefix}{name}")).map(str::to_owned)
}

/// The word that is spelled most like `text`, if any is spelled nearly so: a third of its letters may be wrong.
fn nearest<'a>(words: impl Iterator<Item = &'a str>, text: &str) -> Option<&'a str> {
    words
        .map(|word| (strsim::damerau_levenshtein(word, text), word))
        .filter(|(distance, word)| *distance * 3 <= word.len())
        .min()
        .map(|(_, word)| word)
}
