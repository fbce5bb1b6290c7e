//! The public registries that everybody pulls from.

/// Well-known public registries: the host that images are named after, and the address that answers for it.
///
/// They are what a registry without any configuration mirrors. None of them is asked before somebody pulls from it.
pub const PUBLIC: [(&str, &str); 8] = [
    (super::DOCKER, "https://registry-1.docker.io"),
    ("gcr.io", "https://gcr.io"),
    ("ghcr.io", "https://ghcr.io"),
    ("mcr.microsoft.com", "https://mcr.microsoft.com"),
    ("public.ecr.aws", "https://public.ecr.aws"),
    ("quay.io", "https://quay.io"),
    ("registry.access.redhat.com", "https://registry.access.redhat.com"),
    ("registry.k8s.io", "https://registry.k8s.io"),
];
