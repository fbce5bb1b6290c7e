//! Buckets in memory: objects, uploads in parts, conditions, lists.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt as _};
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use super::front::lock;

/// The smallest part that is not the last one, as S3 has it.
const MIN_PART: u64 = 5 << 20;
/// The most entries of a list, likewise.
const PAGE: usize = 1000;
/// How much of an object goes out at once, in bytes.
const CHUNK: usize = 64 << 10;

/// Every bucket. Clones are the same buckets.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    buckets: BTreeMap<String, Bucket>,
    /// Makes names of uploads and entity tags.
    count: u64,
    page: usize,
    min_part: u64,
}

impl Default for State {
    fn default() -> Self {
        Self { buckets: BTreeMap::new(), count: 0, page: PAGE, min_part: MIN_PART }
    }
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, Stored>,
    /// By their names, which say the order in which they began.
    uploads: BTreeMap<String, Upload>,
}

#[derive(Clone, Debug)]
struct Stored {
    bytes: Bytes,
    tag: String,
    written: SystemTime,
}

#[derive(Debug)]
struct Upload {
    key: String,
    begun: SystemTime,
    parts: BTreeMap<i32, Stored>,
}

impl State {
    fn bucket(&mut self, name: &str) -> S3Result<&mut Bucket> {
        self.buckets
            .get_mut(name)
            .ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    fn number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn store(&mut self, bytes: Bytes, parts: Option<usize>) -> Stored {
        let suffix = parts.map_or_else(String::new, |parts| format!("-{parts}"));
        let tag = format!("{:032x}{suffix}", self.number());
        Stored { bytes, tag, written: SystemTime::now() }
    }
}

impl Bucket {
    fn object(&self, key: &str) -> S3Result<&Stored> {
        self.objects.get(key).ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))
    }

    fn upload(&mut self, id: &str, key: &str) -> S3Result<&mut Upload> {
        let upload = self.uploads.get_mut(id).filter(|upload| upload.key == key);
        upload.ok_or_else(|| s3_error!(NoSuchUpload, "The specified multipart upload does not exist."))
    }

    /// Whether an object may be written: the conditions of `PutObject` and `CompleteMultipartUpload`.
    fn permits(
        &self,
        key: &str,
        if_match: Option<&ETagCondition>,
        if_none_match: Option<&ETagCondition>,
    ) -> S3Result<()> {
        let there = self.objects.get(key);
        let failed =
            || s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold");
        if let Some(condition) = if_none_match {
            if !condition.is_any() {
                return Err(s3_error!(NotImplemented, "only If-None-Match: * is known when writing"));
            }
            if there.is_some() {
                return Err(failed());
            }
        }
        if let Some(condition) = if_match {
            let Some(there) = there else { return Err(s3_error!(NoSuchKey)) };
            if condition.as_etag().is_none_or(|tag| tag.value() != there.tag) {
                return Err(failed());
            }
        }
        Ok(())
    }
}

impl Memory {
    pub(super) fn make_bucket(&self, name: &str) {
        lock(&self.0).buckets.entry(name.to_owned()).or_default();
    }

    pub(super) fn objects(&self, bucket: &str) -> Vec<(String, u64)> {
        let state = lock(&self.0);
        let objects = state.buckets.get(bucket).into_iter().flat_map(|bucket| &bucket.objects);
        objects.map(|(key, stored)| (key.clone(), stored.bytes.len() as u64)).collect()
    }

    pub(super) fn bytes(&self, bucket: &str, key: &str) -> Option<Bytes> {
        let state = lock(&self.0);
        Some(state.buckets.get(bucket)?.objects.get(key)?.bytes.clone())
    }

    pub(super) fn unfinished(&self, bucket: &str) -> usize {
        lock(&self.0).buckets.get(bucket).map_or(0, |bucket| bucket.uploads.len())
    }

    pub(super) fn lose(&self, bucket: &str, key: &str) -> bool {
        lock(&self.0).buckets.get_mut(bucket).and_then(|bucket| bucket.objects.remove(key)).is_some()
    }

