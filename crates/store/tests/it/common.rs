//! Stores, images and shorthands for the tests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use deltaport_oci::wire::ByteRange;
use deltaport_oci::{Algorithm, Digest, RepositoryName, Tag, manifest, media_type};
use deltaport_store::{
    Blob, BucketOptions, ByteStore, Credentials, Faults, FsckOptions, NamesOptions, NewManifest, Options,
    PostgresOptions, Rebuilt, Report, Result, Store, fsck, rebuild,
};
use deltaport_testkit::postgres::Database;
use deltaport_testkit::s3::service::{self, Service};
use deltaport_testkit::s3::{self, Server};
use futures_util::TryStreamExt as _;
use rusqlite::types::ValueRef;
use tempfile::TempDir;

/// The owner of every upload that does not care.
pub(crate) const OWNER: &str = "alice";

/// Where the bytes of blobs are that are not in a directory.
enum Objects {
    /// In a bucket of the test kit's service.
    Kit(Box<Server>, String),
    /// Below these keys of the service that the environment names.
    Named(&'static Service, String),
}

/// Where a store lives: a directory, and whatever of it is elsewhere. All of it vanishes.
pub(crate) struct Home {
    directory: TempDir,
    /// The directory with the bytes, if that is another.
    files: Option<TempDir>,
    /// What the file with the names is in, if that is elsewhere.
    names: Option<TempDir>,
    database: Option<Database>,
    /// The service with the bytes of blobs.
    bucket: Option<Objects>,
}

impl Home {
    /// With names in the directory.
    pub(crate) fn embedded() -> Self {
        Self { directory: TempDir::new().unwrap(), files: None, names: None, database: None, bucket: None }
    }

    /// With names in PostgreSQL.
    pub(crate) fn postgres() -> Self {
        Self::over(Database::new())
    }

    /// With names in a database that the test looks after.
    pub(crate) fn over(database: Database) -> Self {
        Self { database: Some(database), ..Self::embedded() }
    }

    /// With bytes in one place, names in another, and the rest in a third. Where this machine has memory as a file system,
    /// bytes are on another than the rest, so that nothing can be renamed from one to the other.
    pub(crate) fn split() -> Self {
        let memory = Path::new("/dev/shm");
        let elsewhere = || match memory.is_dir() {
            true => TempDir::new_in(memory).unwrap(),
            false => TempDir::new().unwrap(),
        };
        Self { directory: elsewhere(), names: Some(elsewhere()), ..Self::embedded() }.and_files()
    }

    /// With bytes in a directory of their own.
    pub(crate) fn and_files(mut self) -> Self {
        self.files = Some(TempDir::new().unwrap());
        self
    }

    /// With names in PostgreSQL and bytes in a bucket, so that stores in several directories are replicas.
    pub(crate) fn hub() -> Self {
        Self::postgres().and_bucket()
    }

    /// With bytes in a bucket.
    pub(crate) fn and_bucket(mut self) -> Self {
        self.bucket = Some(match Service::shared() {
            Some(service) => Objects::Named(service, service.prefix()),
            None => {
                let server = Server::start();
                let bucket = server.bucket();
                Objects::Kit(Box::new(server), bucket)
            }
        });
        self
    }

    /// A directory for another replica. Where bytes are in files, both have the same.
    pub(crate) fn other(&self) -> TempDir {
        let other = TempDir::new().unwrap();
        if self.bucket.is_none() {
            for shared in ["blobs", "pair"] {
                std::os::unix::fs::symlink(self.path().join(shared), other.path().join(shared)).unwrap();
            }
        }
        other
    }

    /// Opens the store of another replica.
    pub(crate) async fn open_other(&self, other: &TempDir) -> Store {
        Store::open(Options { root: other.path().to_owned(), ..self.options() }).await.unwrap()
    }

    pub(crate) fn database(&self) -> &Database {
        self.database.as_ref().expect("names in PostgreSQL")
    }

    /// The objects that there are.
    pub(crate) fn objects(&self) -> Vec<String> {
        match &self.bucket {
            Some(Objects::Kit(server, bucket)) => {
                server.objects(bucket).into_iter().map(|(key, _)| key).collect()
            }
            Some(Objects::Named(service, prefix)) => service.keys(prefix),
            None => Vec::new(),
        }
    }

