//! Where bytes and names are: settings become what the store is told, and are tried out.

use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use deltaport_server::Redirect;
use deltaport_store::{BucketOptions, ByteStore, Credentials, NamesOptions, PostgresOptions};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_platform_verifier::Verifier;

use crate::settings::{BlobPlace, NamePlace, PostgresTls, Settings};
use crate::wiring::read;

/// The variable with the database's password, as its own programs have it.
const PASSWORD: &str = "PGPASSWORD";

/// Where the bytes of blobs are.
pub(crate) fn bytes(settings: &Settings) -> anyhow::Result<ByteStore> {
    if let Some(BlobPlace::Directory(directory)) = &settings.storage.blobs {
        return Ok(ByteStore::Elsewhere(directory.clone()));
    }
    Ok(match bucket(settings)? {
        Some(bucket) => ByteStore::Bucket(Box::new(bucket)),
        None => ByteStore::Directory,
    })
}

/// Where the names are.
pub(crate) fn names(settings: &Settings) -> anyhow::Result<NamesOptions> {
    if let Some(NamePlace::File(file)) = &settings.storage.metadata {
        return Ok(NamesOptions::File(file.clone()));
    }
    Ok(database(settings)?.map_or(NamesOptions::Directory, NamesOptions::Postgres))
}

fn bucket(settings: &Settings) -> anyhow::Result<Option<BucketOptions>> {
    let storage = &settings.storage;
    let Some(BlobPlace::Bucket(address)) = &storage.blobs else { return Ok(None) };
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

fn database(settings: &Settings) -> anyhow::Result<Option<PostgresOptions>> {
    let Some(NamePlace::Database(address)) = &settings.storage.metadata else { return Ok(None) };
    let postgres = &settings.storage.postgres;
    let password = match &postgres.password_file {
        Some(path) => Some(read(path)?.trim_end_matches(['\r', '\n']).to_owned()),
        None => std::env::var(PASSWORD).ok(),
    };
    let encrypted = match postgres.tls {
        PostgresTls::Auto => !address.is_local(),
        PostgresTls::Verify => true,
        PostgresTls::Off => false,
    };
    // With `tls`, nothing else than TLS is good enough.
    let mode = if encrypted { "require" } else { "disable" };
    Ok(Some(PostgresOptions {
        url: format!("{address}?sslmode={mode}"),
        password,
        tls: encrypted.then(|| tls(settings)).transpose()?,
        connections: usize::try_from(postgres.connections).unwrap_or(usize::MAX),
    }))
}

/// How TLS is spoken with the database: the system's authorities are trusted, and those of `storage.postgres.ca`.
fn tls(settings: &Settings) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut authorities = Vec::new();
    if let Some(path) = &settings.storage.postgres.ca {
        let pem = read(path)?;
        authorities = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| anyhow!("{error}"))
            .with_context(|| format!("cannot use {}", path.display()))?;
        if authorities.is_empty() {
            bail!("there is no certificate in {}", path.display());
        }
    }
    let verifier = Verifier::new_with_extra_roots(authorities, Arc::clone(&provider))
        .context("cannot verify the certificate of the database")?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Who gets blobs from the bucket itself.
pub(crate) fn redirect(settings: &Settings) -> Option<Redirect> {
    let s3 = &settings.storage.s3;
    let redirect = Redirect { networks: s3.redirect.clone(), life: s3.redirect_lifetime.0 };
    let bucket = matches!(settings.storage.blobs, Some(BlobPlace::Bucket(_)));
    (bucket && !redirect.networks.is_empty()).then_some(redirect)
}

/// What is wrong with the files and directories that [storage] names.
pub(crate) fn files_that_cannot_be_used(settings: &Settings) -> Vec<anyhow::Error> {
    let storage = &settings.storage;
    let credentials = storage.s3.credentials_file.as_deref().map(read).and_then(Result::err);
    let directory = match &storage.blobs {
        Some(BlobPlace::Directory(directory)) => deltaport_store::check_directory(directory).err(),
        _ => None,
    };
    let file = match &storage.metadata {
        Some(NamePlace::File(file)) => deltaport_store::check_file(file).err(),
        _ => None,
    };
    let paths = [
        directory.map(|error| anyhow!(error).context("storage.blobs")),
        file.map(|error| anyhow!(error).context("storage.metadata")),
    ];
    let files = [bucket(settings).err(), database(settings).err(), credentials];
    files.into_iter().chain(paths).flatten().collect()
}

/// What is wrong with the bucket and the database, as far as trying them out tells. Takes as long as they take to answer.
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
    if let Ok(Some(database)) = database(settings) {
        let tried = deltaport_store::check_database(&database);
        errors.extend(
            tried.err().map(|error| anyhow!("storage.metadata: {error}{}", advice(&error.to_string()))),
        );
    }
    errors
}

/// How many processes can serve what is kept so, when it is neither all in one directory nor all shared: which of the two
/// is not would be a surprise.
pub(crate) fn who_can_share(settings: &Settings) -> Option<&'static str> {
    match (&settings.storage.blobs, &settings.storage.metadata) {
        (None | Some(BlobPlace::Directory(_)), Some(NamePlace::Database(_))) => Some(
            "Only one process can serve this at a time: the bytes are in a directory, which replicas cannot share, not even \
             over a network. For replicas, set storage.blobs to a bucket.",
        ),
        (Some(BlobPlace::Bucket(_)), None | Some(NamePlace::File(_))) => Some(
            "Only one process can serve this at a time: the names are in a file, which replicas cannot share. For replicas, \
             set storage.metadata to a PostgreSQL.",
        ),
        _ => None,
    }
}

/// What can be done in settings about what a database says; begins where its sentence ends.
fn advice(said: &str) -> &'static str {
    match said {
        said if said.contains("no encryption") => "; it wants TLS: set storage.postgres.tls to \"verify\"",
        said if said.contains("does not support TLS") => {
            "; give it a certificate, or, on a network that is trusted anyway, set storage.postgres.tls to \"off\""
        }
        said if said.contains("UnknownIssuer") => "; storage.postgres.ca names authorities to trust",
        _ => "",
    }
}