    pub(super) fn rot(&self, bucket: &str, key: &str) -> bool {
        let mut state = lock(&self.0);
        let stored = state.buckets.get_mut(bucket).and_then(|bucket| bucket.objects.get_mut(key));
        let Some(stored) = stored.filter(|stored| !stored.bytes.is_empty()) else { return false };
        let mut bytes = BytesMut::from(&stored.bytes[..]);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        stored.bytes = bytes.freeze();
        true
    }

    pub(super) fn age(&self, by: Duration) {
        for bucket in lock(&self.0).buckets.values_mut() {
            bucket.objects.values_mut().for_each(|stored| stored.written -= by);
            bucket.uploads.values_mut().for_each(|upload| upload.begun -= by);
        }
    }

    pub(super) fn set_page(&self, entries: usize) {
        lock(&self.0).page = entries;
    }

    pub(super) fn take_small_parts(&self) {
        lock(&self.0).min_part = 0;
    }
}

/// All of a body, which must have the length that was announced and the checksum that came with it.
async fn collect(body: Option<StreamingBlob>, length: Option<i64>, sha256: Option<&str>) -> S3Result<Bytes> {
    let mut bytes = BytesMut::new();
    let mut body = body.ok_or_else(|| s3_error!(IncompleteBody))?;
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk.map_err(|error| s3_error!(IncompleteBody, "{error}"))?);
    }
    if length.is_some_and(|length| length != bytes.len() as i64) {
        return Err(s3_error!(IncompleteBody, "the body has {} bytes", bytes.len()));
    }
    if let Some(sha256) = sha256 {
        let is = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
        if base64::engine::general_purpose::STANDARD.encode(is) != sha256 {
            return Err(s3_error!(BadDigest, "the checksum is another"));
        }
    }
    Ok(bytes.freeze())
}

fn tag(stored: &Stored) -> ETag {
    ETag::Strong(stored.tag.clone())
}

