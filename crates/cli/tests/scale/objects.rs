//! The S3 service under a hub.

use deltaport_testkit::s3;
use deltaport_testkit::s3::service::{BUCKET, Service};

/// A running service with a bucket.
pub(crate) struct Objects {
    pub(crate) endpoint: String,
    pub(crate) region: &'static str,
    pub(crate) bucket: String,
    pub(crate) access_key: &'static str,
    pub(crate) secret_key: String,
    /// `part_size`, if it is not to be the default.
    part_size: Option<&'static str>,
    /// The test kit's, if it is that one.
    kit: Option<s3::Server>,
    _service: Option<Service>,
}

impl Objects {
    /// The one that the environment names, or the test kit's.
    pub(crate) fn start() -> Self {
        let Some(service) = Service::chosen() else { return Self::kit() };
        Self {
            endpoint: service.endpoint().to_owned(),
            region: service.region(),
            bucket: BUCKET.to_owned(),
            access_key: service.access_key(),
            secret_key: service.secret_key().to_owned(),
            part_size: None,
            kit: None,
            _service: Some(service),
        }
    }

    /// The test kit's, whatever the environment says: for what counts or breaks.
    pub(crate) fn kit() -> Self {
        let server = s3::Server::start();
        Self {
            endpoint: server.endpoint(),
            region: s3::REGION,
            bucket: server.bucket(),
            access_key: s3::ACCESS_KEY,
            secret_key: s3::SECRET_KEY.to_owned(),
            part_size: None,
            kit: Some(server),
            _service: None,
        }
    }

    /// The test kit's, for a test that asked for that one.
    pub(crate) fn counting(&self) -> &s3::Server {
        self.kit.as_ref().expect("Objects::kit")
    }

    /// Has blobs sent in parts of this size.
    pub(crate) fn in_parts_of(self, size: &'static str) -> Self {
        Self { part_size: Some(size), ..self }
    }

    /// The names of all objects of blobs, with their sizes; `None` where they can only be listed by S3's own means.
    pub(crate) fn listed(&self) -> Option<Vec<(String, u64)>> {
        let kit = self.kit.as_ref()?;
        assert_eq!(kit.unfinished(&self.bucket), 0, "objects that were begun in parts");
        let name = |key: String| key.strip_prefix("hub/objects/").expect("there is nothing else").to_owned();
        Some(kit.objects(&self.bucket).into_iter().map(|(key, size)| (name(key), size)).collect())
    }

    /// The keys of `[storage]` and `[storage.s3]`.
    pub(crate) fn settings(&self) -> String {
        let Self { endpoint, region, bucket, .. } = self;
        let part_size = self.part_size.map_or_else(String::new, |size| format!("part_size = \"{size}\"\n"));
        format!(
            "[storage.s3]\nendpoint = \"{endpoint}\"\nregion = \"{region}\"\n{part_size}[storage]\nblobs = \"s3://{bucket}/hub\"\n"
        )
    }

    /// The variables with the credentials.
    pub(crate) fn variables(&self) -> [(&'static str, &str); 2] {
        [("AWS_ACCESS_KEY_ID", self.access_key), ("AWS_SECRET_ACCESS_KEY", &self.secret_key)]
    }
}
