//! What a command shows on a terminal while it works, and that it shows nothing elsewhere.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::sample::{self, Content, Image, bytes};
use deltaport_testkit::upstream::{Reply, Rule, Upstream};
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

const HOST: &str = "registry.example";
const COLUMNS: u16 = 70;

/// A site with a slow link to an image of three layers, and a rule for it.
async fn site() -> (Upstream, Server) {
    let layers = (0..3).map(|seed| Content::new(sample::LAYER_TAR, bytes(seed, 600 << 10))).collect();
    let image = Image::of("amd64", layers);
    let mut rules = vec![Rule::no_hub()];
    for method in ["HEAD", "GET"] {
        for reference in ["v1".to_owned(), image.manifest.digest.to_string()] {
            let path = format!("/v2/app/manifests/{reference}");
            rules.push(Rule::on(method, &path).reply(Reply::content(&image.manifest)));
        }
        for blob in image.blobs() {
            let path = format!("/v2/app/blobs/{}", blob.digest);
            rules.push(Rule::on(method, &path).reply(Reply::content(blob).ranged()));
        }
    }
    let digest = image.manifest.digest;
    let nothing = sample::index(&[], serde_json::json!({}));
    rules.push(Rule::on("GET", &format!("/v2/app/referrers/{digest}")).reply(Reply::content(&nothing)));
    for ending in [".sig", ".att", ".sbom", ""] {
        let path = format!("/v2/app/manifests/{}{ending}", digest.to_string().replace(':', "-"));
        rules.push(Rule::on("HEAD", &path).reply(Reply::status(404)));
    }
    let hub = Upstream::start(rules).await;
    let config = format!(
        "[fill]\nbandwidth = \"400KiB\"\n[[upstream]]\nhost = \"{HOST}\"\nurl = \"{}\"\n[[mirror]]\nname = \"all\"\nsource = \"{HOST}/app\"\ntags = [\"v1\"]\n",
        hub.url()
    );
    let site = Launch::new(env!("CARGO_BIN_EXE_deltaport")).config(&config).start().await;
    (hub, site)
}

/// `deltaport mirror run` with its standard error output on a terminal: what it wrote there, and how long it took.
fn on_terminal(site: &Server, term: &str) -> (String, Duration) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    tcsetwinsize(&master, Winsize { ws_col: COLUMNS, ws_row: 20, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let flags = i32::try_from(OFlags::NOCTTY.bits()).unwrap();
    let slave = OpenOptions::new().read(true).write(true).custom_flags(flags).open(name).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltaport"));
    command.args(["mirror", "run", &site.address().to_string()]).env("TERM", term);
    command.env("HOME", site.launch().home()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(slave);
    let began = Instant::now();
    let mut child = command.spawn().unwrap();
    // Nobody else has the other end open once the child has ended.
    drop(command);
    let (mut master, mut shown) = (File::from(master), Vec::new());
    let mut part = [0; 4096];
    // A terminal whose other end is closed fails to be read.
    while let Ok(read @ 1..) = master.read(&mut part) {
        shown.extend_from_slice(&part[..read]);
    }
    assert!(child.wait().unwrap().success());
    (String::from_utf8(shown).unwrap(), began.elapsed())
}

/// The text without what moves the cursor.
fn plain(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(part.len(), |end| end + 1);
        plain + &part[end..]
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_shows_a_bar_for_each_transfer_and_a_line_for_all() {
    let (_hub, site) = site().await;
    let (shown, took) = on_terminal(&site, "xterm");
    let text = plain(&shown);
    for word in ["fetching ", "[#", "of   600KiB", "KiB/s", "all: 0 of 1 tags", "v1: "] {
        assert!(text.contains(word), "{word:?}: {shown:?}");
    }
    assert!(text.split(['\r', '\n']).all(|line| line.chars().count() < usize::from(COLUMNS)), "{text:?}");
    // Each picture ends with what clears the rest of the screen.
    let pictures = shown.matches("\x1b[J").count();
    let most = took.as_millis() / 100 + 2;
    assert!(pictures > 2 && pictures as u128 <= most, "{pictures} in {took:?}");
    assert!(shown.ends_with("\x1b[J"), "nothing stays: {shown:?}");
    assert!(!shown.contains('m') || !shown.contains("\x1b[3"), "there are no colours to be switched off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_one_cannot_go_back_nothing_is_shown() {
    let (_hub, site) = site().await;
    assert_eq!(on_terminal(&site, "dumb").0, "");
    let (status, text) = site.launch().run(&["mirror", "run", &site.address().to_string()]);
    assert!(status.success() && !text.contains('\x1b') && !text.contains('#'), "{text}");
}
