//! The deflate encoders of klauspost/compress, which podman, buildah, skopeo and umoci use, and Go since 1.27.
