//! `deltaport token`: secrets for programs.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use deltaport_registry::tokens::RobotTokens;
use deltaport_trust::tokens::{Robot, SECRET_RANDOM_LEN, Scopes};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::args::{Expiry, Place, Token, TokenCommand, TokenCreate, TokenList, TokenRevoke};
use crate::output::Output;
use crate::wiring;

pub(crate) fn run(args: &Token, output: &mut Output) -> anyhow::Result<ExitCode> {
    match &args.command {
        TokenCommand::Create(args) => create(args, output),
        TokenCommand::List(args) => list(args, output),
        TokenCommand::Revoke(args) => revoke(args, output),
    }
}

/// The programs that may log in.
struct Robots {
    tokens: RobotTokens,
    /// What waits for the database, where they are in one.
    _runtime: Runtime,
}

fn robots(place: &Place) -> anyhow::Result<Robots> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.context("cannot start threads")?;
    Ok(Robots { tokens: wiring::robots(place, &runtime)?, _runtime: runtime })
}

fn now() -> anyhow::Result<u64> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Ok(since.context("the clock of this machine is before 1970")?.as_secs())
}

fn create(args: &TokenCreate, output: &mut Output) -> anyhow::Result<ExitCode> {
    let scopes = Scopes::parse(args.scopes.iter().map(String::as_str))?;
    let now = now()?;
    let expires = match args.expires {
        Expiry::After(span) => Some(now.saturating_add(span.0.as_secs())),
        Expiry::Never => None,
    };
    let mut random = [0; SECRET_RANDOM_LEN];
    getrandom::fill(&mut random).context("the system has no random numbers")?;
    let secret = robots(&args.place)?
        .tokens
        .change(|robots| robots.create(&args.name, scopes.clone(), expires, now, random))?;
    match args.json {
        true => {
            let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
            output.json(
                &json!({ "name": args.name, "secret": secret, "scopes": scopes, "expires": expires }),
            )?;
        }
        false => output.line(&secret)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(args: &TokenList, output: &mut Output) -> anyhow::Result<ExitCode> {
    let (robots, now) = (robots(&args.place)?.tokens.read()?, now()?);
    if args.json {
        let list: Vec<_> = robots
            .iter()
            .map(|robot| {
                let scopes: Vec<String> = robot.scopes.iter().map(ToString::to_string).collect();
                json!({
                    "name": robot.name,
                    "scopes": scopes,
                    "created": robot.created,
                    "expires": robot.expires,
                    "valid": robot.is_valid(now),
                })
            })
            .collect();
        output.json(&list.into())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    let width = robots.iter().map(|robot| robot.name.len()).max().unwrap_or(0);
    for robot in robots.iter() {
        let _ = writeln!(text, "{:width$}  {:<20}  {}", robot.name, ends(robot, now), robot.scopes);
    }
    if text.is_empty() {
        text.push_str("There are no tokens; `deltaport token create` makes one.\n");
    }
    output.text(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// When a token ends, for people.
fn ends(robot: &Robot, now: u64) -> String {
    match robot.expires {
        None => "never ends".to_owned(),
        Some(expires) if expires <= now => "has ended".to_owned(),
        Some(expires) => {
            let left = Duration::from_secs(expires - now).as_secs();
            match left {
                0..7200 => format!("ends in {} minutes", left / 60),
                7200..172_800 => format!("ends in {} hours", left / 3600),
                _ => format!("ends in {} days", (left + 43_200) / 86_400),
            }
        }
    }
}

fn revoke(args: &TokenRevoke, output: &mut Output) -> anyhow::Result<ExitCode> {
    robots(&args.place)?.tokens.change(|robots| robots.revoke(&args.name))?;
    output.line(&format!("{} may no longer log in", args.name))?;
    Ok(ExitCode::SUCCESS)
}
