//! The real binary, killed in the middle of fetching a blob: the next process goes on where it was.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deltaport_testkit::http::Request;
use deltaport_testkit::process::Launch;
use deltaport_testkit::sample::{Content, bytes};
use deltaport_testkit::upstream::{Gate, Reply, Rule, Upstream};

const MIB: usize = 1 << 20;
/// How often what has arrived is recorded, at least.
const STEP: usize = 4 * MIB;

/// What a file of `partial/` with this extension says.
fn find(data: &Path, is_record: bool) -> Option<PathBuf> {
    let mut paths = std::fs::read_dir(data.join("partial")).ok()?.map(|entry| entry.unwrap().path());
    paths.find(|path| path.extension().is_some_and(|extension| extension == "record") == is_record)
}

fn recorded(data: &Path) -> usize {
    let text = find(data, true).and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("length ")).map_or(0, |length| length.parse().unwrap())
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_site_that_is_killed_in_the_middle_of_a_blob_goes_on_behind_the_last_four_mebibytes() {
    let content = Content::new("application/octet-stream", bytes(1, 20 * MIB));
    let path = format!("/v2/app/blobs/{}", content.digest);
    let gate = Gate::new();
    // Each process gets about half of what is left, and stands still.
    let stops = [9 * MIB + 1000, 4 * MIB + 2000];
    let mut rules: Vec<_> = stops
        .iter()
        .map(|stop| Rule::on("GET", &path).times(1).reply(Reply::content(&content).held_after(*stop, &gate)))
        .collect();
    rules.push(Rule::on("GET", &path).reply(Reply::content(&content)));
    let upstream = Upstream::start(rules).await;
    let config = format!("[[upstream]]\nhost = \"hub.example\"\nurl = \"{}\"\n", upstream.url());
    let mut server = Launch::new(env!("CARGO_BIN_EXE_deltaport")).config(&config).start().await;
    let data = server.launch().data();
    let local = format!("/v2/hub.example/app/blobs/{}", content.digest);
    let mut starts = vec![0];
    for stop in stops {
        let client = server.client();
        let asking = Request::get(&local);
        let pull = tokio::spawn(async move { client.try_send(asking).await.map(|answer| answer.body.len()) });
        let arrived = starts.last().unwrap() + stop;
        eventually("everything that was sent is in the file", || {
            let file = find(&data, false).and_then(|path| std::fs::metadata(path).ok());
            file.is_some_and(|file| file.len() == arrived as u64)
        })
        .await;
        eventually("the last boundary is recorded", || recorded(&data) / STEP == arrived / STEP).await;
        server.kill();
        assert!(pull.await.unwrap().is_err(), "the client has to notice");
        let (status, text) = server.launch().run(&["fsck", "--data", data.to_str().unwrap()]);
        assert!(status.success(), "{text}");
        starts.push(recorded(&data));
        server.start_again().await;
    }
    let answer = server.client().send(Request::get(&local)).await;
    assert!(answer.status == 200 && answer.body == content.bytes);
    let asked: Vec<_> =
        upstream.asked().iter().map(|asked| asked.headers.first("range").map(str::to_owned)).collect();
    let expected: Vec<_> =
        starts.iter().map(|start| (*start > 0).then(|| format!("bytes={start}-"))).collect();
    assert_eq!(asked, expected, "nothing before the record is asked for again");
    assert!(starts[1] >= 8 * MIB && starts[2] >= 12 * MIB, "{starts:?}");
    assert_eq!(upstream.sent(), (stops[0] + stops[1] + 20 * MIB - starts[2]) as u64);
    eventually("nothing is left", || find(&data, false).is_none()).await;
    gate.open();
}
