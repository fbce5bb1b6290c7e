//! `deltaport config check` connects to what [storage] names, and says in a sentence what is wrong.

use deltaport_testkit::process::Launch;

/// What is said about a configuration, with these variables in the environment.
pub(crate) fn said(configuration: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    let launch = Launch::new(env!("CARGO_BIN_EXE_deltaport"));
    let file = launch.file("check.toml", configuration);
    let launch = variables.iter().fold(launch, |launch, (name, value)| launch.variable(name, value));
    let (status, text) = launch.run(&[
        "config",
        "check",
        "--config",
        file.to_str().expect("temporary directories have plain names"),
    ]);
    let secrets = ["a secret of the test kit", "wrong secret", "right password", "wrong password"];
    assert!(!secrets.iter().any(|secret| text.contains(secret)), "{text}");
    if status.success() { Ok(text) } else { Err(text) }
}

/// Panics unless a configuration is refused with a sentence that has all of these words.
pub(crate) fn refused(configuration: &str, variables: &[(&str, &str)], words: &[&str]) {
    let text = said(configuration, variables).expect_err(configuration);
    assert!(words.iter().all(|word| text.contains(word)), "{words:?} are not all in: {text}");
}