    /// How many objects in parts were begun and not ended.
    pub(crate) fn unfinished(&self) -> usize {
        match &self.bucket {
            Some(Objects::Kit(server, bucket)) => server.unfinished(bucket),
            Some(Objects::Named(service, prefix)) => service.unfinished(prefix),
            None => 0,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// What the directories with bytes are below.
    pub(crate) fn files(&self) -> &Path {
        self.files.as_ref().map_or(self.path(), TempDir::path)
    }

    /// The file with the names, if they are in one.
    pub(crate) fn file(&self) -> PathBuf {
        // The directory is there already, but not the one in it.
        let elsewhere = self.names.as_ref().map(|directory| directory.path().join("made/of images.db"));
        elsewhere.unwrap_or_else(|| self.path().join("names.db"))
    }

    /// Makes the file with the names again.
    pub(crate) fn rebuild(&self) -> Rebuilt {
        rebuild(self.path(), &self.bytes(), &self.names()).unwrap()
    }

    /// Everything that names say, in words, if they are in a file.
    pub(crate) fn state(&self) -> Vec<String> {
        state_of(&self.file())
    }

    /// Whether all is in files: only then can names be made again.
    pub(crate) fn is_embedded(&self) -> bool {
        self.database.is_none() && self.has_files()
    }

    /// Whether names are in a file.
    pub(crate) fn has_names(&self) -> bool {
        self.database.is_none()
    }

    /// Whether the bytes of blobs are in files.
    pub(crate) fn has_files(&self) -> bool {
        self.bucket.is_none()
    }

    /// How many bytes the blobs take. Objects stay for a while when their rows are gone.
    pub(crate) fn blob_bytes(&self) -> u64 {
        match self.has_files() {
            true => on_disk(self.files()),
            false => {
                let rows = self.sql("SELECT CAST(coalesce(sum(size), 0) AS bigint) FROM blob");
                rows[0].parse().unwrap()
            }
        }
    }

    pub(crate) fn options(&self) -> Options {
        Options { names: self.names(), bytes: self.bytes(), ..options(self.path()) }
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(self.options()).await.unwrap()
    }

    pub(crate) fn bytes(&self) -> ByteStore {
        match (&self.bucket, &self.files) {
            (Some(Objects::Kit(server, bucket)), _) => {
                ByteStore::Bucket(Box::new(bucket_options(server, bucket)))
            }
            (Some(Objects::Named(service, prefix)), _) => {
                ByteStore::Bucket(Box::new(service_options(service, prefix)))
            }
            (None, Some(files)) => ByteStore::Elsewhere(files.path().to_owned()),
            (None, None) => ByteStore::Directory,
        }
    }

    pub(crate) fn names(&self) -> NamesOptions {
        match (&self.database, &self.names) {
            (Some(database), _) => postgres(&database.url()),
            (None, Some(_)) => NamesOptions::File(self.file()),
            (None, None) => NamesOptions::Directory,
        }
    }

    /// Checks a store that is closed.
    pub(crate) fn check(&self, repair: bool) -> Report {
        fsck(
            &FsckOptions {
                bytes: self.bytes(),
                rehash: true,
                root: self.path().to_owned(),
                names: self.names(),
                repair,
            },
            &|_| {},
        )
        .unwrap()
    }

    /// Fails the test unless a store that is closed is clean.
    pub(crate) fn assert_clean(&self) {
        let report = self.check(false);
        assert!(report.findings.is_empty() && report.unnamed == 0, "{:#?}", report.findings);
    }

    /// Does something to the database that no store would do; the rows, columns separated by `|`.
    pub(crate) fn sql(&self, sql: &str) -> Vec<String> {
        if let Some(database) = &self.database {
            return database.execute(sql).lines().map(str::to_owned).collect();
        }
        let names = rusqlite::Connection::open(self.file()).unwrap();
        let mut statement = names.prepare(sql).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.raw_query();
        let mut lines = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<String> = (0..columns)
                .map(|n| match row.get_ref(n).unwrap() {
                    ValueRef::Null => String::new(),
                    ValueRef::Integer(number) => number.to_string(),
                    value => value.as_str().unwrap().to_owned(),
                })
                .collect();
            lines.push(values.join("|"));
        }
        lines
    }

    /// How many entries the collector's queue has.
    pub(crate) fn queued(&self) -> u64 {
        self.sql("SELECT count(*) FROM review")[0].parse().unwrap()
    }
}

/// A bucket of a service of the test kit, with small parts.
pub(crate) fn bucket_options(server: &Server, bucket: &str) -> BucketOptions {
    BucketOptions {
        prefix: "hub/one".to_owned(),
        endpoint: Some(server.endpoint()),
        region: Some(s3::REGION.to_owned()),
        path_style: true,
        credentials: Credentials::Key { id: s3::ACCESS_KEY.to_owned(), secret: s3::SECRET_KEY.to_owned() },
        part_size: 5 << 20,
        timeout: Duration::from_secs(2),
        retries: 3,
        retry_for: Duration::from_secs(3),
        scratch: 64 << 20,
        ..BucketOptions::new(bucket)
    }
}

/// The same below some keys of a service that others wrote, which may take its time.
fn service_options(service: &Service, prefix: &str) -> BucketOptions {
    BucketOptions {
        prefix: prefix.to_owned(),
        endpoint: Some(service.endpoint().to_owned()),
        region: Some(service.region().to_owned()),
        path_style: true,
        credentials: Credentials::Key {
            id: service.access_key().to_owned(),
            secret: service.secret_key().to_owned(),
        },
        part_size: 5 << 20,
        scratch: 64 << 20,
        ..BucketOptions::new(service::BUCKET)
    }
}

/// The bytes of the files of blobs.
fn on_disk(root: &Path) -> u64 {
    let mut sum = 0;
    let mut left = vec![root.join("blobs")];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => left.push(entry.path()),
                false => sum += entry.metadata().unwrap().len(),
            }
        }
    }
    sum
}

