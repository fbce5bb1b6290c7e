//! An OCI image layout (image-spec, image-layout.md): a directory that content is mirrored from or to.
//!
//! What is read may have been written by anybody: every file has a limit, and nothing counts that is not what its digest
//! says. What is written appears under its name whole and synced; the index comes last, in one step, and whatever else it
//! has stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use deltaport_oci::manifest::{Limits, View};
use deltaport_oci::{Descriptor, Digest, Hasher, Reference, RepositoryName, Tag, media_type};
use deltaport_store::Store;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::sync::OnceCell;

use crate::Manifest;

/// The largest manifest or index that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// How many entries of an index are looked at.
const MAX_ENTRIES: usize = 65_536;
/// How many bytes of a blob are read at once.
const READ: usize = 256 << 10;
/// The annotation that names an image in a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The file by which a directory is an image layout, and what is in it.
const MARK: (&str, &str) = ("oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
/// The file that says what is in the layout.
const INDEX: &str = "index.json";
/// The beginning of names of files that are not whole yet. What a crash leaves of them has no meaning to anybody.
const UNFINISHED: &str = ".deltaport-";
/// How many files have been begun: two of them may become the same.
static UNFINISHED_FILES: AtomicU64 = AtomicU64::new(0);

/// Held while an index is read and written again: rules may share a layout.
static WRITING: Mutex<()> = Mutex::new(());

/// A directory with images. What is in it is read once; whoever wants to know later opens it again.
pub(super) struct Layout {
    path: PathBuf,
    /// Whether it is made when something is put into it.
    begins: bool,
    content: OnceCell<Content>,
    read: AtomicU64,
}

/// What the index of a layout says.
#[derive(Debug, Default)]
struct Content {
    tags: BTreeMap<Tag, Digest>,
    /// By what they are about.
    referrers: BTreeMap<Digest, Vec<Digest>>,
    /// All entries, named or not.
    entries: BTreeSet<Digest>,
}

impl Layout {
    /// One to read from, which has to be there.
    pub(super) fn source(path: &Path) -> Self {
        Self { path: path.to_owned(), begins: false, content: OnceCell::new(), read: AtomicU64::new(0) }
    }

    /// One to write to, which is made if there is none.
    pub(super) fn destination(path: &Path) -> Self {
        Self { begins: true, ..Self::source(path) }
    }

    /// How many bytes of blobs have been read so far.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// What is called so.
    pub(super) async fn resolve(&self, reference: &Reference) -> Result<Option<Digest>, String> {
        match reference {
            Reference::Digest(digest) => Ok(self.blob_path(digest).is_file().then_some(*digest)),
            Reference::Tag(tag) => Ok(self.content().await?.tags.get(tag).copied()),
        }
    }

    /// A manifest; `None` when it is not there.
    pub(super) async fn manifest(&self, reference: &Reference) -> Result<Option<Arc<Manifest>>, String> {
        let Some(digest) = self.resolve(reference).await? else { return Ok(None) };
        let path = self.blob_path(&digest);
        let manifest = blocking(move || read_manifest(&path, &digest)).await?;
        Ok(manifest.map(Arc::new))
    }

    /// The names of its images, as far as they are tags or end in one.
    pub(super) async fn tags(&self) -> Result<BTreeSet<Tag>, String> {
        Ok(self.content().await?.tags.keys().cloned().collect())
    }

    /// Those of its entries that say something about `subject`; deltas between layers are not among them.
    pub(super) async fn referrers(&self, subject: &Digest) -> Result<Vec<Digest>, String> {
        Ok(self.content().await?.referrers.get(subject).cloned().unwrap_or_default())
    }

    /// Whether its index has this manifest, under whatever name.
    pub(super) async fn lists(&self, digest: &Digest) -> Result<bool, String> {
        Ok(self.content().await?.entries.contains(digest))
    }

    /// Those of some digests, each with how many bytes it should have, under which there is a file of so many.
    pub(super) async fn held(&self, wanted: Vec<(Digest, u64)>) -> Result<BTreeSet<Digest>, String> {
        let layout = self.path.clone();
        let is_there = move |digest: &Digest, size: u64| {
            fs::metadata(blob_path(&layout, digest)).is_ok_and(|found| found.is_file() && found.len() == size)
        };
        blocking(move || {
            let held = wanted.into_iter().filter(|(digest, size)| is_there(digest, *size));
            Ok(held.map(|(digest, _)| digest).collect())
        })
        .await
    }

    /// A blob that is only looked at, if it has at most `limit` bytes.
    pub(super) async fn small_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Bytes>, String> {
        let path = self.blob_path(digest);
        blocking(move || Ok(read(&path, limit)?.map(Bytes::from))).await
    }

    /// Gives a blob to a repository of `store`; `false` when it is not there.
    pub(super) async fn give(
        &self,
        store: &Store,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, String> {
        let path = self.blob_path(digest);
        let failed = |error: &dyn fmt::Display| format!("cannot read {}: {error}", path.display());
        let mut file = match tokio::fs::File::open(&path).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(&error)),
        };
        let stored = |error: deltaport_store::Error| error.to_string();
        let mut staging = store.blobs().stage(digest.algorithm()).await.map_err(stored)?;
        loop {
            let mut buffer = BytesMut::with_capacity(READ);
            let count = file.read_buf(&mut buffer).await.map_err(|error| failed(&error))?;
            if count == 0 {
                break;
            }
            self.read.fetch_add(count as u64, Ordering::Relaxed);
            staging.write(buffer.freeze()).await.map_err(stored)?;
        }
        store.commit(staging, digest, repository).await.map_err(|error| failed(&error))?;
        Ok(true)
    }

    /// Copies a blob out of a file into the layout.
    pub(super) async fn take_blob(&self, digest: Digest, from: File) -> Result<(), String> {
        let (layout, path) = (self.path.clone(), self.blob_path(&digest));
        blocking(move || put_blob(&layout, &path, &digest, |file| copy(&from, file))).await
    }

    /// Puts a manifest into the layout; with `entry`, it also stands in its index, and under `tag` if that is given.
    pub(super) async fn take_manifest(
        &self,
        manifest: Arc<Manifest>,
        entry: bool,
        tag: Option<Tag>,
    ) -> Result<(), String> {
        let (layout, path) = (self.path.clone(), self.blob_path(&manifest.digest));
        blocking(move || {
            let bytes = manifest.bytes.clone();
            put_blob(&layout, &path, &manifest.digest, move |file| file.write_all(&bytes))?;
            if entry || tag.is_some() {
                change_index(&layout, |entries| add_entry(entries, &manifest, tag.as_ref()))?;
            }
            Ok(())
        })
        .await
    }

    /// Takes a name out of the index if it still leads to `digest`; the bytes stay. Whether it did.
    pub(super) async fn forget(&self, tag: Tag, digest: Digest) -> Result<bool, String> {
        let layout = self.path.clone();
        blocking(move || {
            let mut found = false;
            change_index(&layout, |entries| {
                entries.retain(|entry| {
                    let this = name_of(entry) == Some(tag.as_str()) && digest_of(entry) == Some(digest);
                    found |= this;
                    !this
                });
            })?;
            Ok(found)
        })
        .await
    }

    async fn content(&self) -> Result<&Content, String> {
        let (path, begins) = (self.path.clone(), self.begins);
        self.content
            .get_or_try_init(|| {
                blocking(move || match read_index(&path)? {
                    Some(index) => read_content(&path, &index),
                    None if begins => Ok(Content::default()),
                    None => {
                        Err(format!("there is no OCI image layout in {}: it has no {INDEX}", path.display()))
                    }
                })
            })
            .await
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        blob_path(&self.path, digest)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}", self.path.display())
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layout").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Does what waits for the disk where that may be.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

fn blob_path(layout: &Path, digest: &Digest) -> PathBuf {
    layout.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
}

/// Reads a small file; `None` when there is none.
fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, String> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)) {
        Ok(_) if bytes.len() as u64 > limit => Err(format!("{} has more than {limit} bytes", path.display())),
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

fn read_manifest(path: &Path, digest: &Digest) -> Result<Option<Manifest>, String> {
    let Some(bytes) = read(path, MAX_FILE)? else { return Ok(None) };
    if Digest::of(digest.algorithm(), &bytes) != *digest {
        return Err(format!("{} is damaged: it is not what its name says", path.display()));
    }
    let media_type = media_type_of(&bytes).into();
    Ok(Some(Manifest { digest: *digest, media_type, bytes: bytes.into() }))
}

/// The media type that a manifest has by its own account, or by what it contains: who asks by digest has no descriptor.
fn media_type_of(bytes: &[u8]) -> String {
    let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
    match value.get("mediaType").and_then(Value::as_str) {
        Some(media_type) => media_type.to_owned(),
        None if value.get("manifests").is_some() => media_type::OCI_INDEX.to_owned(),
        None => media_type::OCI_MANIFEST.to_owned(),
    }
}

/// The entries of the index, as they stand there.
fn read_index(layout: &Path) -> Result<Option<Value>, String> {
    let path = layout.join(INDEX);
    let Some(bytes) = read(&path, MAX_FILE)? else { return Ok(None) };
    let index: Option<Value> = serde_json::from_slice(&bytes).ok();
    match index.filter(|index| index.get("manifests").is_some_and(Value::is_array)) {
        Some(index) => Ok(Some(index)),
        None => Err(format!("{} is no index of an OCI image layout", path.display())),
    }
}

fn read_content(layout: &Path, index: &Value) -> Result<Content, String> {
    let mut content = Content::default();
    let entries = index.get("manifests").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if entries.len() > MAX_ENTRIES {
        return Err(format!("the index of {} has more than {MAX_ENTRIES} entries", layout.display()));
    }
    for entry in entries {
        let Ok(descriptor) = serde_json::from_value::<Descriptor>(entry.clone()) else { continue };
        content.entries.insert(descriptor.digest);
        if let Some(tag) = descriptor.annotations.get(REF_NAME).and_then(|name| tag_in(name)) {
            content.tags.insert(tag, descriptor.digest);
        }
        let manifest = read_manifest(&blob_path(layout, &descriptor.digest), &descriptor.digest);
        let Ok(Some(manifest)) = manifest else { continue };
        let Ok(view) = View::parse(&manifest.media_type, &manifest.bytes, Limits::DEFAULT) else { continue };
        let delta = view.artifact_type.as_deref() == Some(media_type::DELTA_ARTIFACT);
        if let Some(subject) = view.subject.filter(|_| !delta) {
            content.referrers.entry(subject.digest).or_default().push(descriptor.digest);
        }
    }
    Ok(content)
}

/// The tag that an image has by its name, which may be a whole one.
fn tag_in(name: &str) -> Option<Tag> {
    name.parse().ok().or_else(|| {
        let (before, tag) = name.rsplit_once(':')?;
        (!before.is_empty() && !tag.contains('/')).then(|| tag.parse().ok())?
    })
}

fn name_of(entry: &Value) -> Option<&str> {
    entry.get("annotations")?.get(REF_NAME)?.as_str()
}

fn digest_of(entry: &Value) -> Option<Digest> {
    entry.get("digest")?.as_str()?.parse().ok()
}

fn add_entry(entries: &mut Vec<Value>, manifest: &Manifest, tag: Option<&Tag>) {
    let this = |entry: &Value| digest_of(entry) == Some(manifest.digest);
    match tag {
        Some(tag) => entries.retain(|entry| {
            // It has a name now, or the name has another manifest.
            name_of(entry) != Some(tag.as_str()) && !(this(entry) && name_of(entry).is_none())
        }),
        None if entries.iter().any(this) => return,
        None => {}
    }
    let mut entry = json!({
        "mediaType": &*manifest.media_type,
        "digest": manifest.digest,
        "size": manifest.bytes.len(),
    });
    if let Some(tag) = tag {
        entry["annotations"] = json!({ REF_NAME: tag.as_str() });
    }
    entries.push(entry);
}

/// Reads the index, or begins one, changes it, and puts it in place.
fn change_index(layout: &Path, change: impl FnOnce(&mut Vec<Value>)) -> Result<(), String> {
    let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let empty = || json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [] });
    let mut index = read_index(layout)?.unwrap_or_else(empty);
    let before = index.clone();
    if let Some(entries) = index.get_mut("manifests").and_then(Value::as_array_mut) {
        change(entries);
    }
    if index == before {
        return Ok(());
    }
    let mark = layout.join(MARK.0);
    if !mark.is_file() {
        put(&mark, |file| file.write_all(MARK.1.as_bytes()))?;
    }
    put(&layout.join(INDEX), |file| file.write_all(index.to_string().as_bytes()))
}

