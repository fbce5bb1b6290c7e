//! The command line. Its help is read at 3 a.m.: it says what happens and what to type next.

mod client_config;
mod image;
mod migrate;
mod mirror;
mod remote;
mod space;
mod token;
mod verify;

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use deltaport_delta::Profile;
use deltaport_oci::Algorithm;

use crate::settings::{Rate, Size, Span};

pub(crate) use client_config::{Client, ClientConfig, RegistryUrl};
pub(crate) use image::{Image, ImageCommand, ImageComplete, ImagePrune, ImageShow};
pub(crate) use migrate::Migrate;
pub(crate) use mirror::{Mirror, MirrorCommand, MirrorRule};
pub(crate) use remote::{Access, DeltaList, DeltaPush, ImageName};
pub(crate) use space::{Gc, Usage};
pub(crate) use token::{Expiry, Token, TokenCommand, TokenCreate, TokenList, TokenRevoke};
pub(crate) use verify::{Signed, Verify};

/// Image distribution for places with bad links: an OCI registry, a pull-through site and layer deltas in one binary.
///
/// Start with `deltaport serve`. It needs no configuration, and it prints how to push a first image.
#[derive(Debug, Parser)]
#[command(name = "deltaport", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(Serve),
    Config(Config),
    ClientConfig(ClientConfig),
    Fsck(Fsck),
    Rebuild(Rebuild),
    Usage(Usage),
    Gc(Gc),
    Migrate(Migrate),
    Passwd(Passwd),
    Token(Token),
    Delta(Box<Delta>),
    Image(Box<Image>),
    Mirror(Box<Mirror>),
    Demo(Demo),
    Verify(Box<Verify>),
}

/// Serve images until told to stop
///
/// Without a configuration it listens on 127.0.0.1:5000, lets this machine do everything and nobody else anything, and
/// keeps its data in the platform's data directory. It prints where it listens, where the data are and how to push.
///
/// SIGTERM and SIGINT (Ctrl-C) stop it: requests that are running may end within `shutdown_grace`, a second signal ends
/// it at once. Nothing that was acknowledged is lost either way. SIGHUP has it read the access rules again; certificates
/// and passwords are read again by themselves.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Serve {
    /// Where to listen, as address and port; port 0 takes any free one [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// The directory that holds everything; made when it is not there [default: the platform's data directory]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) data: Option<PathBuf>,
    /// A configuration file in TOML; `deltaport config reference` shows every key
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Allow plain HTTP on an address that other machines can reach
    #[arg(long)]
    pub(crate) insecure_http: bool,
}

/// Check a configuration file, or show every key that there is
#[derive(Debug, clap::Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    Check(ConfigCheck),
    Reference(ConfigReference),
}

