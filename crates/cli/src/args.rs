//! The command line. Its help is read at 3 a.m.: it says what happens and what to type next.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

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
    Fsck(Fsck),
    Rebuild(Rebuild),
    Passwd(Passwd),
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
/// Also looks into the files that the configuration names (passwords, certificates). Nothing is started or changed.
/// Exits with 0 when `deltaport serve` would accept it, with 1 otherwise.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigCheck {
    /// The file; without one, the defaults are shown
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Write JSON: {"ok": true, "settings": {...}} or {"ok": false, "problems": [...]}
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
