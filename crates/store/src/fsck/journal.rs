//! Checking the journal: that it reads, and that it says what the database says.

use super::{Check, Code};
use crate::error::Result;
use crate::journal::{self, Change, Item};
use crate::names::database;
use crate::names::replay::Replay;
use crate::names::snapshot;

impl Check<'_> {
    /// Replays the journal, and what the outbox holds for it, and compares the outcome with the rows. After a repair
    /// the journal is written anew from them.
    pub(super) fn journal(&mut self) -> Result<()> {
        let mut replay = Replay::default();
        let mut damage = Vec::new();
        let found = journal::read(&self.layout.journal(), |item| {
            match item {
                Item::Entry(entry) => replay.apply(entry.at, entry.change.clone()),
                Item::Damage(text) => damage.push(text),
            }
            Ok(())
        })?;
        let damaged = !damage.is_empty();
        for text in damage {
            self.find(Code::JournalDamaged, "journal", text, self.repair);
        }
        let last = database::last_change(self.connection)?;
        let waiting = database::undelivered(self.connection, found)?;
        let gap = found + waiting.len() as u64 != last;
        for (_, at, change) in &waiting {
            if let Ok(change) = serde_json::from_str(change.get()) {
                replay.apply(*at, change);
            }
        }
        let (wrong, example) = self.compare(replay)?;
        if gap || wrong > 0 {
            let mut detail = format!("it ends with change {}, names.db with {last}", found);
            if let Some(example) = example {
                detail = format!("{detail}; {wrong} names differ, such as {example}");
            }
            self.find(Code::JournalMismatch, "journal", detail, self.repair);
        }
        if self.repair && (damaged || gap || wrong > 0 || !waiting.is_empty()) {
            database::set_aside(self.layout, &self.layout.journal())?;
            database::rewrite_journal(self.layout, self.connection)?;
        }
        Ok(())
    }

    /// How many names the rows and the journal do not agree on, with an example.
    fn compare(&self, mut replay: Replay) -> Result<(u64, Option<String>)> {
        let (mut wrong, mut example) = (0, None);
        snapshot::each(self.connection, |_, change| {
            if change != (Change::Snapshot {}) && !replay.take(&change) {
                wrong += 1;
                if example.is_none() {
                    example = Some(journal::encode(&change)?.get().to_owned());
                }
            }
            Ok(())
        })?;
        let surplus = replay.len() as u64;
        if surplus > 0 && example.is_none() {
            example = Some("names that are only in the journal".to_owned());
        }
        Ok((wrong + surplus, example))
    }
}
