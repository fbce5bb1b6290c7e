//! Where bytes are: settings become what the store is told, and are tried out.

use anyhow::{Context as _, anyhow};
use deltaport_store::{BucketOptions, ByteStore, Credentials};

use crate::settings::Settings;
use crate::wiring::read;

/// Where the bytes of blobs are.
pub(crate) fn bytes(settings: &Settings) -> anyhow::Result<ByteStore> {
    Ok(match bucket(settings)? {
        Some(bucket) => ByteStore::Bucket(Box::new(bucket)),
        None => ByteStore::Directory,
    })
}

fn bucket(settings: &Settings) -> anyhow::Result<Option<BucketOptions>> {
    let storage = &settings.storage;
    let Some(address) = &storage.blobs else { return Ok(None) };
    let s3 = &storage.s3;
    let credentials = match &s3.credentials_file {
        Some(path) => Credentials::File { path: path.clone(), profile: s3.profile.clone() },
        None => Credentials::Environment,
    };
    Ok(Some(BucketOptions {
        prefix: address.prefix.clone(),
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        path_style: s3.is_path_style(),
        credentials,
        ca: s3.ca.as_deref().map(read).transpose()?.map(String::into_bytes),
        part_size: s3.part_size.0,
        memory: s3.memory.0,
        scratch: storage.scratch.0,
        ..BucketOptions::new(&address.bucket)
    }))
}

/// What is wrong with the files that [storage] names.
pub(crate) fn files_that_cannot_be_used(settings: &Settings) -> Vec<anyhow::Error> {
    let credentials = settings.storage.s3.credentials_file.as_deref().map(read).and_then(Result::err);
    [bucket(settings).err(), credentials].into_iter().flatten().collect()
}

/// What is wrong with the bucket, as far as trying them out tells. Takes as long as it takes to answer.
pub(crate) fn that_cannot_be_used(settings: &Settings) -> Vec<anyhow::Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = match runtime.context("cannot start threads") {
        Ok(runtime) => runtime,
        Err(error) => return vec![error],
    };
    let mut errors = Vec::new();
    if let Ok(Some(bucket)) = bucket(settings) {
        let tried = runtime.block_on(deltaport_store::check_bucket(&bucket));
        errors.extend(tried.err().map(|error| anyhow!(error).context("storage.blobs")));
    }
    errors
}
