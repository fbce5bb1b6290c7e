//! What is written down about a partial: a few lines of text with a sum under them.
//!
//! ```text
//! deltaport-partial 1
//! repository docker.io/library/debian
//! digest sha256:…
//! size 52428800              `-` while nobody has said how large the blob is
//! length 12582912
//! hasher 01…
//! sum …
//! ```
//!
//! A record that does not read in every line means that there is none: the blob is fetched from its beginning, which is
//! always right.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::str::FromStr;

use deltaport_oci::{Digest, Hasher, RepositoryName};

use crate::error::Result;
use crate::faults;
use crate::layout::Layout;
use crate::{core::Core, disk};

/// The first line: what it is, and in which version. Whatever changes in the format or its meaning changes the number.
const FIRST_LINE: &str = "deltaport-partial 1";
/// The most bytes of a record; one has at most 1000.
const MAX_LEN: u64 = 4096;

/// How far a partial has come, durably.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// For which local repository the bytes have come.
    pub(crate) repository: RepositoryName,
    /// Of which blob they are the beginning.
    pub(crate) digest: Digest,
    /// How many bytes the whole blob has, if that is known.
    pub(crate) size: Option<u64>,
    /// How many bytes are here.
    pub(crate) length: u64,
    /// The hasher after them.
    pub(crate) hasher: Hasher,
}

impl Record {
    /// The record of `key`; `None` when there is none that reads.
    pub(crate) fn read(layout: &Layout, key: &str) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        match File::open(layout.partial_record(key)) {
            Ok(file) => file.take(MAX_LEN).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(str::from_utf8(&bytes).ok().and_then(Self::parse))
    }

    /// Puts it in the place of the record before. The bytes that it counts must be durable.
    pub(super) fn write(&self, core: &Core, key: &str) -> Result<()> {
        core.faults.at(faults::PARTIAL_RECORD)?;
        let new = core.layout.new_partial_record(key);
        let mut file = File::create(&new)?;
        file.write_all(self.to_text().as_bytes())?;
        // Else a crash could leave an empty file under the name of the record.
        file.sync_data()?;
        std::fs::rename(new, core.layout.partial_record(key))?;
        Ok(())
    }

    fn to_text(&self) -> String {
        let Self { repository, digest, size, length, hasher } = self;
        let size = size.map_or_else(|| "-".to_owned(), |size| size.to_string());
        let mut text = format!("{FIRST_LINE}\nrepository {repository}\ndigest {digest}\n");
        // Writing to a string cannot fail.
        let _ = write!(text, "size {size}\nlength {length}\nhasher ");
        for byte in hasher.save() {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
        let sum = Digest::sha256(text.as_bytes()).hex();
        let _ = writeln!(text, "sum {sum}");
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let (body, sum) = text.split_at_checked(text.rfind("sum ")?)?;
        if sum.strip_prefix("sum ")?.strip_suffix('\n')? != Digest::sha256(body.as_bytes()).hex() {
            return None;
        }
        let mut lines = body.strip_prefix(FIRST_LINE)?.strip_prefix('\n')?.lines();
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let record = Self {
            repository: value("repository")?.parse().ok()?,
            digest: value("digest")?.parse().ok()?,
            size: match value("size")? {
                "-" => None,
                size => Some(size.parse().ok()?),
            },
            length: u64::from_str(value("length")?).ok()?,
            hasher: Hasher::resume(&bytes_of(value("hasher")?)?)?,
        };
        let fits = record.hasher.algorithm() == record.digest.algorithm()
            && record.size.is_none_or(|size| record.length <= size);
        (fits && lines.next().is_none()).then_some(record)
    }
}

/// Removes the record of `key`, durably, so that bytes which it does not count may take the place of those that it does.
pub(super) fn remove(layout: &Layout, key: &str) -> io::Result<bool> {
    disk::remove_if_there(&layout.new_partial_record(key))?;
    let removed = disk::remove_if_there(&layout.partial_record(key))?;
    if removed {
        disk::sync_directory(&layout.partials())?;
    }
    Ok(removed)
}

/// What pairs of hexadecimal digits mean.
fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut pairs = hex.as_bytes().chunks_exact(2);
    let bytes: Option<Vec<u8>> =
        pairs.by_ref().map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
    bytes.filter(|_| pairs.remainder().is_empty())
}

#[cfg(test)]
mod tests {
    use deltaport_oci::Algorithm;
    use proptest::prelude::*;

    use super::*;

    fn record(algorithm: Algorithm, size: Option<u64>) -> Record {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(b"the beginning");
        Record {
            repository: "docker.io/library/debian".parse().unwrap(),
            digest: Digest::of(algorithm, b"the beginning and the end"),
            size,
            length: 13,
            hasher,
        }
    }

    #[test]
    fn a_record_reads_back() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for size in [None, Some(13), Some(u64::MAX)] {
                let written = record(algorithm, size);
                let text = written.to_text();
                assert!(text.len() as u64 <= MAX_LEN, "{text}");
                let mut read = Record::parse(&text).expect("what was just written");
                assert_eq!((&read.repository, read.digest), (&written.repository, written.digest));
                assert_eq!((read.size, read.length), (size, 13));
                read.hasher.update(b" and the end");
                assert_eq!(read.hasher.finish(), written.digest);
            }
        }
    }

    /// The sum over the lines put right, so that it is not what refuses them.
    fn with_sum(text: &str) -> String {
        let body = &text[..text.rfind("sum ").unwrap()];
        format!("{body}sum {}\n", Digest::sha256(body.as_bytes()).hex())
    }

    #[test]
    fn another_version_or_a_wrong_line_is_no_record() {
        let good = record(Algorithm::Sha256, Some(25)).to_text();
        assert!(Record::parse(&with_sum(&good)).is_some());
        for (from, to) in [
            ("partial 1", "partial 2"),
            ("repository docker.io", "repository DOCKER.io"),
            ("digest sha256:", "digest sha256:0"),
            ("size 25", "size 12"),
            ("size 25", "size"),
            ("length 13", "length -13"),
            ("length 13", "length 13\nlength 13"),
            ("hasher 01", "hasher 02"),
            ("hasher 01", "hasher 0"),
            ("hasher 01", "hasher 0ä"),
            ("hasher", "state"),
        ] {
            let damaged = good.replacen(from, to, 1);
            assert_ne!(damaged, good, "{from}");
            assert!(Record::parse(&with_sum(&damaged)).is_none(), "{to}");
        }
    }

    proptest! {
        #[test]
        fn no_damaged_text_is_believed(at in 0..700_usize, bit in 0..8_u32, cut in 0..700_usize) {
            let good = record(Algorithm::Sha512, None).to_text();
            prop_assert!(Record::parse(&good[..cut.min(good.len() - 1)]).is_none());
            let mut bytes = good.into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(str::from_utf8(&bytes).ok().and_then(Record::parse).is_none(), "byte {}", at);
        }

        #[test]
        fn no_text_panics(text in ".{0,300}") {
            let _ = Record::parse(&text);
            let _ = Record::parse(&with_sum(&format!("{FIRST_LINE}\n{text}\nsum ")));
        }
    }
}
