//! Every path of a store. No other file joins paths.
//!
//! ```text
//! <root>/                      the data directory
//!   lock                       flock(2) of the process that has the store open; its process id, for people
//!   names.db, -wal, -shm       SQLite: repositories, manifests, tags, links, uploads, the collector's queue
//!   names.db.old-<time>        a database that `rebuild` set aside
//!   journal                    append-only log of every change of names, one JSON object per line
//!   journal.new                a compacted journal before it takes the place of the old one
//!   blobs/<algorithm>/<ab>/<abcd…>   content-addressed bytes, manifests included; read-only, never rewritten
//!   pair, pair.new             a number that the database has, too, when bytes are in a directory
//!   staging/<random>           bytes whose digest is not yet proven; removed when the store opens
//!   staging/commit.<algorithm>.<hex> marker: a blob of this digest may lie in blobs/ without a row in names.db
//!   uploads/<id>               bytes of an upload in progress
//!   partial/<key>              the beginning of a blob that is fetched for a repository; <key> is the SHA-256 of both names
//!   partial/<key>.record       how many of these bytes are durable, and the state of the hash after them
//!   partial/<key>.new          a record before it takes the place of the old one
//!   copies/<algorithm>.<hex>   local copies of objects, when bytes are in a bucket; removed when the store opens
//!   quarantine/                what a check put aside: damaged blobs, journals and databases
//!   private/<name>             secrets and what is known of others' keys; mode 0600, replaced whole
//!   private/<name>.new         such a file before it takes the place of the old one
//!   private/lock               flock(2) of who changes one of them
//!   private/commands           the socket at which a running server takes commands of this machine
//! ```
//!
//! `blobs/`, `pair`, `staging/`, `uploads/`, `partial/` and the `quarantine/` of what was in them can be below another directory
//! ([`ByteStore::Elsewhere`]), and `names.db` can be another file ([`NamesOptions::File`]). Each has a lock of its own then.

use std::path::{Path, PathBuf};

use deltaport_oci::{Algorithm, Digest, RepositoryName};

use crate::{ByteStore, NamesOptions};

/// Where things are of one store.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
    /// What the directories with bytes are below.
    bytes: PathBuf,
    /// The embedded database, if there is one.
    database: PathBuf,
}

/// The database, unless it is told to be another file.
const DATABASE: &str = "names.db";
const LOCK: &str = "lock";

const QUARANTINE: &str = "quarantine";
const MARKER: &str = "commit.";
const RECORD: &str = ".record";
const NEW_RECORD: &str = ".new";

