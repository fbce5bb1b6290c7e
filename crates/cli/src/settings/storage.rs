//! `[storage]` as data: where bytes are when they are not in the data directory.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

use super::{Size, as_text};

/// `[storage]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Storage {
    /// The bucket with the bytes of blobs; without one they are files of the data directory.
    #[serde(serialize_with = "as_text")]
    pub blobs: Option<BucketAddress>,
    /// How much the local copies may take that deltas are made of.
    pub scratch: Size,
    /// How the service with the bucket is spoken to.
    pub s3: S3,
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
}

impl S3 {
    /// Whether the bucket is part of the path of addresses.
    pub fn is_path_style(&self) -> bool {
        self.path_style.unwrap_or(self.endpoint.is_some())
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
        let rest = text.strip_prefix("s3://").ok_or(
            "it must begin with s3://; without this key, blobs are files of the data directory (`data`)",
        )?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were_written() {
        for text in ["s3://images", "s3://my.images-2/hub/eu_1"] {
            assert_eq!(text.parse::<BucketAddress>().unwrap().to_string(), text);
        }
        assert_eq!("s3://images/hub/".parse::<BucketAddress>().unwrap().prefix, "hub");
    }
}
