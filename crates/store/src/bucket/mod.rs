//! Bytes in a bucket of an S3 service.
//!
//! Each object has a name of its own, 128 random bits ([`Place`]), gets its bytes once and is never written to again. The
//! database says which object holds which digest; nothing here knows that. What an object is named is written down in
//! the database before its first byte goes up ([`crate::names::doomed`]), so that none is forgotten, whoever dies.

pub(crate) mod check;
mod credentials;
mod fault;
mod options;
pub(crate) mod read;
pub(crate) mod scratch;
pub(crate) mod send;

use std::fmt;
use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use lru::LruCache;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path as Key;
use object_store::signer::Signer as _;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, GetOptions, GetRange, ObjectStore as _, ObjectStoreExt as _,
    PutPayload, RetryConfig,
};
use tokio::sync::Semaphore;

use crate::blobs::object::Remembered;
use crate::disk;
use crate::error::{Error, Result};
use crate::layout::is_upload_id;
use crate::names::sql::{Column, Parameter, Row, Value, unreadable};

pub(crate) use fault::Fault;
pub use options::{BucketOptions, Credentials};
use scratch::Copies;

/// Under the prefix: where the objects of blobs and uploads are.
const OBJECTS: &str = "objects";
/// How slow a service may take a part before the request is given up, in bytes per second.
const SLOWEST: u64 = 256 << 10;
/// Of how many ends of chunks the local files are kept; each is shorter than a part.
const ENDS: NonZeroUsize = NonZeroUsize::new(16).expect("16 is not zero");
/// The longest wait between two attempts of a request.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// The name of an object: 32 hexadecimal characters, drawn once and used once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place(String);

impl Place {
    /// A name that nobody has had.
    pub(crate) fn draw() -> Result<Self> {
        Ok(Self(disk::random_name()?))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is not the name of an object.
#[derive(Debug, thiserror::Error)]
#[error("not the name of an object")]
pub(crate) struct NotAPlace;

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        if is_upload_id(text) { Ok(Self(text.to_owned())) } else { Err(NotAPlace) }
    }
}

impl Parameter for Place {
    fn value(&self) -> Value<'_> {
        self.0.value()
    }
}

impl Column for Place {
    fn read(row: &Row<'_>, index: usize) -> Result<Self> {
        String::read(row, index)?.parse().map_err(|error| unreadable(index, error))
    }
}

/// What is known of an object whose upload in parts was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completed {
    /// The service has put together just the parts that it was told.
    Surely,
    /// The object is there and has the size, but the answer was lost: somebody else may have completed it, with parts of
    /// his own. What is in it has to be read.
    Perhaps,
}

/// An object of a list.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// Its name; `None` when it is none that we give.
    pub(crate) place: Option<Place>,
    /// Its whole key, for people.
    pub(crate) key: String,
    pub(crate) size: u64,
    /// When the service says that it was made or begun, in milliseconds since 1970.
    pub(crate) modified: i64,
}

/// A bucket that is in use.
pub(crate) struct Bucket {
    /// For requests that are answered soon, and bodies that may take as long as they like but do not stand still.
    reading: AmazonS3,
    /// For requests with a part as their body.
    writing: AmazonS3,
    objects: Key,
    pub(crate) options: BucketOptions,
    /// One permit for each byte of the parts that are in memory while they are sent.
    pub(crate) memory: Arc<Semaphore>,
    /// Local copies of objects.
    pub(crate) copies: Copies,
    /// Which objects blobs are.
    pub(crate) remembered: Remembered,
    /// The local files of ends of chunks that were sent lately, so that whoever goes on here need not fetch them.
    pub(crate) ends: Mutex<LruCache<Place, Arc<File>>>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("bucket", &self.options.bucket).finish_non_exhaustive()
    }
}

