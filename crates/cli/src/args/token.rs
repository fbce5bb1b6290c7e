//! What the commands are told that make tokens for programs.

use std::str::FromStr;

use clap::Subcommand;

use super::Place;
use crate::settings::Span;

/// Make, list and revoke tokens for programs
///
/// A token is a secret of its own for a program, such as a build job: for certain repositories, for a certain time, and
/// revoked without changing anybody's password.
#[derive(Debug, clap::Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    Create(TokenCreate),
    List(TokenList),
    Revoke(TokenRevoke),
}

/// Make a token and show its secret, once
///
/// Only a hash of the secret is kept. Programs log in with NAME and the secret as password, or send it as a bearer token.
/// May be given while deltaport runs on these data, which knows it within a moment:
///
///   deltaport token create ci --scope repository:team/app:pull,push --expires 90d
///   docker login -u ci registry.example
///
/// What it may do is what its scopes say, and what everyone may; rules about users do not apply to it.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct TokenCreate {
    /// What it is called and logs in as: small letters, digits, dots, hyphens and underscores
    pub(crate) name: String,
    /// What it is for, as repository:NAME:ACTIONS; may be given several times. NAME may be a pattern as in access rules,
    /// ACTIONS are pull, push and delete
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    pub(crate) scopes: Vec<String>,
    /// How long it is valid, such as 90d, or never for no end
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Expiry,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Write JSON: {"name": ..., "secret": ..., "scopes": [...], "expires": ...}
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show which tokens there are, what they are for and when they end
#[derive(Debug, clap::Args)]
pub(crate) struct TokenList {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Write JSON: [{"name": ..., "scopes": [...], "created": ..., "expires": ..., "valid": ...}], times in seconds since 1970
    #[arg(long)]
    pub(crate) json: bool,
}

/// Take a token away
///
/// A running deltaport refuses it within a moment, and what was issued for it.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenRevoke {
    /// What it is called
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// When a token ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expiry {
    After(Span),
    Never,
}

impl FromStr for Expiry {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse::<Span>()) {
            ("never", _) => Ok(Self::Never),
            (_, Ok(span)) if span.0.as_secs() > 0 => Ok(Self::After(span)),
            _ => Err("write a time such as 90d or 12h, or never"),
        }
    }
}
