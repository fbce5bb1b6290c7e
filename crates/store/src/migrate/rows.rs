//! Makes the rows of one table the same on both sides: two sorted lists are gone through side by side.

use std::cmp::Ordering;
use std::collections::VecDeque;

use super::reader::Reader;
use super::tables::{Column, Kind, Need, TABLES, Table};
use crate::error::Result;
use crate::names::sql::{Connection, Row, Value};

/// How many rows are read at a time.
const PAGE: usize = 1000;

/// What a row has in a column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cell {
    Nothing,
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Cell {
    fn read(row: &Row<'_>, index: usize, column: Column) -> Result<Self> {
        let cell = match column.kind {
            Kind::Number => row.get::<Option<i64>>(index)?.map(Self::Number),
            Kind::Text => row.get::<Option<String>>(index)?.map(Self::Text),
            Kind::Bytes => row.get::<Option<Vec<u8>>>(index)?.map(Self::Bytes),
        };
        Ok(cell.unwrap_or(Self::Nothing))
    }

    fn value(&self) -> Value<'_> {
        match self {
            Self::Nothing => Value::Null,
            Self::Number(number) => Value::Number(*number),
            Self::Text(text) => Value::Text(text.into()),
            Self::Bytes(bytes) => Value::Bytes(bytes),
        }
    }
}

/// The cells of a row: of its key first.
pub(super) type Cells = Vec<Cell>;

fn values(cells: &[Cell]) -> Vec<Value<'_>> {
    cells.iter().map(Cell::value).collect()
}

fn list(columns: impl Iterator<Item = Column>) -> String {
    columns.map(|column| column.name).collect::<Vec<_>>().join(", ")
}

/// `?from, ?from+1, …`, so many.
fn parameters(from: usize, count: usize) -> String {
    (from..from + count).map(|number| format!("?{number}")).collect::<Vec<_>>().join(", ")
}

impl Table {
    /// Key and compared columns of the rows behind `last`, in the order of the key.
    fn page(&self, connection: &Connection, last: Option<&[Cell]>) -> Result<Vec<Cells>> {
        let columns: Vec<Column> = self.key.iter().chain(self.compared).copied().collect();
        let (shown, key) = (list(columns.iter().copied()), list(self.key.iter().copied()));
        let behind = last
            .map_or_else(String::new, |_| format!("WHERE ({key}) > ({}) ", parameters(1, self.key.len())));
        let sql = format!("SELECT {shown} FROM {} {behind}ORDER BY {key} LIMIT {PAGE}", self.name);
        connection.query(&sql, &values(last.unwrap_or_default()), |row| read(row, &columns))
    }

    /// All cells of the row with `key`, if it is there.
    pub(super) fn whole(&self, connection: &Connection, key: &[Cell]) -> Result<Option<Cells>> {
        let columns: Vec<Column> = self.columns().collect();
        let shown = list(columns.iter().copied());
        let sql = format!("SELECT {shown} FROM {} WHERE {}", self.name, self.is());
        connection.optional(&sql, &values(key), |row| read(row, &columns))
    }

    /// What keeps a row from being put now, in words: it refers to one that is not there, or another one is in its place.
    pub(super) fn obstacle(&self, connection: &Connection, row: &[Cell]) -> Result<Option<String>> {
        for Need { table, columns, .. } in self.needs {
            let same = columns.iter().map(|(ours, theirs)| (*theirs, self.cell(row, ours)));
            if !is_there(connection, table, same)? {
                return Ok(Some(format!(
                    "a row of {} refers to one of {table} that is not there",
                    self.name
                )));
            }
        }
        if self.unique.is_empty() {
            return Ok(None);
        }
        let (same, values) = condition(self.unique.iter().map(|name| (*name, self.cell(row, name))));
        let other = format!("SELECT 1 FROM {} WHERE {same} AND id <> ?{}", self.name, values.len() + 1);
        let values: Vec<Value<'_>> = values.into_iter().chain([self.cell(row, "id")]).collect();
        let taken = connection.exists(&other, &values)?;
        Ok(taken.then(|| format!("an earlier row of {} is still in the place of another", self.name)))
    }

    /// What keeps the row with `key` from being removed now, in words: something refers to it that is still there.
    pub(super) fn hold(&self, connection: &Connection, key: &[Cell]) -> Result<Option<String>> {
        let Some(row) = self.whole(connection, key)? else { return Ok(None) };
        for other in TABLES {
            for Need { columns, .. } in
                other.needs.iter().filter(|need| need.table == self.name && !need.goes_along)
            {
                let same = columns.iter().map(|(theirs, ours)| (*theirs, self.cell(&row, ours)));
                if is_there(connection, other.name, same)? {
                    return Ok(Some(format!(
                        "a row of {} is still referred to by {}",
                        self.name, other.name
                    )));
                }
            }
        }
        Ok(None)
    }