impl Bucket {
    /// Prepares to speak to a bucket; sends nothing. Fails with [`Error::Unusable`] when the options make no sense.
    pub(crate) fn new(options: BucketOptions) -> Result<Self> {
        options.check()?;
        let reading = client(&options, options.timeout, |built| built.with_read_timeout(options.timeout))?;
        let patience = options.timeout + Duration::from_secs(options.part_size / SLOWEST);
        let credentials = Arc::clone(reading.credentials());
        let writing = builder(&options, options.timeout, |built| built.with_timeout(patience))?
            .with_credentials(credentials)
            .build()
            .map_err(|error| unusable(&options, &error))?;
        let prefix = options.prefix.trim_matches('/');
        let objects = if prefix.is_empty() { OBJECTS.to_owned() } else { format!("{prefix}/{OBJECTS}") };
        let objects = Key::parse(objects).map_err(|error| unusable(&options, &error))?;
        let memory = usize::try_from(options.memory).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let ends = Mutex::new(LruCache::new(ENDS));
        let (memory, copies) = (Arc::new(Semaphore::new(memory)), Copies::new(options.scratch));
        Ok(Self { reading, writing, objects, options, memory, copies, remembered: Remembered::new(), ends })
    }

    fn key(&self, place: &Place) -> Key {
        self.objects.clone().join(place.as_str())
    }

    /// Makes an object. Repeated after a lost answer it does no harm: nobody else ever has the name.
    pub(crate) async fn put(&self, place: &Place, bytes: Bytes) -> Result<(), Fault> {
        self.writing.put(&self.key(place), PutPayload::from_bytes(bytes)).await?;
        Ok(())
    }

    /// Begins an object that is sent in parts, and returns the service's name for that.
    pub(crate) async fn create_multipart(&self, place: &Place) -> Result<String, Fault> {
        Ok(self.writing.create_multipart(&self.key(place)).await?)
    }

    /// Sends a part, counted from 0, and returns the tag that completing needs.
    pub(crate) async fn put_part(
        &self,
        place: &Place,
        multipart: &str,
        index: usize,
        bytes: Bytes,
    ) -> Result<String, Fault> {
        let payload = PutPayload::from_bytes(bytes);
        let (key, multipart) = (self.key(place), multipart.to_owned());
        Ok(self.writing.put_part(&key, &multipart, index, payload).await?.content_id)
    }

    /// Puts the parts together to an object of `size` bytes. Fails with [`Fault::Gone`] when the service knows neither the
    /// parts nor such an object.
    pub(crate) async fn complete(
        &self,
        place: &Place,
        multipart: &str,
        tags: Vec<String>,
        size: u64,
    ) -> Result<Completed, Fault> {
        let parts = tags.into_iter().map(|content_id| PartId { content_id }).collect();
        match self.writing.complete_multipart(&self.key(place), &multipart.to_owned(), parts).await {
            Ok(_) => Ok(Completed::Surely),
            Err(error) => match Fault::from(error) {
                // It was done before, and its answer was lost.
                Fault::Gone => self.completed_before(place, size).await,
                fault => Err(fault),
            },
        }
    }

    /// Whether parts that the service does not know any more have become an object of `size` bytes.
    pub(crate) async fn completed_before(&self, place: &Place, size: u64) -> Result<Completed, Fault> {
        match self.size(place).await? {
            Some(found) if found == size => Ok(Completed::Perhaps),
            _ => Err(Fault::Gone),
        }
    }

