//! The media types that mean something to a registry (image-spec, media-types.md, and Docker's older ones).

/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Docker's manifest list, the ancestor of the index.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image manifest, version 2, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// The configuration of an OCI image.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The configuration of Docker's image.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The empty JSON object as a configuration: the media type says nothing about the artifact.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// What a blob is served as: a registry does not know more about its bytes.
pub const OCTET_STREAM: &str = "application/octet-stream";
/// A delta from layers that the receiver holds to a layer that it needs.
pub const LAYER_DELTA: &str = "application/vnd.deltaport.layer-delta.v1";
/// An artifact with deltas to the layers of the image that is its subject (docs/delta-artifacts.md).
pub const DELTA_ARTIFACT: &str = "application/vnd.deltaport.delta.v1";

/// What a client that can read every kind of manifest says it accepts.
pub const MANIFEST_ACCEPT: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

/// Whether the media type is that of an index or manifest list.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}

/// Whether the media type is one of the four of manifests.
pub fn is_manifest(media_type: &str) -> bool {
    is_index(media_type) || matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Whether a layer of this media type is not meant to be pushed: its bytes live at the URLs of its descriptor
/// (image-spec, layer.md, "Non-Distributable Layers").
pub fn is_foreign_layer(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}