/// Puts bytes under their digest, unless they are there; fails when they are others.
fn put_blob(
    layout: &Path,
    path: &Path,
    digest: &Digest,
    write: impl FnOnce(&mut Hashing<'_>) -> io::Result<()>,
) -> Result<(), String> {
    fs::create_dir_all(path.parent().unwrap_or(layout))
        .map_err(|error| format!("cannot make a directory in {}: {error}", layout.display()))?;
    put(path, |file| {
        let mut hashing = Hashing { file, hasher: Hasher::new(digest.algorithm()) };
        write(&mut hashing)?;
        match hashing.hasher.finish() == *digest {
            true => Ok(()),
            false => Err(io::Error::other("the bytes are not what their digest says")),
        }
    })
}

/// A file that is hashed while it is written.
struct Hashing<'a> {
    file: &'a mut File,
    hasher: Hasher,
}

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Copies a file, which may share its cursor with others.
fn copy(from: &File, to: &mut impl io::Write) -> io::Result<()> {
    io::copy(&mut crate::files::reader(from.try_clone()?), to).map(drop)
}

/// Puts a file in its place, whole and synced, or leaves what was there.
fn put(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), String> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = UNFINISHED_FILES.fetch_add(1, Ordering::Relaxed);
    let unfinished = directory.join(format!("{UNFINISHED}{}-{number}-{name}", std::process::id()));
    let put = || {
        fs::create_dir_all(directory)?;
        let mut file = File::create(&unfinished)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(directory)?.sync_all()
    };
    put().map_err(|error| {
        // What cannot be removed has no meaning.
        let _left = fs::remove_file(&unfinished);
        format!("cannot write {}: {error}", path.display())
    })
}
