//! The reference of all keys, written from the table of keys.

use std::fmt::Write as _;

use serde_json::json;

use super::key::{Default, Key, Slot};
use super::keys::{CERTIFICATE, MIRROR, OIDC, REPOSITORY, RULE, SETTINGS, TAG_RULE, UPSTREAM};

/// How the reference is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As a configuration file in which everything is commented out.
    Toml,
    /// As docs/configuration.md.
    Markdown,
    /// As one JSON array.
    Json,
}

/// A key, without the type of the table that it fills.
struct Row {
    /// Of its table.
    name: &'static str,
    kind: String,
    default: Default,
    about: &'static str,
}

/// A table of the file.
struct Section {
    /// Empty for the keys above all tables.
    name: String,
    /// Whether there can be several.
    many: bool,
    about: &'static str,
    rows: Vec<Row>,
}

/// Every key with its type, its default and its meaning.
pub fn reference(format: Format) -> String {
    match format {
        Format::Toml => toml(),
        Format::Markdown => markdown(),
        Format::Json => json(),
    }
}

/// The tables in the order of the table of keys. Keys of one table stand together there.
fn sections() -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for key in SETTINGS.iter().copied().flatten() {
        if matches!(key.slot, Slot::Tables(_)) {
            match key.name {
                "access.rule" => add_tables(&mut sections, key.name, key.about, RULE),
                "access.certificate" => add_tables(&mut sections, key.name, key.about, CERTIFICATE),
                "access.oidc" => add_tables(&mut sections, key.name, key.about, OIDC),
                "mirror" => add_tables(&mut sections, key.name, key.about, MIRROR),
                "repository" => add_tables(&mut sections, key.name, key.about, REPOSITORY),
                _ => add_tables(&mut sections, key.name, key.about, UPSTREAM),
            }
            continue;
        }
        let (table, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        let row = row(key, name);
        match sections.last_mut() {
            Some(section) if section.name == table => section.rows.push(row),
            _ => sections.push(Section { name: table.to_owned(), many: false, about: "", rows: vec![row] }),
        }
    }
    sections
}

/// Adds the section of tables that there can be several of, and of those within.
fn add_tables<T>(sections: &mut Vec<Section>, name: &str, about: &'static str, keys: &[Key<T>]) {
    let (tables, plain): (Vec<_>, Vec<_>) = keys.iter().partition(|key| matches!(key.slot, Slot::Tables(_)));
    let rows = plain.into_iter().map(|key| row(key, key.name)).collect();
    sections.push(Section { name: name.to_owned(), many: true, about, rows });
    for inner in tables {
        // The only ones there are.
        let rows = TAG_RULE.iter().map(|key| row(key, key.name)).collect();
        let name = format!("{name}.{}", inner.name);
        sections.push(Section { name, many: true, about: inner.about, rows });
    }
}

fn row<T>(key: &Key<T>, name: &'static str) -> Row {
    Row { name, kind: key.slot.kind(), default: key.default, about: key.about }
}

impl Default {
    /// The default in a sentence, and the value to show behind the key.
    fn words(self) -> (String, &'static str) {
        match self {
            Self::Value(value) => (format!("default {value}"), value),
            Self::Unset { example, means } => (format!("when not given: {means}"), example),
            Self::Required(example) => ("must be given".to_owned(), example),
        }
    }
}

/// The header of a table, as it stands in a file.
fn header(section: &Section) -> String {
    if section.many { format!("[[{}]]", section.name) } else { format!("[{}]", section.name) }
}

fn toml() -> String {
    let mut out = String::from(
        "# The configuration of deltaport. Every key is here, with its default or, where there is none, an example;\n\
         # take the # away from what you change. Check it with `deltaport config check --config FILE`.\n\
         # Relative paths begin at the directory of this file.\n",
    );
    for section in sections() {
        out.push('\n');
        if !section.about.is_empty() {
            comment(&mut out, section.about);
        }
        if !section.name.is_empty() {
            let hidden = if section.many { "#" } else { "" };
            let _ = writeln!(out, "{hidden}{}", header(&section));
        }
        for (index, row) in section.rows.iter().enumerate() {
            if index > 0 || section.name.is_empty() {
                out.push('\n');
            }
            let (default, value) = row.default.words();
            comment(&mut out, row.about);
            comment(&mut out, &format!("({}; {default})", row.kind));
            let _ = writeln!(out, "#{} = {value}", row.name);
        }
    }
    out
}

fn markdown() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         <!-- Written by `deltaport config reference --markdown`; a test compares the two. -->\n\n\
         deltaport runs without any configuration. To change something, write a TOML file and start\n\
         `deltaport serve --config FILE`. `deltaport config reference > deltaport.toml` writes one in which everything is\n\
         commented out, `deltaport config check --config FILE` tells every mistake with its line, or what is in effect.\n\
         A key that does not exist is a mistake. Relative paths begin at the directory of the file. What is said on the\n\
         command line wins over the file.\n",
    );
    for section in sections() {
        let title =
            if section.name.is_empty() { "At the top".to_owned() } else { format!("`{}`", header(&section)) };
        let _ = write!(out, "\n## {title}\n\n");
        if !section.about.is_empty() {
            out.push_str(&wrapped(section.about, "", 110));
            out.push('\n');
        }
        for row in &section.rows {
            let default = match row.default {
                Default::Value(value) => format!("default `{value}`"),
                Default::Unset { example, means } => format!("such as `{example}`; when not given: {means}"),
                Default::Required(example) => format!("must be given, such as `{example}`"),
            };
            let text = format!("- **`{}`** ({}; {default}): {}", row.name, row.kind, row.about);
            out.push_str(&wrapped(&text, "  ", 110));
        }
    }
    out
}

fn json() -> String {
    let rows: Vec<serde_json::Value> = sections()
        .iter()
        .flat_map(|section| {
            section.rows.iter().map(move |row| {
                let (default, example) = match row.default {
                    Default::Value(value) => (Some(value), None),
                    Default::Unset { example, .. } | Default::Required(example) => (None, Some(example)),
                };
                json!({
                    "table": section.name,
                    "several": section.many,
                    "key": row.name,
                    "type": row.kind,
                    "required": matches!(row.default, Default::Required(_)),
                    "default": default,
                    "example": example,
                    "about": row.about,
                })
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::Array(rows))
}

/// Adds sentences as comment lines.
fn comment(out: &mut String, text: &str) {
    for line in wrapped(text, "", 108).lines() {
        let _ = writeln!(out, "# {line}");
    }
}

/// Breaks text into lines of at most `width` characters where there are spaces; all but the first are indented.
fn wrapped(text: &str, indent: &str, width: usize) -> String {
    let mut out = String::new();
    let mut length = 0;
    for word in text.split(' ') {
        let long = word.chars().count();
        if length > 0 && length + 1 + long > width {
            let _ = write!(out, "\n{indent}");
            length = indent.len();
        } else if length > 0 {
            out.push(' ');
            length += 1;
        }
        out.push_str(word);
        length += long;
    }
    out.push('\n');
    out
}
