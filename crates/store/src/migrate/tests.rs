//! The list of tables against the tables there are.

use std::collections::BTreeSet;

use super::tables::{LEFT, TABLES};
use crate::names::schema;

fn names(sql: &str) -> BTreeSet<String> {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    schema::migrate(&connection).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

#[test]
fn every_table_is_moved_or_left_for_a_reason() {
    let there = names("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'");
    let known = TABLES.iter().map(|table| table.name).chain(LEFT.iter().map(|(name, _)| *name));
    // Only the engine that replicas share has these.
    let known = known.filter(|name| !["outcome", "private"].contains(name));
    let known: BTreeSet<String> = known.map(str::to_owned).collect();
    assert_eq!(there, known);
}

#[test]
fn every_column_is_moved() {
    for table in TABLES {
        let there = names(&format!("SELECT name FROM pragma_table_info('{}')", table.name));
        let moved: BTreeSet<String> = table.columns().map(|column| column.name.to_owned()).collect();
        assert_eq!(there, moved, "{}", table.name);
    }
}