fn length(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

#[async_trait::async_trait]
impl S3 for Memory {
    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        lock(&self.0).bucket(&request.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput {
            bucket_region: Some(super::REGION.to_owned()),
            ..HeadBucketOutput::default()
        }))
    }

    async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        self.make_bucket(&request.input.bucket);
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        let bytes = collect(input.body, input.content_length, input.checksum_sha256.as_deref()).await?;
        let mut state = lock(&self.0);
        let stored = state.store(bytes, None);
        let bucket = state.bucket(&input.bucket)?;
        bucket.permits(&input.key, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let output = PutObjectOutput { e_tag: Some(tag(&stored)), ..PutObjectOutput::default() };
        bucket.objects.insert(input.key, stored);
        Ok(S3Response::new(output))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let stored = lock(&self.0).bucket(&input.bucket)?.object(&input.key)?.clone();
        let holds = |condition: &ETagCondition| {
            condition.is_any() || condition.as_etag().is_some_and(|tag| tag.value() == stored.tag)
        };
        if input.if_match.as_ref().is_some_and(|condition| !holds(condition)) {
            return Err(s3_error!(PreconditionFailed));
        }
        if input.if_none_match.as_ref().is_some_and(holds) {
            return Err(s3_error!(NotModified));
        }
        let whole = stored.bytes.len();
        let (bytes, range) = match input.range {
            None => (stored.bytes.clone(), None),
            Some(range) => {
                let range = range.check(whole as u64).map_err(|_| s3_error!(InvalidRange))?;
                let content_range = format!("bytes {}-{}/{whole}", range.start, range.end - 1);
                let in_memory = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                (stored.bytes.slice(in_memory(range.start)..in_memory(range.end)), Some(content_range))
            }
        };
        let content_length = length(&bytes);
        let chunks = stream::unfold(bytes, |mut rest| async move {
            let chunk = rest.split_to(rest.len().min(CHUNK));
            (!chunk.is_empty()).then(|| (Ok::<_, std::io::Error>(chunk), rest))
        });
        Ok(S3Response::new(GetObjectOutput {
            body: Some(StreamingBlob::wrap(chunks)),
            content_length: Some(content_length),
            content_range: range,
            accept_ranges: Some("bytes".to_owned()),
            e_tag: Some(tag(&stored)),
            last_modified: Some(stored.written.into()),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let stored = lock(&self.0).bucket(&input.bucket)?.object(&input.key)?.clone();
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(length(&stored.bytes)),
            e_tag: Some(tag(&stored)),
            last_modified: Some(stored.written.into()),
            ..HeadObjectOutput::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        lock(&self.0).bucket(&request.input.bucket)?.objects.remove(&request.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let mut state = lock(&self.0);
        let bucket = state.bucket(&request.input.bucket)?;
        let keys = request.input.delete.objects.into_iter().map(|object| object.key);
        let deleted = keys
            .map(|key| {
                bucket.objects.remove(&key);
                DeletedObject { key: Some(key), ..DeletedObject::default() }
            })
            .collect();
        Ok(S3Response::new(DeleteObjectsOutput { deleted: Some(deleted), ..DeleteObjectsOutput::default() }))
    }

    async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = request.input;
        let CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
            return Err(s3_error!(NotImplemented));
        };
        let mut state = lock(&self.0);
        let bytes = state.bucket(bucket)?.object(key)?.bytes.clone();
        let stored = state.store(bytes, None);
        let result = CopyObjectResult {
            e_tag: Some(tag(&stored)),
            last_modified: Some(stored.written.into()),
            ..CopyObjectResult::default()
        };
        state.bucket(&input.bucket)?.objects.insert(input.key, stored);
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(result),
            ..CopyObjectOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let mut state = lock(&self.0);
        let most = input.max_keys.and_then(|most| usize::try_from(most).ok()).unwrap_or(PAGE).min(state.page);
        let bucket = state.bucket(&input.bucket)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after =
            input.continuation_token.clone().or_else(|| input.start_after.clone()).unwrap_or_default();
        let (mut contents, mut prefixes, mut last) = (Vec::new(), Vec::new(), None);
        let mut more = false;
        for (key, stored) in bucket.objects.range(after.clone()..) {
            let Some(rest) = key.strip_prefix(&prefix) else { continue };
            let group =
                input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty()).and_then(|delimiter| {
                    rest.find(delimiter).map(|at| format!("{prefix}{}", &rest[..at + delimiter.len()]))
                });
            // A whole group comes once, on whatever page its first key is.
            let entry = group.clone().unwrap_or_else(|| key.clone());
            if entry <= after || last.as_ref() == Some(&entry) {
                continue;
            }
            if contents.len() + prefixes.len() == most {
                more = true;
                break;
            }
            last = Some(entry);
            match group {
                Some(group) => prefixes.push(CommonPrefix { prefix: Some(group) }),
                None => contents.push(Object {
                    key: Some(key.clone()),
                    size: Some(length(&stored.bytes)),
                    e_tag: Some(tag(stored)),
                    last_modified: Some(stored.written.into()),
                    ..Object::default()
                }),
            }
        }
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: i32::try_from(contents.len() + prefixes.len()).ok(),
            max_keys: i32::try_from(most).ok(),
            is_truncated: Some(more),
            next_continuation_token: last.filter(|_| more),
            contents: Some(contents),
            common_prefixes: Some(prefixes),
            continuation_token: input.continuation_token,
            delimiter: input.delimiter,
            encoding_type: input.encoding_type,
            name: Some(input.bucket),
            prefix: input.prefix,
            start_after: input.start_after,
            ..ListObjectsV2Output::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        let mut state = lock(&self.0);
        let id = format!("upload-{:016x}", state.number());
        let upload = Upload { key: input.key.clone(), begun: SystemTime::now(), parts: BTreeMap::new() };
        state.bucket(&input.bucket)?.uploads.insert(id.clone(), upload);
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let bytes = collect(input.body, input.content_length, input.checksum_sha256.as_deref()).await?;
        if !(1..=10_000).contains(&input.part_number) {
            return Err(s3_error!(
                InvalidArgument,
                "Part number must be an integer between 1 and 10000, inclusive"
            ));
        }
        let mut state = lock(&self.0);
        let stored = state.store(bytes, None);
        let output = UploadPartOutput { e_tag: Some(tag(&stored)), ..UploadPartOutput::default() };
        let upload = state.bucket(&input.bucket)?.upload(&input.upload_id, &input.key)?;
        upload.parts.insert(input.part_number, stored);
        Ok(S3Response::new(output))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let listed = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let mut state = lock(&self.0);
        let least = state.min_part;
        let bucket = state.bucket(&input.bucket)?;
        let upload = bucket.upload(&input.upload_id, &input.key)?;
        let mut bytes = BytesMut::new();
        let mut before = 0;
        for (at, part) in listed.iter().enumerate() {
            let number = part.part_number.unwrap_or_default();
            if number <= before {
                return Err(s3_error!(InvalidPartOrder));
            }
            before = number;
            let stored = upload.parts.get(&number);
            let stored =
                stored.filter(|stored| part.e_tag.as_ref().is_some_and(|tag| tag.value() == stored.tag));
            let stored = stored.ok_or_else(|| s3_error!(InvalidPart, "part {number} is not there"))?;
            if at + 1 < listed.len() && (stored.bytes.len() as u64) < least {
                return Err(s3_error!(EntityTooSmall));
            }
            bytes.extend_from_slice(&stored.bytes);
        }
        if listed.is_empty() {
            return Err(s3_error!(MalformedXML, "an object has at least one part"));
        }
        bucket.permits(&input.key, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        bucket.uploads.remove(&input.upload_id);
        let stored = state.store(bytes.freeze(), Some(listed.len()));
        let output = CompleteMultipartUploadOutput {
            e_tag: Some(tag(&stored)),
            bucket: Some(input.bucket.clone()),
            key: Some(input.key.clone()),
            ..CompleteMultipartUploadOutput::default()
        };
        state.bucket(&input.bucket)?.objects.insert(input.key, stored);
        Ok(S3Response::new(output))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        let mut state = lock(&self.0);
        let bucket = state.bucket(&input.bucket)?;
        bucket.upload(&input.upload_id, &input.key)?;
        bucket.uploads.remove(&input.upload_id);
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        let mut state = lock(&self.0);
        let most = state.page;
        let upload = state.bucket(&input.bucket)?.upload(&input.upload_id, &input.key)?;
        let after = input.part_number_marker.unwrap_or_default();
        let rest: Vec<_> = upload.parts.range(after + 1..).collect();
        let parts: Vec<_> = rest
            .iter()
            .take(most)
            .map(|(number, stored)| Part {
                part_number: Some(**number),
                size: Some(length(&stored.bytes)),
                e_tag: Some(tag(stored)),
                last_modified: Some(stored.written.into()),
                ..Part::default()
            })
            .collect();
        Ok(S3Response::new(ListPartsOutput {
            is_truncated: Some(rest.len() > parts.len()),
            next_part_number_marker: parts.last().and_then(|part| part.part_number),
            parts: Some(parts),
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            ..ListPartsOutput::default()
        }))
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        let mut state = lock(&self.0);
        let most = state.page;
        let bucket = state.bucket(&input.bucket)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = (
            input.key_marker.clone().unwrap_or_default(),
            input.upload_id_marker.clone().unwrap_or_default(),
        );
        let mut all: Vec<_> =
            bucket.uploads.iter().map(|(id, upload)| (&upload.key, id, upload.begun)).collect();
        all.retain(|(key, id, _)| key.starts_with(&prefix) && (*key, *id) > (&after.0, &after.1));
        all.sort();
        let more = all.len() > most;
        all.truncate(most);
        let last = all.last().filter(|_| more);
        Ok(S3Response::new(ListMultipartUploadsOutput {
            is_truncated: Some(more),
            next_key_marker: last.map(|(key, ..)| (*key).clone()),
            next_upload_id_marker: last.map(|(_, id, _)| (*id).clone()),
            uploads: Some(
                all.iter()
                    .map(|(key, id, begun)| MultipartUpload {
                        key: Some((*key).clone()),
                        upload_id: Some((*id).clone()),
                        initiated: Some((*begun).into()),
                        ..MultipartUpload::default()
                    })
                    .collect(),
            ),
            bucket: Some(input.bucket),
            prefix: input.prefix,
            ..ListMultipartUploadsOutput::default()
        }))
    }
}
