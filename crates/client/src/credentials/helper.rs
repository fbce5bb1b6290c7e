//! Credential helpers: programs that keep logins, asked through their standard input and output (docker's
//! credential-helpers protocol, `get`).

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::{Credentials, Login, Result};

/// How long a helper may take. Those for clouds ask a service over the same bad link.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;
/// The user name that says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// What a helper writes when it does not know the registry. The protocol has no code for that.
const NOT_FOUND: &str = "credentials not found in native keychain";

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Says whether a helper can have that name. It becomes part of the name of a program, so it must not be a path.
pub(super) fn check_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match !name.is_empty() && name.chars().all(good) {
        true => Ok(()),
        false => Err(format!("{name:?} is not the name of a credential helper")),
    }
}

/// Asks the helper `name` for the login to `server`; `None` if it does not know any.
pub(super) async fn ask(name: &str, server: &str) -> Result<Option<Login>> {
    check_name(name)?;
    let program = format!("docker-credential-{name}");
    let answer = tokio::time::timeout(TIME_LIMIT, run(program.as_ref(), server)).await;
    let answer = answer.unwrap_or_else(|_| Err(format!("gives no answer within {} s", TIME_LIMIT.as_secs())));
    // What the program has written is not shown: it may be, or hold, the secret.
    answer.map_err(|why| format!("the credential helper {program} {why}"))
}

/// Runs a helper. It is killed when the future is dropped.
async fn run(program: &OsStr, server: &str) -> Result<Option<Login>> {
    let mut command = Command::new(program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("cannot be run: {error}"))?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("cannot be talked to".to_owned());
    };
    // A helper need not read what it is asked; one that has only one login may not care.
    let _ = input.write_all(server.as_bytes()).await;
    drop(input);
    let mut written = Vec::new();
    let read = output.take(MAX_ANSWER + 1).read_to_end(&mut written).await;
    read.map_err(|error| format!("cannot be read from: {error}"))?;
    if written.len() as u64 > MAX_ANSWER {
        return Err(format!("writes more than {MAX_ANSWER} bytes"));
    }
    let status = child.wait().await.map_err(|error| format!("cannot be waited for: {error}"))?;
    if !status.success() {
        let unknown = written.trim_ascii() == NOT_FOUND.as_bytes();
        return if unknown { Ok(None) } else { Err(format!("fails: {status}")) };
    }
    let Answer { username, secret } =
        serde_json::from_slice(&written).map_err(|_| "gives an answer that makes no sense".to_owned())?;
    Ok(match (secret.is_empty(), username == TOKEN_USER) {
        (true, _) => None,
        (false, true) => Some(Login::IdentityToken(secret)),
        (false, false) => Some(Login::Password(Credentials { username, password: secret })),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

    fn script(directory: &tempfile::TempDir, text: &str) -> PathBuf {
        let path = directory.path().join("docker-credential-test");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    #[tokio::test]
    async fn what_helpers_answer() {
        let directory = tempfile::tempdir().unwrap();
        let login = |username: &str, password: &str| {
            Ok(Some(Login::Password(Credentials {
                username: username.to_owned(),
                password: password.to_owned(),
            })))
        };
        for (text, expected) in [
            (
                r#"echo "{\"ServerURL\":\"x\",\"Username\":\"$1\",\"Secret\":\"$(cat)\"}""#,
                login("get", "r.example"),
            ),
            (
                r#"echo '{"Username":"<token>","Secret":"refresh"}'"#,
                Ok(Some(Login::IdentityToken("refresh".to_owned()))),
            ),
            (r#"echo '{"Username":"me","Secret":""}'"#, Ok(None)),
            ("echo credentials not found in native keychain; exit 1", Ok(None)),
            ("echo secret; exit 3", Err("fails: exit status: 3".to_owned())),
            ("echo secret", Err("gives an answer that makes no sense".to_owned())),
            ("yes secret", Err(format!("writes more than {MAX_ANSWER} bytes"))),
        ] {
            let found = run(script(&directory, text).as_ref(), "r.example").await;
            assert_eq!(found, expected, "{text}");
        }
        let missing = run(directory.path().join("none").as_ref(), "r.example").await.unwrap_err();
        assert!(missing.starts_with("cannot be run"), "{missing}");
    }

    #[tokio::test]
    async fn a_helper_that_is_not_waited_for_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let text = format!("echo $$ > {}; exec sleep 600", mark.display());
        let path = script(&directory, &text);
        let asked = tokio::time::timeout(Duration::from_millis(500), run(path.as_ref(), "r.example")).await;
        assert!(asked.is_err());
        let process = PathBuf::from("/proc").join(fs::read_to_string(&mark).unwrap().trim());
        for _ in 0..500 {
            // Killed and not yet collected, it has no command line any more.
            if fs::read(process.join("cmdline")).unwrap_or_default().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it still runs");
    }

    #[test]
    fn a_helper_is_no_path() {
        for (name, good) in [
            ("ecr-login", true),
            ("a.b_c", true),
            ("", false),
            ("../x", false),
            ("a/b", false),
            ("a b", false),
        ] {
            assert_eq!(check_name(name).is_ok(), good, "{name}");
        }
    }
}
