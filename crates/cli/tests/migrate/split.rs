//! From one directory to bytes and names elsewhere, and back; and who else may use these places.

use std::path::Path;

use deltaport_testkit::process::{Launch, Server};
use serde_json::Value;

use super::{image, pull, push};

/// A registry with this `storage`, all of whose places are its own.
fn registry(storage: &str) -> Launch {
    let launch = Launch::new(env!("CARGO_BIN_EXE_deltaport"));
    let data = launch.data();
    launch.config(&format!("data = '{}'\n[access]\ntrust_loopback = true\n{storage}", data.display()))
}

const SPLIT: &str = "[storage]\nblobs = 'large/bytes'\nmetadata = 'fast/names.db'\n";

fn config(launch: &Launch) -> String {
    launch.home().join("config.toml").to_str().unwrap().to_owned()
}

/// Moves what `from` serves to where `to` is to be, and starts that.
async fn moved(from: &Server, to: Launch) -> Server {
    let (from, new) = (config(from.launch()), config(&to));
    let (status, text) = to.run(&["migrate", "--from", &from, "--to", &new]);
    assert!(status.success() && text.contains("Next: deltaport serve"), "{text}");
    to.start().await
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_moves_to_other_disks_and_back() {
    let plain = registry("").start().await;
    push(&plain.client(), "1", &image(1)).await.unwrap();

    let mut split = moved(&plain, registry(SPLIT)).await;
    let home = split.launch().home().to_owned();
    pull(&split.client(), "1", &image(1)).await;
    push(&split.client(), "2", &image(2)).await.unwrap();
    assert!(split.log().contains(&format!("blobs in {}/large/bytes, names in", home.display())));
    let bytes = ["blobs", "lock", "pair", "partial", "quarantine", "staging", "uploads"];
    assert_eq!(entries(&home.join("large/bytes")), bytes);
    assert!(entries(&home.join("fast")).contains(&"names.db".to_owned()));
    let data = entries(&split.launch().data());
    assert!(data.contains(&"journal".to_owned()), "{data:?}");
    assert!(
        !data.iter().any(|name| bytes[..1].contains(&name.as_str()) || name.starts_with("names")),
        "{data:?}"
    );
    // Beside the server, which does it.
    let (status, text) = split.launch().run(&["gc", "--config", &config(split.launch()), "--json"]);
    assert!(status.success(), "{text}");

    let back = moved(&split, registry("")).await;
    for seed in [1, 2] {
        pull(&back.client(), &seed.to_string(), &image(seed)).await;
    }
    push(&back.client(), "3", &image(3)).await.unwrap();

    split.kill();
    let with_config = |command: &str, more: &[&str]| {
        let config = config(split.launch());
        let arguments = [&[command, "--config", &config], more].concat();
        let (status, text) = split.launch().run(&arguments);
        assert!(status.success(), "{command}: {text}");
        text
    };
    with_config("fsck", &[]);
    let usage: Value = serde_json::from_str(&with_config("usage", &["--json"])).unwrap();
    assert!(
        usage["blobs"].as_u64().unwrap() > 80_000 && usage["places"]["names"].as_u64().unwrap() > 0,
        "{usage}"
    );
    std::fs::remove_file(home.join("fast/names.db")).unwrap();
    with_config("rebuild", &[]);
    with_config("fsck", &[]);
    // Without the configuration nobody knows.
    let data = split.launch().data();
    let (status, text) = split.launch().run(&["fsck", "--data", data.to_str().unwrap()]);
    assert!(!status.success() && text.contains("give the configuration"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_is_kept_out_of_each_place() {
    let split = registry(SPLIT).start().await;
    let home = split.launch().home();
    let (large, fast) = (home.join("large/bytes"), home.join("fast/names.db"));
    for (storage, place) in [
        (format!("[storage]\nblobs = '{}'\n", large.display()), &large),
        (format!("[storage]\nmetadata = '{}'\n", fast.display()), &fast),
    ] {
        let other = registry(&storage);
        let (status, text) = other.run(&["serve", "--listen", "127.0.0.1:0", "--config", &config(&other)]);
        let told = format!("{} is in use by process {}", place.display(), split.pid());
        assert!(!status.success() && text.contains(&told), "{text}");
        let (status, text) = other.run(&["fsck", "--config", &config(&other)]);
        assert!(!status.success(), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_not_mounted_is_told() {
    let mut split = registry(SPLIT).start().await;
    push(&split.client(), "1", &image(1)).await.unwrap();
    assert!(split.terminate().success());
    let home = split.launch().home();
    let (there, away) = (home.join("large"), home.join("unmounted"));
    std::fs::rename(&there, &away).unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--config", &config(split.launch())];
    let (status, text) = split.launch().run(&serve);
    assert!(!status.success() && text.contains("is its disk mounted"), "{text}");
    std::fs::remove_dir_all(&there).unwrap();
    std::fs::rename(&away, &there).unwrap();
    split.start_again().await;
    pull(&split.client(), "1", &image(1)).await;
}
