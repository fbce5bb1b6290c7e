//! What a migration copies: tables and columns, as data. The names are those of every engine.

use crate::error::Result;
use crate::names::sql::Connection;

/// A table whose rows a migration makes the same.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// The columns of its primary key, in order, which are compared by bytes.
    pub(super) key: &'static [Column],
    /// What else tells whether a row is the same on both sides.
    pub(super) compared: &'static [Column],
    /// What is never another for the same key, and is only read of rows that are copied.
    pub(super) fixed: &'static [Column],
    /// What has to be there before it.
    pub(super) needs: &'static [Need],
    /// Whether a row may come to refer to another one than before.
    pub(super) moves: bool,
    /// Columns that, besides the key, no two rows have the same in.
    pub(super) unique: &'static [&'static str],
}

/// A row of another table that a row refers to.
#[derive(Debug)]
pub(super) struct Need {
    pub(super) table: &'static str,
    /// Which columns have to be the same there: those of this row, and what they are called there.
    pub(super) columns: &'static [(&'static str, &'static str)],
    /// Whether the database removes this row with the other, and not keeps the other for its sake.
    pub(super) goes_along: bool,
}

/// A column and what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// What a column holds, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Text,
    Bytes,
}

impl Table {
    /// Every column: those of the key, those that are compared, and the others.
    pub(super) fn columns(&self) -> impl Iterator<Item = Column> {
        self.key.iter().chain(self.compared).chain(self.fixed).copied()
    }
}

const fn number(name: &'static str) -> Column {
    Column { name, kind: Kind::Number }
}

const fn text(name: &'static str) -> Column {
    Column { name, kind: Kind::Text }
}

const fn bytes(name: &'static str) -> Column {
    Column { name, kind: Kind::Bytes }
}

const REPOSITORY: Need = Need { table: "repository", columns: &[("repository", "id")], goes_along: false };
const BLOB: Need = Need { table: "blob", columns: &[("digest", "digest")], goes_along: false };
const MANIFEST: Need = Need {
    table: "manifest",
    columns: &[("repository", "repository"), ("digest", "digest")],
    goes_along: false,
};
/// For what is only said of a manifest.
const SUBJECT: Need = Need { goes_along: true, ..MANIFEST };

/// All of them, each behind those that its rows refer to. Bytes have rows of their own on each side (`blob`), as they have
/// places of their own. What is under way (uploads, jobs, leases) is not moved: it is begun again. What the collector is
/// to look at is noted when rows are put.
pub(super) const TABLES: &[Table] = &[
    Table {
        name: "repository",
        key: &[number("id")],
        compared: &[text("name")],
        fixed: &[],
        needs: &[],
        moves: false,
        unique: &["name"],
    },
    Table {
        name: "repository_blob",
        key: &[number("repository"), text("digest")],
        compared: &[number("linked")],
        fixed: &[],
        needs: &[REPOSITORY, BLOB],
        moves: false,
        unique: &[],
    },
    Table {
        name: "manifest",
        key: &[number("id")],
        compared: &[number("repository"), text("digest"), text("media_type"), number("pushed")],
        fixed: &[text("artifact_type"), text("subject"), text("annotations"), number("size"), bytes("bytes")],
        needs: &[REPOSITORY, BLOB],
        moves: false,
        unique: &["repository", "digest"],
    },
    Table {
        name: "reference",
        key: &[number("manifest"), number("position")],
        compared: &[number("present")],
        fixed: &[
            number("repository"),
            text("kind"),
            text("digest"),
            text("media_type"),
            number("size"),
            text("platform"),
        ],
        needs: &[Need { table: "manifest", columns: &[("manifest", "id")], goes_along: true }],
        moves: false,
        unique: &[],
    },
    Table {
        name: "tag",
        key: &[number("repository"), text("name")],
        compared: &[text("digest"), number("updated")],
        fixed: &[],
        needs: &[MANIFEST],
        moves: true,
        unique: &[],
    },
    Table {
        name: "tag_past",
        key: &[number("repository"), text("tag"), text("digest")],
        compared: &[number("until")],
        fixed: &[],
        needs: &[Need {
            table: "tag",
            columns: &[("repository", "repository"), ("tag", "name")],
            goes_along: true,
        }],
        moves: false,
        unique: &[],
    },
    Table {
        name: "layer_delta",
        key: &[number("repository"), text("base"), text("target")],
        compared: &[text("digest"), number("made")],
        fixed: &[],
        needs: &[REPOSITORY],
        moves: false,
        unique: &[],
    },
    Table {
        name: "absence",
        key: &[number("repository"), text("digest")],
        compared: &[text("reason")],
        fixed: &[],
        needs: &[REPOSITORY],
        moves: false,
        unique: &[],
    },
    Table {
        name: "cached",
        key: &[number("repository"), text("digest")],
        compared: &[number("used")],
        fixed: &[],
        needs: &[SUBJECT],
        moves: false,
        unique: &[],
    },
    Table {
        name: "verdict",
        key: &[number("repository"), text("digest"), text("tag")],
        compared: &[text("policy"), number("at"), number("accepted"), text("text")],
        fixed: &[],
        needs: &[SUBJECT],
        moves: false,
        unique: &[],
    },
    Table {
        name: "mirrored",
        key: &[text("rule"), text("place"), text("tag")],
        compared: &[text("digest")],
        fixed: &[],
        needs: &[],
        moves: false,
        unique: &[],
    },
    // Who comes after the switch goes on with the schedule where the old registry was.
    Table {
        name: "slot",
        key: &[text("name")],
        compared: &[number("due"), number("done")],
        fixed: &[],
        needs: &[],
        moves: false,
        unique: &[],
    },
    Table {
        name: "outgoing",
        key: &[text("place"), text("digest")],
        compared: &[text("upload")],
        fixed: &[],
        needs: &[],
        moves: false,
        unique: &[],
    },
];

/// Has the database give identifiers from here on that no row has which was put with one. SQLite does so by itself.
pub(super) fn continue_identifiers(connection: &Connection) -> Result<()> {
    if matches!(connection, Connection::Postgres(_)) {
        for next in [
            "SELECT setval(pg_get_serial_sequence('repository', 'id'), greatest(1, max(id))) FROM repository",
            "SELECT setval(pg_get_serial_sequence('manifest', 'id'), greatest(1, max(id))) FROM manifest",
        ] {
            connection.one(next, &[], |_| Ok(()))?;
        }
    }
    Ok(())
}

/// Tables that are not in the list above, and why not: a table that is in neither makes a test fail.
#[cfg(test)]
pub(super) const LEFT: &[(&str, &str)] = &[
    ("blob", "each side says where its own bytes are"),
    ("upload", "under way"),
    ("upload_part", "under way"),
    ("doomed", "each side says what becomes of its own objects"),
    ("lease", "under way"),
    ("private", "secrets, which are files elsewhere; who keeps them moves them"),
    ("outcome", "what became of commits of this database"),
    ("delta_job", "under way"),
    ("review", "noted anew as rows are put"),
    ("outbox", "the journal of the embedded database"),
    ("setting", "of the database, not of the registry"),
    ("note", "found out again"),
];
