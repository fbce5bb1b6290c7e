//! Checking the beginnings of blobs that are fetched: that they are what their records say.

use std::fs::File;
use std::path::Path;

use super::{Check, Code};
use crate::disk;
use crate::error::Result;
use crate::layout::Layout;
use crate::open::files;
use crate::partial::record::Record;

impl Check<'_> {
    /// Reads every partial as far as it is recorded.
    pub(super) fn partials(&mut self) -> Result<()> {
        let directory = self.layout.partials();
        // A store of an earlier version has none until it is opened.
        if !directory.is_dir() {
            return Ok(());
        }
        for path in files(directory)? {
            match Layout::key_of(&path) {
                None => {
                    let repaired = self.mend(|mend| mend.quarantine(&path))?;
                    self.find(Code::StrayFile, path.display(), "not the name of a partial", repaired);
                }
                Some(key) if path == self.layout.partial(key) => self.partial(key, &path)?,
                Some(key)
                    if path == self.layout.partial_record(key) && self.layout.partial(key).is_file() => {}
                Some(_) => self.find(Code::PartialOrphan, path.display(), "the next start removes it", false),
            }
        }
        Ok(())
    }

    fn partial(&mut self, key: &str, path: &Path) -> Result<()> {
        let record = self.layout.partial_record(key);
        if disk::size_if_there(&record)?.is_none() {
            self.find(Code::PartialOrphan, path.display(), "the next start removes it", false);
            return Ok(());
        }
        let (subject, wrong) = match Record::read(self.layout, key)? {
            None => (record.display().to_string(), Some("the record does not read".to_owned())),
            Some(record) => {
                let subject = format!("{}@{}", record.repository, record.digest);
                let algorithm = record.digest.algorithm();
                let (hasher, length) = disk::hash_file(File::open(path)?, algorithm, record.length, |_| {})?;
                let wrong = if length < record.length {
                    Some(format!("{length} bytes of the {} that were recorded", record.length))
                } else {
                    let same = hasher.finish() == record.hasher.finish();
                    (!same).then(|| format!("its {length} bytes are not those that were recorded"))
                };
                (subject, wrong)
            }
        };
        if let Some(wrong) = wrong {
            let repaired = self.mend(|mend| {
                mend.quarantine(&record)?;
                mend.quarantine(path)
            })?;
            self.find(Code::PartialDamaged, subject, format!("{wrong}; it is fetched again"), repaired);
        }
        Ok(())
    }
}
