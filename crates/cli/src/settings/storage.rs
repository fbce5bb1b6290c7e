//! `[storage]` as data: where bytes and names are when they are not in the data directory.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use deltaport_server::Network;
use serde::Serialize;

use super::{Size, Span, as_text, as_texts};

/// `[storage]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Storage {
    /// Where the bytes of blobs are; without an answer they are files of the data directory.
    #[serde(serialize_with = "as_text")]
    pub blobs: Option<BlobPlace>,
    /// Where the names are; without an answer they are in a file of the data directory.
    #[serde(serialize_with = "as_text")]
    pub metadata: Option<NamePlace>,
    /// How much the local copies may take that deltas are made of.
    pub scratch: Size,
    /// How the service with the bucket is spoken to.
    pub s3: S3,
    /// How the database is spoken to.
    pub postgres: Postgres,
}

/// `[storage.s3]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct S3 {
    /// Where it is; without one it is Amazon's.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: Option<String>,
    /// Whether the bucket is part of the path; without an answer it is where there is an endpoint.
    pub path_style: Option<bool>,
    /// The file with the access key.
    pub credentials_file: Option<PathBuf>,
    /// Its section.
    pub profile: String,
    /// PEM file with the certificates to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// How much goes into one part of an object.
    pub part_size: Size,
    /// How much memory all parts on their way may take.
    pub memory: Size,
    /// Where clients are that get blobs from the bucket itself.
    #[serde(serialize_with = "as_texts")]
    pub redirect: Vec<Network>,
    /// How long an address is good that they are sent to.
    pub redirect_lifetime: Span,
}

impl S3 {
    /// Whether the bucket is part of the path of addresses.
    pub fn is_path_style(&self) -> bool {
        self.path_style.unwrap_or(self.endpoint.is_some())
    }
}

/// `[storage.postgres]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Postgres {
    /// The most connections.
    pub connections: u64,
    /// The file that holds the password.
    pub password_file: Option<PathBuf>,
    /// Whether the connection is encrypted and its other end proven.
    pub tls: PostgresTls,
    /// PEM file with the certificates to trust besides the system's.
    pub ca: Option<PathBuf>,
}

/// Whether the connection to the database is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PostgresTls {
    /// Unless the database is on this machine.
    #[default]
    Auto,
    /// It is.
    Verify,
    /// It is not.
    Off,
}

/// Where the bytes of blobs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobPlace {
    /// In a bucket.
    Bucket(BucketAddress),
    /// In files of this directory.
    Directory(PathBuf),
}

/// Where the names are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePlace {
    /// In a PostgreSQL.
    Database(DatabaseAddress),
    /// In this file.
    File(PathBuf),
}

impl BlobPlace {
    /// Reads `text`; a relative path begins at `base`.
    pub(super) fn read(text: &str, base: &Path) -> Result<Self, String> {
        if text.starts_with("s3://") {
            return Ok(Self::Bucket(text.parse()?));
        }
        path(text, base).map(Self::Directory)
    }
}

impl NamePlace {
    /// Reads `text`; a relative path begins at `base`.
    pub(super) fn read(text: &str, base: &Path) -> Result<Self, String> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Database(text.parse()?));
        }
        match path(text, base)? {
            _ if text.ends_with('/') => {
                Err("a path that ends with a slash is that of a directory".to_owned())
            }
            path => Ok(Self::File(path)),
        }
    }
}

impl fmt::Display for BlobPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bucket(bucket) => bucket.fmt(f),
            Self::Directory(path) => path.display().fmt(f),
        }
    }
}

impl fmt::Display for NamePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(database) => database.fmt(f),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// A path, as it is or as a URL of the scheme `file`. What begins with another scheme is no path: most likely a letter is
/// wrong, and a directory of such a name would be made of it.
fn path(text: &str, base: &Path) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if let Some(url) = text.strip_prefix("file:") {
        let absolute = url.strip_prefix("//").filter(|path| path.starts_with('/'));
        let path = absolute.ok_or("a URL of a file has three slashes: file:///srv/images")?;
        let path = percent_encoding::percent_decode_str(path).decode_utf8();
        return path.map(|path| PathBuf::from(&*path)).map_err(|_| "it is not UTF-8".to_owned());
    }
    let first = text.split('/').next().unwrap_or_default();
    match first.split_once(':') {
        Some((scheme, _)) => Err(format!(
            "{scheme}: is no scheme that is known here; a path with a colon in its first part is written with ./ before it"
        )),
        None => Ok(base.join(text)),
    }
}

/// `s3://bucket/prefix`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketAddress {
    /// The bucket.
    pub bucket: String,
    /// What all keys begin with, without slashes at its ends; may be empty.
    pub prefix: String,
}