    /// Forgets parts; it is no error that there are none.
    pub(crate) async fn abort(&self, place: &Place, multipart: &str) -> Result<(), Fault> {
        match self.reading.abort_multipart(&self.key(place), &multipart.to_owned()).await.map_err(Fault::from)
        {
            Ok(()) | Err(Fault::Gone) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Removes an object; it is no error that it is not there.
    pub(crate) async fn delete(&self, place: &Place) -> Result<(), Fault> {
        match self.reading.delete(&self.key(place)).await.map_err(Fault::from) {
            Ok(()) | Err(Fault::Gone) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// The size of an object in bytes, if it is there.
    pub(crate) async fn size(&self, place: &Place) -> Result<Option<u64>, Fault> {
        match self.reading.head(&self.key(place)).await.map_err(Fault::from) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Fault::Gone) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Begins to read part of an object; also says how large the whole is. One request, of which the answer has begun.
    pub(crate) async fn get(
        &self,
        place: &Place,
        range: Range<u64>,
    ) -> Result<(u64, BoxStream<'static, object_store::Result<Bytes>>), Fault> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let result = self.reading.get_opts(&self.key(place), options).await?;
        Ok((result.meta.size, result.into_stream()))
    }

    /// All of a small object.
    pub(crate) async fn get_all(&self, place: &Place, size: u64) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        let (found, mut body) = self.get(place, 0..size).await?;
        while let Some(chunk) = body.try_next().await? {
            bytes.extend_from_slice(&chunk);
        }
        if found != size || bytes.len() as u64 != size {
            return Err(Fault::Wrong(format!("the object {place} has {found} bytes and not {size}")));
        }
        Ok(bytes)
    }

    /// Keeps the local file of what was sent to an object, its first bytes, for a while.
    pub(crate) fn keep_end(&self, place: &Place, file: &Arc<File>) {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).put(place.clone(), Arc::clone(file));
    }

    /// The local file of what was sent to an object, if it is kept, and not any longer.
    pub(crate) fn take_end(&self, place: &Place) -> Option<Arc<File>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).pop(place)
    }

    /// Every object in the order of names.
    pub(crate) fn list(&self) -> BoxStream<'_, Result<Listed, Fault>> {
        self.reading
            .list(Some(&self.objects))
            .map(|found| {
                let found = found?;
                let place = found.location.filename().and_then(|name| name.parse().ok());
                Ok(Listed {
                    place: place.filter(|place| self.key(place) == found.location),
                    key: found.location.to_string(),
                    size: found.size,
                    modified: found.last_modified.timestamp_millis(),
                })
            })
            .boxed()
    }

    /// An address at which anybody may read an object for `life`.
    pub(crate) async fn presign(&self, place: &Place, life: Duration) -> Result<String, Fault> {
        let url = self.reading.signed_url(http::Method::GET, &self.key(place), life).await?;
        Ok(url.to_string())
    }
}

fn client(
    options: &BucketOptions,
    timeout: Duration,
    limit: impl FnOnce(ClientOptions) -> ClientOptions,
) -> Result<AmazonS3> {
    builder(options, timeout, limit)?.build().map_err(|error| unusable(options, &error))
}

fn builder(
    options: &BucketOptions,
    timeout: Duration,
    limit: impl FnOnce(ClientOptions) -> ClientOptions,
) -> Result<AmazonS3Builder> {
    let mut http = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(options.connect_timeout.min(timeout))
        .with_allow_http(options.is_plain());
    if let Some(pem) = &options.ca {
        let certificates = Certificate::from_pem_bundle(pem).map_err(|error| unusable(options, &error))?;
        http = certificates.into_iter().fold(http, ClientOptions::with_root_certificate);
    }
    let retry = RetryConfig {
        backoff: BackoffConfig { max_backoff: LONGEST_BACKOFF, ..BackoffConfig::default() },
        max_retries: options.retries,
        retry_timeout: options.retry_for,
    };
    let mut builder = credentials::apply(&options.credentials)?
        .with_bucket_name(&options.bucket)
        .with_virtual_hosted_style_request(!options.path_style)
        .with_client_options(limit(http))
        // Not every service takes many names in one request.
        .with_disable_bulk_delete(true)
        .with_retry(retry);
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = options.endpoint_for_requests() {
        builder = builder.with_endpoint(endpoint);
    }
    Ok(builder)
}

fn unusable(options: &BucketOptions, error: &dyn fmt::Display) -> Error {
    Error::Unusable(format!("the bucket {}: {error}", options.bucket))
}