impl Layout {
    /// With everything below `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), bytes: root.to_owned(), database: root.join(DATABASE) }
    }

    /// With bytes and names where they are said to be. Looks whether the database is a symbolic link, as what is made
    /// beside it has to be beside the file that it leads to.
    pub(crate) fn of(root: &Path, bytes: &ByteStore, names: &NamesOptions) -> Self {
        let mut layout = Self::new(root);
        if let ByteStore::Elsewhere(directory) = bytes {
            layout.bytes.clone_from(directory);
        }
        if let NamesOptions::File(file) = names {
            // A name alone has no directory, and might mean something else to SQLite.
            let anchored = if file.is_absolute() { file.clone() } else { Path::new(".").join(file) };
            layout.database = anchored.canonicalize().unwrap_or(anchored);
        }
        layout
    }

    /// The data directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory that bytes are below; the data directory, unless it is told to be another.
    pub(crate) fn bytes(&self) -> &Path {
        &self.bytes
    }

    /// The directories that exist in every store.
    pub(crate) fn directories(&self) -> [PathBuf; 8] {
        [
            self.blobs(),
            self.blobs().join(Algorithm::Sha256.as_str()),
            self.blobs().join(Algorithm::Sha512.as_str()),
            self.staging(),
            self.uploads(),
            self.partials(),
            self.quarantine(),
            self.root.join(QUARANTINE),
        ]
    }

    /// What no two processes may work on, and the lock of each. A database that has the usual name is locked with its
    /// directory, so that whoever calls that directory his data directory is kept out, too.
    pub(crate) fn locks(&self) -> [(&Path, PathBuf); 3] {
        let database = match (self.database.file_name(), self.database.parent()) {
            (Some(name), Some(directory)) if name == DATABASE => directory.join(LOCK),
            _ => companion(&self.database, ".lock"),
        };
        [(&self.root, self.root.join(LOCK)), (&self.bytes, self.bytes.join(LOCK)), (&self.database, database)]
    }

    pub(crate) fn database(&self) -> &Path {
        &self.database
    }

    /// A database while `rebuild` fills it.
    pub(crate) fn new_database(&self) -> PathBuf {
        companion(&self.database, ".new")
    }

    /// Where `rebuild` sets the old database aside, with the suffixes that SQLite gives to its companions.
    pub(crate) fn old_database(&self, stamp: u64) -> PathBuf {
        companion(&self.database, &format!(".old-{stamp}"))
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    pub(crate) fn new_journal(&self) -> PathBuf {
        self.root.join("journal.new")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.bytes.join("blobs")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let mut path = self.bytes.join("blobs");
        path.push(digest.algorithm().as_str());
        path.push(&hex[..2]);
        path.push(hex);
        path
    }

    /// The digest that a file of `blobs/` is named after; `None` for a name that the store did not give.
    pub(crate) fn digest_of(&self, path: &Path) -> Option<Digest> {
        let hex = path.file_name()?.to_str()?;
        let algorithm = path.parent()?.parent()?.file_name()?.to_str()?;
        let digest: Digest = format!("{algorithm}:{hex}").parse().ok()?;
        (self.blob(&digest) == path).then_some(digest)
    }

    /// What tells that bytes and names belong together.
    pub(crate) fn pair(&self) -> PathBuf {
        self.bytes.join("pair")
    }

    pub(crate) fn new_pair(&self) -> PathBuf {
        self.bytes.join("pair.new")
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.bytes.join("staging")
    }

    pub(crate) fn staged(&self, random: &str) -> PathBuf {
        self.staging().join(random)
    }

    pub(crate) fn marker(&self, digest: &Digest) -> PathBuf {
        self.staging().join(format!("{MARKER}{}.{}", digest.algorithm(), digest.hex()))
    }

    /// The digest that a marker is about; `None` for any other file of `staging/`.
    pub(crate) fn marked(path: &Path) -> Option<Digest> {
        let (algorithm, hex) = path.file_name()?.to_str()?.strip_prefix(MARKER)?.split_once('.')?;
        format!("{algorithm}:{hex}").parse().ok()
    }

    pub(crate) fn uploads(&self) -> PathBuf {
        self.bytes.join("uploads")
    }

    /// `id` must be one that the store made, or one that [`is_upload_id`] accepts.
    pub(crate) fn upload(&self, id: &str) -> PathBuf {
        self.uploads().join(id)
    }

    pub(crate) fn partials(&self) -> PathBuf {
        self.bytes.join("partial")
    }

    /// Under which key the bytes of `digest` are kept that arrive for `repository`. No name can hold both in words.
    pub(crate) fn partial_key(repository: &RepositoryName, digest: &Digest) -> String {
        Digest::sha256(format!("{repository}@{digest}").as_bytes()).hex()
    }

    /// The bytes of a partial.
    pub(crate) fn partial(&self, key: &str) -> PathBuf {
        self.partials().join(key)
    }

    pub(crate) fn partial_record(&self, key: &str) -> PathBuf {
        self.partials().join(format!("{key}{RECORD}"))
    }

    pub(crate) fn new_partial_record(&self, key: &str) -> PathBuf {
        self.partials().join(format!("{key}{NEW_RECORD}"))
    }

    /// The key that a file of `partial/` belongs to; `None` for a name that the store did not give.
    pub(crate) fn key_of(path: &Path) -> Option<&str> {
        let name = path.file_name()?.to_str()?;
        let key = name.strip_suffix(RECORD).or_else(|| name.strip_suffix(NEW_RECORD)).unwrap_or(name);
        let hex = key.len() == 64 && key.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        hex.then_some(key)
    }

    pub(crate) fn copies(&self) -> PathBuf {
        self.root.join("copies")
    }

    /// The local copy of a blob that is an object of a bucket.
    pub(crate) fn copy(&self, digest: &Digest) -> PathBuf {
        self.copies().join(format!("{}.{}", digest.algorithm(), digest.hex()))
    }

    pub(crate) fn quarantine(&self) -> PathBuf {
        self.bytes.join(QUARANTINE)
    }

    /// Where `path` is put aside: beside it, as a rename does not leave a file system.
    pub(crate) fn quarantine_of(&self, path: &Path) -> PathBuf {
        match path.parent() == Some(&self.root) {
            true => self.root.join(QUARANTINE),
            false => self.quarantine(),
        }
    }

    /// Every directory in which something was put aside.
    pub(crate) fn quarantines(&self) -> Vec<PathBuf> {
        let mut both = vec![self.quarantine(), self.root.join(QUARANTINE)];
        both.dedup();
        both
    }

    pub(crate) fn private(&self, name: &str) -> PathBuf {
        self.root.join("private").join(name)
    }

    pub(crate) fn new_private(&self, name: &str) -> PathBuf {
        self.private(&format!("{name}.new"))
    }

    pub(crate) fn commands(&self) -> PathBuf {
        self.private("commands")
    }

    pub(crate) fn private_lock(&self) -> PathBuf {
        self.private("lock")
    }
}

/// The file beside `path` that has its name and `suffix`.
pub(crate) fn companion(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether `id` has the form of an upload's identifier: 32 lower-case hexadecimal characters. Anything else never
/// becomes part of a path.
pub(crate) fn is_upload_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let layout = Layout::new(Path::new("/data"));
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, b"x");
            assert_eq!(layout.digest_of(&layout.blob(&digest)), Some(digest));
            assert_eq!(Layout::marked(&layout.marker(&digest)), Some(digest));
            assert_eq!(Layout::marked(&layout.blob(&digest)), None);
        }
        assert_eq!(layout.digest_of(Path::new("/data/blobs/sha256/ab/abc")), None);
        assert_eq!(layout.digest_of(Path::new("/data/blobs/README")), None);
    }

    #[test]
    fn every_file_of_a_partial_tells_its_key() {
        let layout = Layout::new(Path::new("/data"));
        let (a, b): (RepositoryName, RepositoryName) = ("a/b".parse().unwrap(), "a/c".parse().unwrap());
        let digest = Digest::sha256(b"x");
        let key = Layout::partial_key(&a, &digest);
        for path in [layout.partial(&key), layout.partial_record(&key), layout.new_partial_record(&key)] {
            assert_eq!(Layout::key_of(&path), Some(&*key));
        }
        assert_ne!(key, Layout::partial_key(&b, &digest));
        assert_ne!(key, Layout::partial_key(&a, &Digest::sha256(b"y")));
        for other in ["README", "record", &format!("{key}.old"), &key[1..], &key.to_uppercase()] {
            assert_eq!(Layout::key_of(&layout.partials().join(other)), None, "{other}");
        }
    }

    #[test]
    fn upload_identifiers_are_not_paths() {
        assert!(is_upload_id(&"0f".repeat(16)));
        for bad in ["", "..", "../../../../../../../../../etc/pa", &"0F".repeat(16), &"0f".repeat(17)] {
            assert!(!is_upload_id(bad), "{bad}");
        }
    }
}
