//! What `deltaport client-config` is told.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;

use crate::settings;

/// Print the files that make a client pull through this registry
///
/// Images keep their usual names: with these files, docker.io/library/debian is asked of
/// this registry first, and of docker.io itself only when it is not found here. Which
/// registries that is about is taken from the configuration.
///
///   deltaport client-config --client podman --registry https://mirror.example:5000
///   deltaport client-config --client containerd --config deltaport.toml --out /
///
/// Every file begins with a comment that says where to put it and what to restart.
/// docs/clients.md has the traps of each client.
///
/// Exits with 0 when there was something to print, with 1 otherwise, with 2 when the
/// arguments make no sense.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ClientConfig {
    /// The client that the files are for
    #[arg(long, value_enum)]
    pub(crate) client: Client,
    /// What clients call this registry, as http:// or https://, a host and maybe a port [default: http:// and what it
    /// listens on, when that is an address of this machine and there is no TLS]
    #[arg(long, value_name = "URL")]
    pub(crate) registry: Option<RegistryUrl>,
    /// PEM file with the certificate of the authority that issued this registry's; clients are told to trust it
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The configuration file of this registry [default: as without one, the public registries are mirrored]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Write the files, with their directories, below this one; / is their place on the client's machine. What is there
    /// already and is different is not replaced
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "json")]
    pub(crate) out: Option<PathBuf>,
    /// Write JSON: {"files": [{"path": ..., "about": [...], "content": ...}]}
    #[arg(long)]
    pub(crate) json: bool,
}

/// A client whose files are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Client {
    /// podman, buildah and skopeo
    Podman,
    /// CRI-O
    Crio,
    /// containerd, nerdctl, and Kubernetes on it
    Containerd,
    /// Docker, with either image store
    Docker,
    /// k3s, and RKE2
    K3s,
    /// Talos Linux 1.12 and later
    Talos,
    /// OpenShift 4.13 and later
    Openshift,
}

/// What clients call this registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegistryUrl {
    /// Whether that is https.
    pub(crate) secure: bool,
    /// A host name in small letters, or an IPv4 address.
    pub(crate) host: String,
    /// The port, if it is not the scheme's own.
    pub(crate) port: Option<u16>,
}

impl RegistryUrl {
    /// The name `host` with this one's port, as it stands in names of images.
    pub(crate) fn authority_of(&self, host: &str) -> String {
        self.port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Host and port, as they stand in names of images.
    pub(crate) fn authority(&self) -> String {
        self.authority_of(&self.host)
    }

    /// `http` or `https`.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// Whether that is, on every machine, the machine itself.
    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.starts_with("127.")
    }
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority())
    }
}

impl FromStr for RegistryUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = settings::url(&text.to_ascii_lowercase())?;
        let (scheme, authority) = url.split_once("://").unwrap_or_default();
        let authority = settings::host(authority)?;
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| format!("{port} is no port"))?)),
            None => (authority.as_str(), None),
        };
        if port.is_none() && !host.contains('.') && host != "localhost" {
            return Err(format!(
                "in the name of an image, clients would take {host} for a part of Docker Hub: say the port too, such as \
                 {host}:443"
            ));
        }
        Ok(Self { secure: scheme == "https", host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_called_as_names_of_images_begin() {
        for (text, secure, authority) in [
            ("https://mirror.example:5000", true, "mirror.example:5000"),
            ("http://Mirror.Example/", false, "mirror.example"),
            ("http://127.0.0.1:5000", false, "127.0.0.1:5000"),
            ("https://localhost", true, "localhost"),
            ("https://mirror:443", true, "mirror:443"),
        ] {
            let url: RegistryUrl = text.parse().unwrap();
            assert_eq!((url.secure, url.authority().as_str()), (secure, authority), "{text}");
        }
        for text in [
            "mirror.example:5000",
            "https://mirror",
            "https://mirror.example/path",
            "https://me@mirror.example",
            "https://mirror.example:70000",
            "https://[::1]:5000",
            "ftp://mirror.example",
        ] {
            text.parse::<RegistryUrl>().unwrap_err();
        }
    }
}