/// Tell every mistake in a configuration file, or what is in effect
///
/// Also looks into the files and directories that the configuration names (passwords, certificates, [storage]), and
/// connects to the bucket and the database in [storage]: whether everything that is needed may be done there. Nothing is
/// started or changed; an object that is written to the bucket is removed again. Where only one process can serve what is
/// kept so, although part of it could be shared, that is said, too.
///
/// Exits with 0 when `deltaport serve` would accept it, with 1 otherwise.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigCheck {
    /// The file; without one, the defaults are shown
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Connect to nothing
    #[arg(long)]
    pub(crate) offline: bool,
    /// Write JSON: {"ok": true, "settings": {...}, "notes": [...]} or {"ok": false, "problems": [...]}
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show every key with its type, its default and its meaning
///
/// What it writes is a configuration file in which everything is commented out:
///
///   deltaport config reference > deltaport.toml
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ConfigReference {
    /// Write Markdown, as in docs/configuration.md
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Check every byte and every name, and mend them if wanted
///
/// Reads every file and compares it with its digest, and everything that the database says with the files, the manifests
/// and the journal. deltaport must not be running on these data.
///
/// Exits with 0 when all is well (or, with --repair, was mended), with 1 when something is wrong, with 3 when it could not
/// check.
#[derive(Debug, clap::Args)]
pub(crate) struct Fsck {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Mend what can be mended: damaged files are put into quarantine/ and never deleted, and names of what is lost are
    /// taken away
    #[arg(long)]
    pub(crate) repair: bool,
    /// When bytes are in a bucket, read and hash every object, and not only look whether it is there with its size
    #[arg(long)]
    pub(crate) rehash: bool,
    /// Write JSON: {"ok": ..., "report": {..., "findings": [{"code": ..., "severity": ..., ...}]}}
    #[arg(long)]
    pub(crate) json: bool,
}

/// Make the database again, from the blobs and the journal
///
/// For when names.db is lost or damaged. It is made beside the old one, which is then set aside and not deleted. Uploads
/// in progress are lost; clients begin them again. deltaport must not be running on these data.
///
/// Exits with 0 when everything was given back, with 1 when something is lost, with 3 when it was not done.
#[derive(Debug, clap::Args)]
pub(crate) struct Rebuild {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Write JSON: {"ok": ..., "rebuilt": {...}}
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where the data are.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The directory that holds everything [default: the platform's data directory]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) data: Option<PathBuf>,
    /// The configuration file that names the directory
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub(crate) config: Option<PathBuf>,
}

/// Make a line of a password file
///
/// Reads the password from the standard input, without showing it on a terminal, and writes the line user:hash. Add it
/// to the file that `access.htpasswd` names; a running deltaport reads the file again by itself:
///
///   deltaport passwd anna >> htpasswd
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Passwd {
    /// The user
    pub(crate) user: String,
}

/// Make, apply, publish and look at layer deltas
///
/// A delta and the old layers make the new layer again, byte for byte: its digest is the one that its manifest names.
/// A layer is the blob as a registry has it: a tar archive, compressed with gzip or zstd or not at all.
#[derive(Debug, clap::Args)]
pub(crate) struct Delta {
    #[command(subcommand)]
    pub(crate) command: DeltaCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeltaCommand {
    Create(DeltaCreate),
    Apply(DeltaApply),
    Inspect(DeltaInspect),
    Push(DeltaPush),
    List(DeltaList),
}

/// Make the delta from old layers to a new one
///
/// Every delta is applied and compared before it is written, so one that is there
/// works.
///
///   deltaport delta create --base old.tar.gz --target new.tar.gz --out new.delta
///   deltaport delta create --base oci:old --target oci:new --out deltas/
///
/// oci:DIR[:TAG] is an image in an OCI image layout, as skopeo and buildah write
/// it. Of an old image, those layers are bases which a new layer most likely
/// replaces, of the same platform. Of a new image, each layer that the old one
/// does not have gets a delta of its own, OUT/<digest of the layer in
/// hexadecimal>.delta.
///
/// Exits with 0 when it was made, with 4 when it is not worth it (above 70 % of
/// the layer; nothing is written then, send the layer), with 1 when it could not
/// be made, with 2 when the arguments make no sense. Of an image: with 0 when at
/// least one delta was made or none was needed, with 4 when some were and none is
/// worth it, with 1 at the first layer for which one could not be made.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct DeltaCreate {
    /// An old layer, or an image with its layers; may be given up to 16 times
    #[arg(long = "base", value_name = "OLD", required = true)]
    pub(crate) bases: Vec<Layers>,
    /// The new layer, or an image with its layers
    #[arg(long, value_name = "NEW")]
    pub(crate) target: Layers,
    /// The file of the delta, replaced when it is there; of an image, the directory of the deltas. Twice the
    /// uncompressed layers must fit beside it meanwhile
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) effort: Effort,
    /// Write JSON: {"outcome": "made", "target": {...}, "file": ..., ...}, or {"layers": [...]} of an image
    #[arg(long)]
    pub(crate) json: bool,
}

/// What making a delta may cost.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Effort {
    /// How much work goes into it: fast is for a delta that somebody waits for
    #[arg(long, value_enum, default_value_t = DeltaProfile::Best)]
    pub(crate) profile: DeltaProfile,
    /// The most memory that is taken, such as 512MiB; less than 256MiB counts as that
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    pub(crate) memory: Size,
    /// How many threads may work at the same time; the delta is the same with any [default: those of the machine]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
}

impl Effort {
    /// The same for the engine; deltas are to name layers by hashes of `algorithm`.
    pub(crate) fn options(&self, algorithm: Algorithm) -> deltaport_delta::Options {
        let of_machine = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        deltaport_delta::Options {
            algorithm,
            profile: match self.profile {
                DeltaProfile::Fast => Profile::Fast,
                DeltaProfile::Best => Profile::Best,
            },
            memory: self.memory.0,
            threads: self.threads.map_or_else(of_machine, usize::from),
            ..deltaport_delta::Options::default()
        }
    }
}

