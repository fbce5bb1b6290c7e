//! Makes the names of the target those of the source, as far as the bytes that they need are there.
//!
//! The source goes on changing meanwhile, so one pass finds a state that never was: a row whose parent was removed a moment
//! ago, or came a moment later. Such a row is put off to the next pass; when the source stands still there are none.

use std::sync::Arc;

use super::reader::Reader;
use super::rows::{Cells, Difference, Merge};
use super::tables::{TABLES, Table};
use crate::core::Core;
use crate::error::Result;
use crate::names::Tx;

/// How many rows are put in one transaction.
const BATCH: usize = 200;

/// What one pass did to names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pass {
    /// Rows that were put.
    pub(super) put: u64,
    /// Rows that were removed.
    pub(super) removed: u64,
    /// Rows that could not be put yet, and why not the first of them.
    pub(super) put_off: u64,
    pub(super) why: Option<String>,
}

/// Goes through all tables once; `seen` hears of every batch.
pub(super) async fn pass(source: &Reader, target: &Arc<Core>, mut seen: impl FnMut(&Pass)) -> Result<Pass> {
    let mut pass = Pass::default();
    let there = Reader::Open(Arc::clone(target));
    // Children first: what is gone goes before what it belonged to, and makes room for what came in its place.
    for table in TABLES.iter().rev() {
        let mut merge = Merge::new(table, source, &there);
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(difference) = merge.next().await? {
            match difference {
                Difference::Remove(key) => batch.push(key),
                // What it leads to may have to go.
                Difference::Replace(key) if table.moves => batch.push(key),
                Difference::Replace(_) | Difference::Put(_) => {}
            }
            if batch.len() == BATCH {
                remove(target, table, std::mem::take(&mut batch), &mut pass).await?;
                seen(&pass);
            }
        }
        remove(target, table, batch, &mut pass).await?;
    }
    for table in TABLES {
        let mut merge = Merge::new(table, source, &there);
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(difference) = merge.next().await? {
            if let Difference::Put(key) | Difference::Replace(key) = difference {
                batch.push(key);
            }
            if batch.len() == BATCH {
                put(source, target, table, std::mem::take(&mut batch), &mut pass).await?;
                seen(&pass);
            }
        }
        put(source, target, table, batch, &mut pass).await?;
    }
    seen(&pass);
    Ok(pass)
}

async fn remove(target: &Core, table: &'static Table, keys: Vec<Cells>, pass: &mut Pass) -> Result<()> {
    let count = keys.len() as u64;
    if count == 0 {
        return Ok(());
    }
    let change = move |tx: &mut Tx<'_>| {
        let mut kept = Kept::default();
        for key in &keys {
            match table.hold(tx.connection, key)? {
                None => table.remove(tx.connection, key)?,
                Some(why) => kept.count(why),
            }
        }
        Ok(kept)
    };
    let kept = target.database.change(change).await?;
    pass.removed += count - kept.rows;
    pass.put_off(kept);
    Ok(())
}

/// Rows that are left to the next pass.
#[derive(Debug, Default)]
struct Kept {
    rows: u64,
    why: Option<String>,
}

impl Kept {
    fn count(&mut self, why: String) {
        self.rows += 1;
        self.why.get_or_insert(why);
    }
}

impl Pass {
    fn put_off(&mut self, kept: Kept) {
        self.put_off += kept.rows;
        self.why = self.why.take().or(kept.why);
    }
}

async fn put(
    source: &Reader,
    target: &Core,
    table: &'static Table,
    keys: Vec<Cells>,
    pass: &mut Pass,
) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let read = move |names: &_| -> Result<Vec<Cells>> {
        // What is gone meanwhile is left out.
        keys.iter().filter_map(|key| table.whole(names, key).transpose()).collect()
    };
    let rows = source.read(read).await?;
    let count = rows.len() as u64;
    let change = move |tx: &mut Tx<'_>| {
        let mut kept = Kept::default();
        for row in rows.iter() {
            match table.obstacle(tx.connection, row)? {
                None => table.put(tx.connection, row)?,
                Some(why) => kept.count(why),
            }
        }
        Ok(kept)
    };
    let kept = target.database.change(change).await?;
    pass.put += count - kept.rows;
    pass.put_off(kept);
    Ok(())
}