impl FromStr for BucketAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("s3://").ok_or("it must begin with s3://")?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let of_bucket = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
        if !(3..=63).contains(&bucket.len())
            || !bucket.chars().all(of_bucket)
            || !bucket.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !bucket.ends_with(|c: char| c.is_ascii_alphanumeric())
        {
            return Err("a bucket is called by 3 to 63 small letters, digits, dots and hyphens");
        }
        let of_prefix = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let good =
            |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(of_prefix);
        if prefix.len() > MAX_PREFIX || !prefix.is_empty() && !prefix.split('/').all(good) {
            return Err(
                "a prefix is made of at most 256 letters, digits, dots, hyphens and underscores, with single slashes",
            );
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

/// The longest prefix, in bytes: keys have 1,024, and the rest is ours.
const MAX_PREFIX: usize = 256;

impl fmt::Display for BucketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// `postgres://user@host:port/database`, without a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseAddress {
    /// The role to log in as.
    pub user: String,
    /// A host name, an address, or the directory of a socket.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The database.
    pub database: String,
}

/// PostgreSQL's port.
const POSTGRES_PORT: u16 = 5432;

impl DatabaseAddress {
    /// Whether the database is on this machine.
    pub fn is_local(&self) -> bool {
        let address = self.host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        self.host.starts_with('/')
            || self.host == "localhost"
            || address.is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for DatabaseAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
            .ok_or("it must begin with postgres://")?;
        let (authority, database) =
            rest.split_once('/').ok_or("the name of the database is missing: /NAME at its end")?;
        let (user, place) = authority.rsplit_once('@').ok_or("the user is missing: USER@ before the host")?;
        if user.contains(':') {
            return Err(
                "a password does not belong here; use storage.postgres.password_file, or PGPASSWORD in the environment",
            );
        }
        if database.contains('?') {
            return Err("parameters do not belong here; what there is, is a key of [storage.postgres]");
        }
        let decoded = |part: &str| {
            let text = percent_encoding::percent_decode_str(part).decode_utf8().ok()?;
            (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.into_owned())
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| "what stands behind the host is not a port")?)
            }
            _ => (place, POSTGRES_PORT),
        };
        if host.contains(',') {
            return Err(
                "only one host can be given; a name that leads to the current primary is what its operator has",
            );
        }
        Ok(Self {
            user: decoded(user).ok_or("the user is missing: USER@ before the host")?,
            host: decoded(host)
                .ok_or("the host is missing; a socket is written as its directory, %2Frun%2Fpostgresql")?,
            port,
            database: decoded(database)
                .filter(|name| !name.contains('/'))
                .ok_or("the name of the database is missing: /NAME at its end")?,
        })
    }
}

impl fmt::Display for DatabaseAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
        };
        // Names as they mostly are stay readable.
        let plain = |text: &str| match text.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c))
        {
            true => text.to_owned(),
            false => encoded(text),
        };
        let (user, host, database) = (plain(&self.user), plain(&self.host), plain(&self.database));
        write!(f, "postgres://{user}@{host}:{}/{database}", self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_where_the_configuration_is() {
        let base = Path::new("/etc/deltaport");
        for (text, path) in [
            ("/mnt/big", "/mnt/big"),
            ("images", "/etc/deltaport/images"),
            ("./a:b", "/etc/deltaport/a:b"),
            ("file:///srv/my%20images", "/srv/my images"),
        ] {
            assert_eq!(BlobPlace::read(text, base), Ok(BlobPlace::Directory(path.into())), "{text}");
            assert_eq!(NamePlace::read(text, base), Ok(NamePlace::File(path.into())), "{text}");
        }
        for (text, why) in [
            ("", "empty"),
            ("gs://images", "gs: is no scheme"),
            ("S3://images", "S3: is no scheme"),
            ("postgres://hub@db/x", "postgres: is no scheme"),
            (":memory:", "is no scheme"),
            ("file://srv/images", "three slashes"),
            ("file:images", "three slashes"),
            ("s3://x", "3 to 63"),
        ] {
            let refused = BlobPlace::read(text, base).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
        for (text, why) in [
            ("s3://images", "s3: is no scheme"),
            ("mysql://hub@db/x", "mysql: is no scheme"),
            ("names/", "slash"),
            ("postgres://db", "/NAME"),
        ] {
            let refused = NamePlace::read(text, base).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }

    #[test]
    fn addresses_come_back_as_they_were_written() {
        for text in ["s3://images", "s3://my.images-2/hub/eu_1"] {
            assert_eq!(text.parse::<BucketAddress>().unwrap().to_string(), text);
        }
        assert_eq!("s3://images/hub/".parse::<BucketAddress>().unwrap().prefix, "hub");
        for text in [
            "postgres://hub@db.example:5432/deltaport",
            "postgres://hub@%2Frun%2Fpostgresql:5433/deltaport",
            "postgres://a%40b@[::1]:5432/x",
        ] {
            assert_eq!(text.parse::<DatabaseAddress>().unwrap().to_string(), text);
        }
        let short: DatabaseAddress = "postgresql://hub@10.0.0.7/deltaport".parse().unwrap();
        assert_eq!((short.port, short.is_local()), (5432, false));
        for local in ["localhost", "127.0.0.1", "[::1]", "%2Frun%2Fpostgresql"] {
            let address: DatabaseAddress = format!("postgres://hub@{local}/x").parse().unwrap();
            assert!(address.is_local(), "{local}");
        }
    }
}