/// Make the new layer, from the old ones and a delta
///
///   deltaport delta apply --base old.tar.gz --delta new.delta --out new.tar.gz
///   deltaport delta apply --base oci:old --delta new.delta --out new.tar.gz
///
/// Exits with 0 when NEW is there and has the digest that the delta names, with 1
/// otherwise; what was at NEW before is then still there. Whatever goes wrong:
/// fetch the whole layer instead, nothing is lost but time.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct DeltaApply {
    /// An old layer, or oci:DIR for all blobs of an OCI image layout; in any order, found by digest, more than are
    /// needed do no harm
    #[arg(long = "base", value_name = "OLD", required = true)]
    pub(crate) bases: Vec<Layers>,
    /// The delta
    #[arg(long, value_name = "FILE")]
    pub(crate) delta: PathBuf,
    /// The new layer, replaced when it is there. The uncompressed old layers must fit beside it meanwhile
    #[arg(long, value_name = "NEW")]
    pub(crate) out: PathBuf,
    /// Write JSON: {"digest": ..., "size": ...}
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show what a delta says about itself
///
/// Which layer it makes, of which it needs the old ones, how both were looked at, and what its bytes are spent on.
#[derive(Debug, clap::Args)]
pub(crate) struct DeltaInspect {
    /// The delta
    #[arg(value_name = "FILE")]
    pub(crate) delta: PathBuf,
    /// Write JSON: {"kind": ..., "recipe": ..., "target": {...}, "bases": [...], "sections": {...}, ...}
    #[arg(long)]
    pub(crate) json: bool,
}

/// See what deltas save: an update over a bad link, with and without them
///
/// Starts a hub and two sites in this process, with a slow link between them, pushes
/// two versions of an image to the hub and pulls the second one through both sites,
/// which hold the first. Everything is on loopback and in a temporary directory,
/// and gone afterwards.
///
///   deltaport demo
///   deltaport demo --from oci:old --to oci:new --rate 2Mbit --rtt 600ms
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Demo {
    /// The image that the sites have, as oci:DIR[:TAG]; a small sample when nothing is given
    #[arg(long, value_name = "OLD", requires = "to")]
    pub(crate) from: Option<Layers>,
    /// The image that they are to get
    #[arg(long, value_name = "NEW", requires = "from")]
    pub(crate) to: Option<Layers>,
    /// What the link carries in each direction, such as 2Mbit or 1Gbit
    #[arg(long, value_name = "RATE", default_value = "10Mbit")]
    pub(crate) rate: Rate,
    /// How long a byte there and its answer back take, such as 600ms
    #[arg(long, value_name = "TIME", default_value = "300ms")]
    pub(crate) rtt: Span,
    /// Have the link reset a connection after so many bytes, such as 4MiB [default: never]
    #[arg(long, value_name = "SIZE")]
    pub(crate) reset_every: Option<Size>,
    /// Write JSON: {"without_deltas": {"received": ..., "seconds": ...}, "with_deltas": {...}, ...}
    #[arg(long)]
    pub(crate) json: bool,
}

/// How much work goes into a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeltaProfile {
    Fast,
    Best,
}

/// Where layers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Layers {
    /// One layer, as a file.
    File(PathBuf),
    /// Those of an image in an OCI image layout.
    Image { layout: PathBuf, tag: Option<String> },
}

impl From<OsString> for Layers {
    /// As skopeo reads it: the directory ends at the first colon, since names of images have colons too. A file whose
    /// name begins with `oci:` is `./oci:`.
    fn from(text: OsString) -> Self {
        let Some(place) = text.as_bytes().strip_prefix(b"oci:") else { return Self::File(text.into()) };
        let end = place.iter().position(|byte| *byte == b':').unwrap_or(place.len());
        let tag = place.get(end + 1..).filter(|tag| !tag.is_empty());
        Self::Image {
            layout: OsStr::from_bytes(&place[..end]).into(),
            tag: tag.map(|tag| String::from_utf8_lossy(tag).into_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_files_or_images() {
        let image = |layout: &str, tag: Option<&str>| Layers::Image {
            layout: layout.into(),
            tag: tag.map(str::to_owned),
        };
        for (text, layers) in [
            ("a.tar.gz", Layers::File("a.tar.gz".into())),
            ("./oci:a", Layers::File("./oci:a".into())),
            ("oci:a/b", image("a/b", None)),
            ("oci:a/b:", image("a/b", None)),
            ("oci:a/b:1", image("a/b", Some("1"))),
            ("oci:a:docker.io/library/debian:12", image("a", Some("docker.io/library/debian:12"))),
        ] {
            assert_eq!(Layers::from(OsString::from(text)), layers, "{text}");
        }
    }
}
