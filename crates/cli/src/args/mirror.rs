//! What the commands are told that run the mirror rules of a deltaport.

use std::str::FromStr;

use clap::Subcommand;

use super::{Access, ImageName};

/// Show what the mirror rules of a deltaport would fetch, or fetch it
///
/// Rules ([[mirror]] in the configuration) say which tags of which repositories are to
/// be there without being asked for. These commands ask the deltaport that has the
/// rules, which must be running; that may be on this machine or another.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Mirror {
    #[command(subcommand)]
    pub(crate) command: MirrorCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MirrorCommand {
    /// Show what a run would do, and change nothing
    ///
    ///   deltaport mirror plan 127.0.0.1:5000
    ///
    /// Asks the upstream for its tags and for the manifests that are not here, but for no
    /// blob. A run right after it takes the same steps. Sizes are those of whole layers: by
    /// delta it is less.
    ///
    /// Exits with 0 when a run could fetch everything, with 1 when it could not.
    #[command(verbatim_doc_comment)]
    Plan(MirrorRule),
    /// Fetch what the rules want
    ///
    ///   deltaport mirror run 127.0.0.1:5000 nightly
    ///
    /// Waits for the end; interrupted, the run goes on in the deltaport, and giving the
    /// command again waits for it. A tag that fails stays where it was, and the others
    /// follow. Needs the rights to pull and to push.
    ///
    /// Outside the hours of its rule a run rests; with --now it does not.
    ///
    /// Exits with 0 when everything is here that the rules want; what an upstream does
    /// not have of an index is told, and is a failure only when its platform was asked
    /// for. Exits with 1 when something failed.
    #[command(verbatim_doc_comment)]
    Run(MirrorRun),
}

/// Which rules of which deltaport.
#[derive(Debug, clap::Args)]
pub(crate) struct MirrorRule {
    /// The deltaport, as HOST[:PORT]
    #[arg(value_name = "HOST")]
    pub(crate) host: Host,
    /// The rules, by name [default: all of them]
    #[arg(value_name = "RULE")]
    pub(crate) rules: Vec<String>,
    #[command(flatten)]
    pub(crate) access: Access,
    /// Write JSON: {"mirrors": [{"rule": ..., "tags": [{"tag": ..., "outcome": ..., "steps": [...]}], ...}]}
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which rules are to be run, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct MirrorRun {
    #[command(flatten)]
    pub(crate) rule: MirrorRule,
    /// Fetch at once, also outside the windows of the rules
    #[arg(long)]
    pub(crate) now: bool,
}

/// The host of a registry, with or without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host(String);

impl Host {
    /// `host[:port]`, in small letters.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Where the registry is.
    pub(crate) fn url(&self, plain_http: bool) -> String {
        ImageName::url_of(&self.0, plain_http)
    }
}

impl FromStr for Host {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let possible = !text.is_empty() && !text.contains(['/', '@', '?', '#', ' ']);
        if possible {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err("it is a host, such as 127.0.0.1:5000")
        }
    }
}
