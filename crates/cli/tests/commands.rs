//! The commands that end by themselves, as the real binary runs them.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Runs the binary and hands it `input`.
fn deltaport(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_deltaport"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may have ended before.
    let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Writes a configuration into a directory of its own and returns both.
fn config(toml: &str) -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deltaport.toml");
    std::fs::write(&path, toml).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

#[test]
fn help_and_version_are_for_people_and_end_well() {
    for (arguments, says) in [
        (&["--help"][..], "Start with `deltaport serve`"),
        (&["help", "serve"], "--listen <ADDRESS>"),
        (&["serve", "--help"], "second signal ends it at once"),
        (&["config", "--help"], "reference"),
        (&["config", "check", "--help"], "Exits with 0"),
        (&["config", "reference", "--help"], "deltaport config reference > deltaport.toml"),
        (&["client-config", "--help"], "deltaport client-config --client podman --registry"),
        (&["passwd", "--help"], "deltaport passwd anna >> htpasswd"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let output = deltaport(arguments, "");
        assert!(output.status.success(), "{arguments:?}");
        assert!(stdout(&output).contains(says), "{arguments:?}\n{}", stdout(&output));
        assert!(stderr(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn arguments_that_make_no_sense_exit_with_2() {
    for arguments in [&[][..], &["serv"], &["serve", "--listen", "here"], &["config"], &["passwd"]] {
        let output = deltaport(arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stdout(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn the_reference_can_be_used_as_a_configuration() {
    let reference = deltaport(&["config", "reference"], "");
    let (_directory, path) = config(&stdout(&reference));
    let check = deltaport(&["config", "check", "--config", &path], "");
    assert!(check.status.success(), "{}", stderr(&check));
    let defaults = deltaport(&["config", "check"], "");
    let behind_first_line = |output: &Output| stdout(output).split_once('\n').unwrap().1.to_owned();
    assert_eq!(behind_first_line(&check), behind_first_line(&defaults));
}

#[test]
fn the_reference_comes_in_three_forms() {
    let markdown = deltaport(&["config", "reference", "--markdown"], "");
    let documentation = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    assert_eq!(stdout(&markdown), std::fs::read_to_string(documentation).unwrap());
    let json = deltaport(&["config", "reference", "--json"], "");
    let keys: Vec<serde_json::Value> = serde_json::from_str(&stdout(&json)).unwrap();
    assert!(keys.iter().any(|key| key["table"] == "limits" && key["key"] == "manifest_size"));
}

#[test]
fn a_good_configuration_is_shown_as_it_takes_effect() {
    let (_directory, path) = config("listen = \"127.0.0.1:7000\"\nlimits.free_disk = \"1024 MiB\"");
    let text = deltaport(&["config", "check", "--config", &path], "");
    assert!(text.status.success() && stderr(&text).is_empty());
    assert!(stdout(&text).contains("listen = \"127.0.0.1:7000\""), "{}", stdout(&text));
    assert!(stdout(&text).contains("free_disk = \"1GiB\""), "{}", stdout(&text));
    let json = deltaport(&["config", "check", "--json", "--config", &path], "");
    let json: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(json["ok"], true);
    assert_eq!(json["settings"]["limits"]["free_disk"], "1GiB");
}

#[test]
fn a_bad_configuration_is_told_with_lines_and_exits_with_1() {
    let (_directory, path) = config("lisen = \"127.0.0.1:7000\"\n\n[limits]\nfree_disk = 5\n");
    let text = deltaport(&["config", "check", "--config", &path], "");
    assert_eq!(text.status.code(), Some(1));
    let lines: Vec<String> = stderr(&text).lines().map(str::to_owned).collect();
    assert_eq!(lines[0], format!("{path}:1:1: unknown key `lisen`; did you mean `listen`?"));
    let second = format!("{path}:4:13: `limits.free_disk` must be a size such as");
    assert!(lines[1].starts_with(&second), "{}", lines[1]);
    let json = deltaport(&["config", "check", "--json", "--config", &path], "");
    assert_eq!(json.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["problems"][1]["line"], 4);
    // `serve` refuses it with the same words.
    let serve = deltaport(&["serve", "--config", &path], "");
    assert_eq!((serve.status.code(), stderr(&serve)), (Some(1), stderr(&text)));
}

#[test]
fn files_that_a_configuration_names_are_looked_into() {
    let upstream = "[[upstream]]\nhost = \"a\"\nurl = \"https://a\"\nca = \"none.pem\"";
    let (directory, path) = config(&format!("[access]\nhtpasswd = \"users\"\n{upstream}"));
    std::fs::write(directory.path().join("users"), "anna:hunter2\n").unwrap();
    let check = deltaport(&["config", "check", "--config", &path], "");
    assert_eq!(check.status.code(), Some(1));
    let text = stderr(&check);
    assert!(
        text.contains("users: line 1: the password of \"anna\" is stored as plain text or crypt"),
        "{text}"
    );
    assert!(text.contains("none.pem: No such file"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn a_configuration_that_cannot_be_read_is_no_empty_one() {
    let (directory, path) = config(&"#".repeat((1 << 20) + 1));
    let check = deltaport(&["config", "check", "--config", &path], "");
    assert_eq!(check.status.code(), Some(1));
    assert!(stderr(&check).contains("more than 1048576 bytes"), "{}", stderr(&check));
    let missing = directory.path().join("missing.toml");
    let check = deltaport(&["config", "check", "--config", missing.to_str().unwrap()], "");
    assert_eq!(check.status.code(), Some(1));
    assert!(stderr(&check).contains("missing.toml: cannot read it: No such file"), "{}", stderr(&check));
}

#[test]
fn a_password_line_lets_its_user_in() {
    for input in ["hunter2", "hunter2\n", "hunter2\r\n", "hunter2\nmore"] {
        let output = deltaport(&["passwd", "anna"], input);
        assert!(output.status.success(), "{}", stderr(&output));
        let passwords = deltaport_trust::Passwords::parse(&stdout(&output)).unwrap();
        assert!(passwords.verify("anna", "hunter2"), "{input:?}");
    }
    let (first, second) = (deltaport(&["passwd", "anna"], "x"), deltaport(&["passwd", "anna"], "x"));
    assert_ne!(first.stdout, second.stdout, "the salt is random");
}

#[test]
fn a_password_that_cannot_be_is_refused() {
    let long = "x".repeat(1025);
    for (user, input) in [("anna", ""), ("anna", "\n"), ("anna", long.as_str()), ("a:b", "x"), ("", "x")] {
        let output = deltaport(&["passwd", user], input);
        assert_eq!(output.status.code(), Some(1), "{user:?} {input:?}");
        assert!(stdout(&output).is_empty() && stderr(&output).starts_with("deltaport: "), "{user:?}");
    }
}

#[test]
fn nobody_reading_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_deltaport"))
        .args(["config", "reference"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).is_empty(), "{}", stderr(&output));
}

#[test]
fn places_that_cannot_be_used_are_told_before_and_at_the_start() {
    for (storage, words) in [
        (
            "blobs = \"gs://images\"",
            &["`storage.blobs` must be a bucket", "path of a directory", "gs: is no scheme"][..],
        ),
        (
            "metadata = \"mysql://hub@db/x\"",
            &["`storage.metadata` must be a database", "path of a file", "mysql: is no"],
        ),
        (
            "blobs = \"deltaport.toml\"",
            &["storage.blobs: ", "deltaport.toml: it is a file, and a directory is needed"],
        ),
        ("blobs = \"deltaport.toml/below\"", &["storage.blobs: ", "deltaport.toml is a file"]),
        (
            "blobs = \"/proc/deltaport\"",
            &["storage.blobs: /proc/deltaport: it cannot be made", "cannot be written to"],
        ),
        ("metadata = \".\"", &["storage.metadata: ", "it is a directory, and a file is needed"]),
        ("metadata = \"deltaport.toml\"", &["storage.metadata: ", "no database of SQLite"]),
        ("metadata = \"names/\"", &["storage.metadata", "ends with a slash"]),
    ] {
        let (_directory, path) = config(&format!("data = \"data\"\n[storage]\n{storage}\n"));
        let told = deltaport(&["config", "check", "--offline", "--config", &path], "");
        assert_eq!(told.status.code(), Some(1), "{storage}");
        assert!(words.iter().all(|word| stderr(&told).contains(word)), "{words:?}: {}", stderr(&told));
        let started = deltaport(&["serve", "--listen", "127.0.0.1:0", "--config", &path], "");
        assert!(!started.status.success(), "{storage}");
        let last = words.last().unwrap();
        assert!(stderr(&started).contains(last), "{storage}: {}", stderr(&started));
    }
}

#[test]
fn a_configuration_that_only_one_process_can_serve_says_so() {
    let postgres = "metadata = \"postgres://hub@db.example/deltaport\"";
    let bucket = "blobs = \"s3://images/hub\"";
    for (storage, note) in [
        ("blobs = \"bytes\"\nmetadata = \"names.db\"".to_owned(), None),
        (format!("{postgres}\n{bucket}"), None),
        (format!("{postgres}\nblobs = \"bytes\""), Some("set storage.blobs to a bucket")),
        (postgres.to_owned(), Some("set storage.blobs to a bucket")),
        (format!("{bucket}\nmetadata = \"names.db\""), Some("set storage.metadata to a PostgreSQL")),
    ] {
        let (directory, path) = config(&format!("[storage]\n{storage}\n"));
        let good = deltaport(&["config", "check", "--offline", "--config", &path], "");
        assert!(good.status.success(), "{storage}: {}", stderr(&good));
        assert_eq!(stdout(&good).contains("Only one process"), note.is_some(), "{}", stdout(&good));
        assert!(note.is_none_or(|note| stdout(&good).contains(note)), "{}", stdout(&good));
        if storage.contains("bytes") {
            let shown = format!("blobs = \"{}\"", directory.path().join("bytes").display());
            assert!(stdout(&good).contains(&shown), "{}", stdout(&good));
        }
        let json = deltaport(&["config", "check", "--offline", "--json", "--config", &path], "");
        let json: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
        assert_eq!(json["notes"].as_array().map(Vec::len), Some(usize::from(note.is_some())), "{json}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing was made");
    }
}