/// How many entries the collector's queue has.
pub(crate) fn queued(root: &Path) -> u64 {
    let names = rusqlite::Connection::open(root.join("names.db")).unwrap();
    names.query_row("SELECT count(*) FROM review", [], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs()
}

/// Names in the PostgreSQL at `url`.
pub(crate) fn postgres(url: &str) -> NamesOptions {
    NamesOptions::Postgres(PostgresOptions { url: url.to_owned(), password: None, tls: None, connections: 8 })
}

/// With names in the directory.
pub(crate) fn options(root: &Path) -> Options {
    Options {
        root: root.to_owned(),
        bytes: deltaport_store::ByteStore::Directory,
        keep_free: 0,
        manifest_cache: 1 << 20,
        grace: Duration::from_secs(3600),
        upload_expiry: Duration::from_secs(3600),
        partial_expiry: Duration::from_secs(3600),
        names: NamesOptions::Directory,
        faults: Faults::none(),
    }
}

/// Makes the tables those of before bytes could be in a bucket.
pub(crate) const WITHOUT_BUCKETS: &str = "DROP TABLE doomed; DROP TABLE upload_part; DROP INDEX blob_by_place;
    ALTER TABLE blob DROP COLUMN place; ALTER TABLE upload DROP COLUMN holder; ALTER TABLE upload DROP COLUMN until;
    ALTER TABLE upload DROP COLUMN spare; ALTER TABLE upload DROP COLUMN part_size;
    ALTER TABLE upload DROP COLUMN object; ALTER TABLE upload DROP COLUMN multipart;
    ALTER TABLE upload DROP COLUMN rest; ALTER TABLE upload DROP COLUMN tail;
    ALTER TABLE upload DROP COLUMN doubtful;";

pub(crate) async fn open(root: &Path) -> Store {
    Store::open(options(root)).await.unwrap()
}

pub(crate) fn repository(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

pub(crate) fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

/// Bytes that no compression and no other seed shares.
pub(crate) fn noise(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// Stages and commits `bytes`.
pub(crate) async fn push_blob(store: &Store, repository: &RepositoryName, bytes: Bytes) -> Result<Digest> {
    let digest = Digest::sha256(&bytes);
    let mut staging = store.blobs().stage(Algorithm::Sha256).await?;
    staging.write(bytes).await?;
    store.commit(staging, &digest, repository).await?;
    Ok(digest)
}

/// An image manifest over blobs; all of them are required.
pub(crate) fn image(config: &Digest, layers: &[Digest], tags: &[&str]) -> NewManifest {
    let descriptor = |kind: &str, digest: &Digest| {
        format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":1}}"#)
    };
    let list: Vec<String> = layers.iter().map(|layer| descriptor("layer.v1.tar+gzip", layer)).collect();
    let json = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
        media_type::OCI_MANIFEST,
        descriptor("config.v1+json", config),
        list.join(",")
    );
    let mut manifest = new_manifest(media_type::OCI_MANIFEST, &json, tags);
    manifest.required = manifest.view.blobs().map(|blob| blob.digest).collect();
    manifest
}

/// A manifest of any kind; nothing is required.
pub(crate) fn new_manifest(media_type: &str, json: &str, tags: &[&str]) -> NewManifest {
    let bytes = Bytes::copy_from_slice(json.as_bytes());
    NewManifest {
        digest: Digest::sha256(&bytes),
        view: manifest::View::parse(media_type, &bytes, manifest::Limits::DEFAULT).unwrap(),
        bytes,
        tags: tags.iter().map(|name| tag(name)).collect(),
        required: Vec::new(),
    }
}

pub(crate) async fn read_all(blob: &Blob) -> Vec<u8> {
    if blob.size() == 0 {
        return Vec::new();
    }
    read_range(blob, 0, blob.size()).await.unwrap()
}

pub(crate) async fn read_range(blob: &Blob, start: u64, end: u64) -> std::io::Result<Vec<u8>> {
    let chunks: Vec<Bytes> = blob.read(ByteRange { start, end }).try_collect().await?;
    Ok(chunks.concat())
}

/// The bytes of a blob that a repository holds.
pub(crate) async fn pull_blob(
    store: &Store,
    repository: &RepositoryName,
    digest: &Digest,
) -> Option<Vec<u8>> {
    let size = store.names().blob(repository, digest).await.unwrap()?;
    let blob = store.blobs().open(digest).await.unwrap().expect("a linked blob has its bytes");
    assert_eq!(blob.size(), size);
    Some(read_all(&blob).await)
}

/// Checks a store that is closed, and fails the test unless it is clean.
pub(crate) fn assert_clean(root: &Path) {
    let report = check(root, false);
    assert!(report.findings.is_empty() && report.unnamed == 0, "{:#?}", report.findings);
}

pub(crate) fn check(root: &Path, repair: bool) -> Report {
    fsck(
        &FsckOptions {
            bytes: deltaport_store::ByteStore::Directory,
            rehash: false,
            root: root.to_owned(),
            names: NamesOptions::Directory,
            repair,
        },
        &|_| {},
    )
    .unwrap()
}

/// Everything that names say, in words, without times and row numbers.
pub(crate) fn state(root: &Path) -> Vec<String> {
    state_of(&root.join("names.db"))
}

fn state_of(file: &Path) -> Vec<String> {
    let names = rusqlite::Connection::open(file).unwrap();
    let mut lines = Vec::new();
    for sql in [
        "SELECT 'repository ' || name FROM repository ORDER BY 1",
        "SELECT 'blob ' || digest || ' ' || size FROM blob ORDER BY 1",
        "SELECT 'link ' || name || ' ' || digest FROM repository_blob JOIN repository ON id = repository ORDER BY 1",
        "SELECT 'manifest ' || name || ' ' || digest || ' ' || media_type || ' ' || coalesce(artifact_type, '-') || ' '
             || coalesce(subject, '-') || ' ' || coalesce(annotations, '-') || ' ' || size || ' ' || hex(bytes)
         FROM manifest JOIN repository ON repository.id = repository ORDER BY 1",
        "SELECT 'reference ' || name || ' ' || m.digest || ' ' || position || ' ' || kind || ' ' || r.digest || ' '
             || r.media_type || ' ' || r.size || ' ' || coalesce(platform, '-') || ' ' || present
         FROM reference AS r JOIN manifest AS m ON m.id = r.manifest
         JOIN repository ON repository.id = r.repository ORDER BY 1",
        "SELECT 'tag ' || repository.name || ' ' || tag.name || ' ' || digest
         FROM tag JOIN repository ON id = repository ORDER BY 1",
        "SELECT 'past ' || name || ' ' || tag || ' ' || digest
         FROM tag_past JOIN repository ON id = repository ORDER BY name, tag, until",
        "SELECT 'delta ' || name || ' ' || base || ' ' || target || ' ' || coalesce(digest, '-')
         FROM layer_delta JOIN repository ON id = repository ORDER BY 1",
    ] {
        let mut statement = names.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        lines.extend(rows.map(std::result::Result::unwrap));
    }
    lines
}