    /// What a whole row has in a column.
    fn cell<'a>(&self, row: &'a [Cell], name: &str) -> Value<'a> {
        let at = self.columns().position(|column| column.name == name);
        at.map_or(Value::Null, |at| row[at].value())
    }

    /// Puts a row in the place of the one with the same key.
    pub(super) fn put(&self, connection: &Connection, row: &[Cell]) -> Result<()> {
        let columns = list(self.columns());
        let key = list(self.key.iter().copied());
        let set = self
            .compared
            .iter()
            .chain(self.fixed)
            .map(|Column { name, .. }| format!("{name} = excluded.{name}"));
        let sql = format!(
            "INSERT INTO {} ({columns}) VALUES ({}) ON CONFLICT ({key}) DO UPDATE SET {}",
            self.name,
            parameters(1, row.len()),
            set.collect::<Vec<_>>().join(", ")
        );
        connection.execute(&sql, &values(row))?;
        Ok(())
    }

    /// Removes the row with `key`.
    pub(super) fn remove(&self, connection: &Connection, key: &[Cell]) -> Result<()> {
        connection.execute(&format!("DELETE FROM {} WHERE {}", self.name, self.is()), &values(key))?;
        Ok(())
    }

    /// The condition that a row has the key that is given.
    fn is(&self) -> String {
        let key = self.key.iter().enumerate();
        key.map(|(at, column)| format!("{} = ?{}", column.name, at + 1)).collect::<Vec<_>>().join(" AND ")
    }
}

/// Whether a table has a row with these values in these columns.
fn is_there<'a>(
    connection: &Connection,
    table: &str,
    same: impl Iterator<Item = (&'static str, Value<'a>)>,
) -> Result<bool> {
    let (same, values) = condition(same);
    connection.exists(&format!("SELECT 1 FROM {table} WHERE {same}"), &values)
}

/// The condition that columns have these values, which are its first parameters.
fn condition<'a>(same: impl Iterator<Item = (&'static str, Value<'a>)>) -> (String, Vec<Value<'a>>) {
    let (names, values): (Vec<_>, Vec<_>) = same.unzip();
    let parts = names.iter().enumerate().map(|(at, name)| format!("{name} = ?{}", at + 1));
    (parts.collect::<Vec<_>>().join(" AND "), values)
}

fn read(row: &Row<'_>, columns: &[Column]) -> Result<Cells> {
    columns.iter().enumerate().map(|(index, column)| Cell::read(row, index, *column)).collect()
}

/// How one side of a table differs from the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// Only the source has the row with these cells of its key.
    Put(Cells),
    /// The target has another row with this key.
    Replace(Cells),
    /// Only the target has it.
    Remove(Cells),
}

/// The rows of a table, page by page.
struct Side<'a> {
    table: &'static Table,
    names: &'a Reader,
    rows: VecDeque<Cells>,
    last: Option<Cells>,
    ended: bool,
}

impl<'a> Side<'a> {
    fn new(table: &'static Table, names: &'a Reader) -> Self {
        Self { table, names, rows: VecDeque::new(), last: None, ended: false }
    }

    /// The next row, which stays the next.
    async fn peek(&mut self) -> Result<Option<&Cells>> {
        if self.rows.is_empty() && !self.ended {
            let (table, last) = (self.table, self.last.take());
            self.rows = self.names.read(move |names| table.page(names, last.as_deref())).await?.into();
            self.ended = self.rows.len() < PAGE;
            self.last = self.rows.back().map(|row| row[..table.key.len()].to_vec());
        }
        Ok(self.rows.front())
    }
}

/// Goes through a table on both sides and hands over what differs.
pub(super) struct Merge<'a> {
    source: Side<'a>,
    target: Side<'a>,
}

impl<'a> Merge<'a> {
    pub(super) fn new(table: &'static Table, source: &'a Reader, target: &'a Reader) -> Self {
        Self { source: Side::new(table, source), target: Side::new(table, target) }
    }

    /// The next difference; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Difference>> {
        let key = self.source.table.key.len();
        loop {
            let order = match (self.source.peek().await?, self.target.peek().await?) {
                (None, None) => return Ok(None),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(ours), Some(theirs)) => ours[..key].cmp(&theirs[..key]),
            };
            let ours = if order.is_le() { self.source.rows.pop_front() } else { None };
            let theirs = if order.is_ge() { self.target.rows.pop_front() } else { None };
            match (ours, theirs) {
                (Some(mut row), theirs) if theirs.as_ref() != Some(&row) => {
                    row.truncate(key);
                    return Ok(Some(match theirs {
                        None => Difference::Put(row),
                        Some(_) => Difference::Replace(row),
                    }));
                }
                (None, Some(mut row)) => {
                    row.truncate(key);
                    return Ok(Some(Difference::Remove(row)));
                }
                _ => {}
            }
        }
    }
}
