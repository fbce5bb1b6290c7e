//! `[storage]`: where bytes and names are when they are not in the data directory.

use super::{DAY, GIB, MIB, MINUTE, TIB, seconds, url};
use crate::settings::key::{Default, Key, Slot};
use crate::settings::{BlobPlace, NamePlace, PostgresTls, Settings, Size};

/// The keys of `[storage]`.
pub(super) const KEYS: &[Key<Settings>] = &[
    Key {
        name: "storage.blobs",
        slot: Slot::Place(
            "a bucket such as \"s3://images/hub\", or the path of a directory",
            |s, text, base| {
                s.storage.blobs = Some(BlobPlace::read(text, base)?);
                Ok(())
            },
        ),
        default: Default::Unset { example: "\"s3://images/hub\"", means: "files of the data directory" },
        about: "Where the bytes of blobs are. Either the bucket of an S3 service, and what the names of all objects in it \
                begin with (docs/scaling.md): nobody else may write there, and replicas that share it must share \
                storage.metadata, too, as without the database nobody knows which object is which blob. Or a directory, on \
                a larger disk perhaps: what is uploaded or fetched is there from its first byte, limits.free_disk and \
                space.free_disk look at its file system, and only one process can use it, wherever the names are. It is \
                made if it is not there.",
    },
    Key {
        name: "storage.metadata",
        slot: Slot::Place(
            "a database such as \"postgres://hub@db.example/deltaport\", or the path of a file",
            |s, text, base| {
                s.storage.metadata = Some(NamePlace::read(text, base)?);
                Ok(())
            },
        ),
        default: Default::Unset {
            example: "\"postgres://hub@db.example/deltaport\"",
            means: "a file of the data directory",
        },
        about: "Where the names are: repositories, tags, manifests, uploads, jobs. Either a PostgreSQL database: it must be \
                encoded in UTF-8; tables are made in it, and brought up to date, by whichever replica comes first. A \
                password does not belong here: see storage.postgres.password_file. Or a file, which SQLite makes, on a \
                local disk: only one process can use it. Its journal stays in the data directory.",
    },
    Key {
        name: "storage.scratch",
        slot: Slot::Size(|s| &mut s.storage.scratch, Size(GIB)..=Size(16 * TIB)),
        default: Default::Value("\"20GiB\""),
        about: "How much room copies of blobs may take in the data directory that deltas are made of, where blobs are in a \
                bucket. What is over goes, the least recently used first.",
    },
    Key {
        name: "storage.s3.endpoint",
        slot: Slot::Text("a URL such as \"https://s3.example:9000\"", |s, text| {
            s.storage.s3.endpoint = Some(url(text)?);
            Ok(())
        }),
        default: Default::Unset { example: "\"https://s3.example:9000\"", means: "Amazon's for the region" },
        about: "Where the S3 service is. With http:// instead of https://, everybody on the way can read and change what is \
                stored.",
    },
    Key {
        name: "storage.s3.region",
        slot: Slot::Text("a region such as \"eu-central-1\"", |s, text| {
            if text.is_empty() || !text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
                return Err("not the name of a region".to_owned());
            }
            s.storage.s3.region = Some(text.to_owned());
            Ok(())
        }),
        default: Default::Unset {
            example: "\"eu-central-1\"",
            means: "AWS_REGION of the environment, else \"us-east-1\"",
        },
        about: "The region that requests are signed for.",
    },
    Key {
        name: "storage.s3.path_style",
        slot: Slot::OptionalFlag(|s| &mut s.storage.s3.path_style),
        default: Default::Unset { example: "true", means: "true with storage.s3.endpoint, false without" },
        about: "Whether the bucket is the first part of the path, as https://s3.example/images, and not of the host, as \
                https://images.s3.example.",
    },
    Key {
        name: "storage.s3.credentials_file",
        slot: Slot::Path(|s| &mut s.storage.s3.credentials_file),
        default: Default::Unset {
            example: "\"/etc/deltaport/s3-credentials\"",
            means: "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment, else a web identity \
                    (AWS_WEB_IDENTITY_TOKEN_FILE), else the role of the container or machine",
        },
        about: "File with the access key, in the form of ~/.aws/credentials. It is read again when it changes, without a \
                restart.",
    },
    Key {
        name: "storage.s3.profile",
        slot: Slot::Text("the name of a section", |s, text| {
            if text.is_empty() || text.contains([']', '\n']) {
                return Err("not the name of a section".to_owned());
            }
            text.clone_into(&mut s.storage.s3.profile);
            Ok(())
        }),
        default: Default::Value("\"default\""),
        about: "The section of storage.s3.credentials_file that counts.",
    },
    Key {
        name: "storage.s3.ca",
        slot: Slot::Path(|s| &mut s.storage.s3.ca),
        default: Default::Unset {
            example: "\"/etc/deltaport/s3-ca.pem\"",
            means: "only the system's are trusted",
        },
        about: "PEM file with certificates of authorities to trust besides the system's, when connecting to the S3 service.",
    },
    Key {
        name: "storage.s3.part_size",
        slot: Slot::Size(|s| &mut s.storage.s3.part_size, Size(5 * MIB)..=Size(GIB)),
        default: Default::Value("\"16MiB\""),
        about: "How many bytes of a blob go to the bucket in one request. Services take 10,000 parts of an object, so a \
                blob can have 10,000 times this, 156 GiB with the default.",
    },
    Key {
        name: "storage.s3.memory",
        slot: Slot::Size(|s| &mut s.storage.s3.memory, Size(16 * MIB)..=Size(TIB)),
        default: Default::Value("\"128MiB\""),
        about: "How much memory the parts that are on their way to the bucket may take, all together. Uploads beyond that \
                wait.",
    },
    Key {
        name: "storage.s3.redirect",
        slot: Slot::Texts("networks such as \"10.0.0.0/8\"", |s, text| {
            s.storage.s3.redirect.push(text.parse().map_err(|error| format!("{error}"))?);
            Ok(())
        }),
        default: Default::Unset { example: "[\"10.0.0.0/8\"]", means: "bytes go through deltaport" },
        about: "Networks whose clients reach the bucket themselves: they are sent there for blobs, with an address that is \
                signed. Behind a balancer this needs trusted_proxies: without it the balancer's address counts, and either all \
                are sent or none.",
    },
    Key {
        name: "storage.s3.redirect_lifetime",
        slot: Slot::Span(|s| &mut s.storage.s3.redirect_lifetime, seconds(MINUTE)..=seconds(DAY)),
        default: Default::Value("\"15m\""),
        about: "How long such an address is good. Whoever learns it can read the blob that long.",
    },
    Key {
        name: "storage.postgres.connections",
        slot: Slot::Count(|s| &mut s.storage.postgres.connections, 2..=1000),
        default: Default::Value("16"),
        about: "The most connections of this replica to the database. All replicas together must stay below its \
                max_connections.",
    },
    Key {
        name: "storage.postgres.password_file",
        slot: Slot::Path(|s| &mut s.storage.postgres.password_file),
        default: Default::Unset {
            example: "\"/etc/deltaport/database.password\"",
            means: "PGPASSWORD of the environment, else none",
        },
        about: "File with the password, and a line break behind it or not. It is read at the start.",
    },
    Key {
        name: "storage.postgres.tls",
        slot: Slot::Choice(&["auto", "verify", "off"], |s, word| {
            s.storage.postgres.tls = match word {
                "verify" => PostgresTls::Verify,
                "off" => PostgresTls::Off,
                _ => PostgresTls::Auto,
            };
        }),
        default: Default::Value("\"auto\""),
        about: "Whether the connection is encrypted and its other end must prove that it is the host of storage.metadata: \
                with \"auto\" unless that is this machine.",
    },
    Key {
        name: "storage.postgres.ca",
        slot: Slot::Path(|s| &mut s.storage.postgres.ca),
        default: Default::Unset {
            example: "\"/etc/deltaport/database-ca.pem\"",
            means: "only the system's are trusted",
        },
        about: "PEM file with certificates of authorities to trust besides the system's, when connecting to the database.",
    },
];
